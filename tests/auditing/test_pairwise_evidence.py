"""Pairwise evidence of a data set: shares by hand, the student that is compared, the rule of the verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import deshi
from deshi.artifacts import read_json, write_json
from deshi.auditing import AuditResult, PairwiseEvidence, pairwise_evidence
from deshi.data.splits import LeaveOneOut
from tiny_bundles import tiny_bundle

EVIDENCE = PairwiseEvidence("shop", 100, 0.2, 0.4, 0.01, 0.05)


def test_shares_and_figures_by_hand(tmp_path: Path) -> None:
    """Training ends two events before each history's end, validation is the next; the last event says nothing."""
    rows = [[0, 1, 2, 3, 9], [4, 0, 1, 2, 9], [5, 6, 7, 8, 9], [2, 3, 0, 1, 9]]
    bundle = tiny_bundle(tmp_path, rows, n_items=10)
    evidence = pairwise_evidence(bundle, LeaveOneOut()(bundle))
    # trained on 0 1 2, 4 0 1, 5 6 7, 2 3 0. Targets after the last item: 3 after 2 and 2 after 1 were counted there,
    # and 1 after 0; 8 never was.
    assert evidence is not None and evidence.targets == 4
    assert evidence.after_last == evidence.after_any == 0.75
    # candidates are the seven unseen items; the counted target is the only item with a count in three of four examples
    ndcg = [1.0, 1.0, 1 / np.log2(1 + 4), 1.0]
    assert evidence.pairwise == pytest.approx(np.mean(ndcg))
    assert evidence.student is None and "is open" in evidence.verdict


def test_no_validation_part_is_no_evidence(tmp_path: Path) -> None:
    """Histories of two events leave nothing to validate."""
    bundle = tiny_bundle(tmp_path, [[0, 1], [1, 0]])
    assert pairwise_evidence(bundle, LeaveOneOut()(bundle)) is None


@pytest.mark.parametrize(
    ("student", "words"), [(0.05, "is pairwise"), (0.055, "is nearly "), (0.06, "is not pairwise")]
)
def test_the_verdict_goes_by_the_share_of_the_students_figure(student: float, words: str) -> None:
    """From 100 % on the data are sufficient, from 90 % nearly so."""
    verdict = replace(EVIDENCE, student=student, evaluation="run").verdict
    assert f"shop {words}" in verdict and f"(0.0500 of {student:.4f}, run)" in verdict


def test_the_best_plain_student_of_the_same_protocol_is_compared(finished_root: Path, config_dir: Path) -> None:
    """A distilled or refitted student, or one that saw validation, is another thing and doesn't count."""
    folders = sorted((finished_root / "runs" / "evaluate").iterdir())
    figures = {folder.name: read_json(folder / "metrics.json")["validation/ndcg@10"] for folder in folders}

    def audited() -> AuditResult:
        result: AuditResult = deshi.audit(f"paths.root={finished_root}", data="tiny", config_dir=config_dir)
        return result

    result, best = audited(), max(figures, key=lambda name: figures[name])
    assert result.evidence is not None
    assert (result.evidence.evaluation, result.evidence.student) == (best, pytest.approx(figures[best]))
    record = read_json(result.folder / "run.json")["pairwise"]
    assert record["verdict"] in str(result).replace("\n", " ") or record["student"] == result.evidence.student
    for change in ({"stage": "distill"}, {"refit": True}, {"train_targets": "including_validation"}):
        kept = read_json(finished_root / "runs" / "evaluate" / best / "run.json")
        write_json(finished_root / "runs" / "evaluate" / best / "run.json", {**kept, "fit": {**kept["fit"], **change}})
        evidence = audited().evidence
        assert evidence is not None and evidence.evaluation != best
        write_json(finished_root / "runs" / "evaluate" / best / "run.json", kept)

"""The label stages: from a run to a store, a look into it, and lists that come from elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import deshi
from deshi.configuration.targets import ConfigError
from deshi.data.bundle import Bundle
from deshi.soft_labels import Inspection, LabelResult, SoftLabels
from deshi.stages import run_stage
from deshi.types import DeshiError
from foreign_files import write_dllm2rec


def test_a_run_writes_its_lists_and_they_are_inspected(finished_root: Path) -> None:
    """The lists after validation histories are those that the evaluation ranked by, and inspect sees the same hits."""
    root = f"paths.root={finished_root}"
    result = deshi.label(root, run="tiny_seed0", k=10, store="lists")
    assert isinstance(result, LabelResult) and result.folder == finished_root / "soft_labels" / "lists"
    bundle = Bundle.load(finished_root / "data" / "tiny")
    soft_labels = SoftLabels.load(result.folder, bundle, check=True)
    assert soft_labels.manifest["score_kind"] == "logit" and soft_labels.teacher == "sasrec"
    evaluated = deshi.evaluate(root, run="tiny_seed0", part="validation")
    rows = bundle.offsets[1:] - 3
    targets = bundle.items[rows + 1]
    hits = (soft_labels.rows(rows)[0] == targets[:, None]).any(1).mean()
    assert hits == pytest.approx(evaluated.metrics["validation/recall@10"])
    seen = deshi.inspect_labels(root, store="lists", compare_with="tiny_seed1")
    assert isinstance(seen, Inspection)
    assert seen.part("validation").metrics["hr@10"].mean == pytest.approx(hits)
    assert "tiny_seed1" in str(seen)


def test_the_same_request_again_does_nothing_and_another_is_refused(finished_root: Path) -> None:
    """A store is written once; a second request under its name must not silently mean the first one."""
    root = f"paths.root={finished_root}"
    first = deshi.label(root, run="tiny_seed0", k=5, store="lists")
    stamp = (first.folder / "topk_items.npy").stat().st_mtime_ns
    deshi.label(root, run="tiny_seed0", k=5, store="lists")
    assert (first.folder / "topk_items.npy").stat().st_mtime_ns == stamp
    with pytest.raises(DeshiError, match="force"):
        deshi.label(root, run="tiny_seed1", k=5, store="lists")
    again = deshi.label(root, run="tiny_seed1", k=5, store="lists", force=True)
    assert again.soft_labels.manifest["teacher"]["run"].endswith("tiny_seed1")


def test_augmented_histories_are_written_and_inspected(finished_root: Path, config_dir: Path) -> None:
    """`augment` makes rows of its own, about histories that nobody trained on, from training events only."""
    root = f"paths.root={finished_root}"
    words = ["augment.item_drop=0.3", "copies=2", "positions=train", "k=5", "store=augmented"]
    result = deshi.label(root, *words, run="tiny_seed0")
    assert result.soft_labels.augmented
    bundle = Bundle.load(finished_root / "data" / "tiny")
    histories = result.soft_labels.histories(bundle)
    assert len(histories.offsets) == 2 * bundle.n_users + 1
    held = np.concatenate([bundle.offsets[1:] - 1, bundle.offsets[1:] - 2])
    assert histories.sources is not None and not np.isin(histories.sources, held).any()
    assert isinstance(deshi.inspect_labels(root, store="augmented"), Inspection)
    audited = deshi.audit(root, data="tiny", soft_labels=str(result.folder), config_dir=config_dir)
    names = [problem.name for problem in audited.findings]
    assert names == ["few-candidates"], "an augmented store has other rows than the data, and that is no fault"


def test_foreign_lists_become_a_store(finished_root: Path, config_dir: Path, tmp_path: Path) -> None:
    """What DLLM2Rec's program would read is read back by `label import`, at the rows that it was written from."""
    root = f"paths.root={finished_root}"
    bundle = Bundle.load(finished_root / "data" / "tiny")
    written = deshi.label(root, run="tiny_seed0", k=5, store="own", positions="train")
    assert isinstance(written, LabelResult)
    rows = np.flatnonzero(written.soft_labels.covered)
    items, scores = written.soft_labels.rows(rows)
    data, tocf = write_dllm2rec(tmp_path, bundle, rows, items, scores)
    words = ["source=dllm2rec", f"source.data={data}", f"source.tocf={tocf}"]
    result = deshi.import_labels(root, *words, store="foreign", data="tiny", config_dir=config_dir)
    assert isinstance(result, LabelResult) and result.soft_labels.teacher == "dllm2rec"
    back = result.soft_labels
    common = np.flatnonzero(back.covered)
    assert len(common) > 0.5 * len(rows), "the others are ambiguous: users of the tiny data walk alike"
    assert (back.rows(common)[0] == written.soft_labels.rows(common)[0]).all()
    assert any("aligned" in note for note in back.manifest["teacher"]["notes"])


@pytest.mark.parametrize(
    ("stage", "words", "message"),
    [
        ("label", [], "run: is missing"),
        ("label_inspect", [], "store: is missing"),
        ("label_import", ["store=x", "data=ml-1m"], "source: .*source=dllm2rec"),
        ("label_import", ["store=x", "source=dllm2rec", "source.data=a", "source.tocf=b"], "data.name: is missing"),
        ("label_inspect", ["store=absent"], "no soft-label store"),
        ("label", ["run=absent"], "No run 'absent'"),
        ("label", ["run=tiny_seed0", "positions=some"], "expected all, train"),
        ("label", ["run=tiny_seed0", "positions=last:0"], "whole number from 1"),
        ("label", ["run=tiny_seed0", "k=0"], "k"),
    ],
)
def test_wrong_requests_say_what_is_expected(finished_root: Path, stage: str, words: list[str], message: str) -> None:
    """Each mistake names what was got and what would do."""
    with pytest.raises((DeshiError, ConfigError), match=message):
        run_stage(stage, f"paths.root={finished_root}", *words)

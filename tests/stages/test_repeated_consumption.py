"""Data with repeats through all commands: the share of targets that were consumed before is told everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import deshi
from deshi.artifacts import read_json
from deshi.runs import Run

ITEMS = 130
SMALL = ["student.dim=8", "student.max_length=8", "train.max_epochs=1", "train.threads=1", "train.progress=false"]
SHARE = "32 % of test targets (10 of 31) were consumed before by the same user"
FEW = "1 of 31 test examples have fewer than 100 candidates"


@pytest.fixture(scope="module")
def repeating(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """Thirty-one users of whom ten end with what they began with and one has half the catalogue; and a run."""
    root = tmp_path_factory.mktemp("repeating")
    random = np.random.default_rng(0)
    histories = [random.permutation(ITEMS)[:6].tolist() for _ in range(30)] + [random.permutation(ITEMS)[:70].tolist()]
    histories = [[*history, history[0]] if user < 10 else history for user, history in enumerate(histories)]
    rows = [(f"u{user:03}", f"i{item}", 1_600_000_000 + 1000 * place + user)
            for user, history in enumerate(histories) for place, item in enumerate(history)]  # fmt: skip
    pl.DataFrame(rows, ["user", "item", "time"], orient="row").write_csv(root / "events.csv")
    data = ["data=tabular", "data.name=shop", f"data.source.path={root / 'events.csv'}", "data.source.user=user",
            "data.source.item=item", "data.source.timestamp=time"]  # fmt: skip
    deshi.prepare(*data, f"paths.root={root}")
    return root, deshi.fit(*data, *SMALL, f"paths.root={root}")


def test_fit_evaluate_compare_and_report_say_it(repeating: tuple[Path, Run]) -> None:
    """Who reads any of them must meet the share and the setting; a comparison of two runs says it once."""
    root, run = repeating
    assert SHARE in (run.folder / "log.txt").read_text()
    evaluated = [deshi.evaluate(f"run={run.folder}", f"paths.root={root}", "with_baselines=true") for _ in range(2)]
    assert evaluated[0].warnings[0].startswith(SHARE) and any(note.startswith(FEW) for note in evaluated[0].notes)
    counts = read_json(evaluated[0].folder / "run.json")["population"]["test"]
    assert (counts["seen_targets"], counts["few_candidates"]) == (10, 1)
    for ranks in [evaluated[0].ranks, *map(pl.read_parquet, (evaluated[0].folder / "baselines").iterdir())]:
        assert ranks["rank"].is_infinite().sum() == 10, "the same targets are misses for every ranker"
    folders = [result.folder.name for result in evaluated]
    comparison = deshi.compare(f"runs=[{','.join(folders)}]", f"paths.root={root}", "each_run=true")
    assert str(comparison).count("were consumed before") == 1 and "fewer than 100 candidates" in str(comparison)
    page = deshi.report(f"runs=[{folders[0]}]", f"paths.root={root}").page.read_text(encoding="utf-8")
    assert "32 % of test targets" in page and "fewer than 100 candidates" in page


def test_export_card_gap_and_audit_say_it(repeating: tuple[Path, Run], tmp_path: Path) -> None:
    """The bundle goes to people who have never seen the evaluation."""
    root, run = repeating
    deshi.evaluate(f"run={run.folder}", f"paths.root={root}")
    exported = deshi.export(f"run={run.folder}", f"paths.root={root}", f"output={tmp_path / 'bundle'}")
    assert "32 % of test targets" in " ".join(str(exported).split())
    card = (exported.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.count(SHARE) == 1 and "seen items left out" in card
    gap = deshi.gap(f"run={run.folder}", f"paths.root={root}", samples=100)
    assert any(note.startswith(SHARE) for note in gap.notes)
    findings = {problem.name: problem for problem in deshi.audit(f"run={run.folder}", f"paths.root={root}").findings}
    assert findings["seen-targets"].severity == "warning" and "eval.filter_seen=false" in findings["seen-targets"].fix
    assert "with them" in findings["seen-targets"].effect and "1 of 31" in findings["few-candidates"].what


def test_an_evaluation_ranks_as_the_run_serves(repeating: tuple[Path, Run], tmp_path: Path) -> None:
    """filter_seen of the run is that of its evaluations, lists and soft labels; another one is told."""
    root, _ = repeating
    source = ["data=tabular", "data.name=shop", f"data.source.path={root / 'events.csv'}"]
    run = deshi.fit(*source, *SMALL, f"paths.root={root}", "eval.filter_seen=false")
    evaluated = deshi.evaluate(f"run={run.folder}", f"paths.root={root}")
    assert (
        evaluated.ranks["n_candidates"].unique().to_list() == [run.bundle.n_items]
        and evaluated.ranks["rank"].is_finite().all()
    )
    assert not any("eval.filter_seen" in text for text in [*evaluated.warnings, *evaluated.notes])
    assert any("10 of 31 test targets (32 %)" in note and "stay in lists" in note for note in evaluated.notes)
    store = deshi.label(f"run={run.folder}", f"paths.root={root}", k=5).soft_labels
    assert store.manifest["filter_seen"] is False
    other = deshi.evaluate(f"run={run.folder}", f"paths.root={root}", "eval.filter_seen=true")
    assert any(note.startswith("Ranked without seen items") for note in other.notes)
    exported = deshi.export(f"run={run.folder}", f"paths.root={root}", f"output={tmp_path / 'bundle'}")
    card = (exported.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert evaluated.folder.name in card and other.folder.name not in card, "figures that the bundle's lists reach"

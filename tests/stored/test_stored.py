"""Artifacts of every format that deshi has written: later versions open them, or refuse them with a sentence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import deshi
from deshi.artifacts import read_json, write_json
from deshi.data.bundle import Bundle
from deshi.soft_labels import SoftLabels
from deshi.types import DeshiError

FORMATS = sorted(Path(__file__).parent.glob("format-*"))


@pytest.fixture(params=FORMATS, ids=lambda folder: folder.name)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of what one version has written."""
    shutil.copytree(request.param, tmp_path / "root")
    return tmp_path / "root"


def test_a_run_and_its_bundle_give_the_ranks_that_they_gave(root: Path) -> None:
    """A run folder is worth keeping only as long as its figures can be had again."""
    stored = deshi.Run.open(next((root / "runs" / "evaluate").iterdir()))
    run = deshi.Run.open(next((root / "runs" / "fit").iterdir()))
    fresh = deshi.evaluate(run, part="both", paths={"root": str(root)})
    for part in ("validation", "test"):
        ranks = fresh.ranks.filter(part=part)["rank"]
        assert ranks.to_list() == pytest.approx(stored.ranks(part)["rank"].to_list(), abs=0.51)  # near ties may turn
    assert fresh.metrics["test/ndcg@10"] == pytest.approx(stored.metrics["test/ndcg@10"], abs=1e-3)


def test_an_evaluation_is_compared(root: Path) -> None:
    """An older record lacks counts of a newer one (targets that were seen), and its ranks are worth as much."""
    evaluation = next((root / "runs" / "evaluate").iterdir())
    result = deshi.compare(runs=[evaluation.name], paths={"root": str(root)})
    assert "sasrec" in str(result)


def test_soft_labels_are_opened_and_checked(root: Path) -> None:
    """A teacher's answers may have cost days: a newer version must be able to learn from them."""
    bundle = Bundle.load(root / "data" / "tiny")
    store = SoftLabels.load(root / "soft_labels" / "lists", bundle, check=True)
    assert (store.k, store.n_rows) == (10, bundle.n_interactions) and int(store.covered.sum()) > 700


def test_a_serving_bundle_answers(root: Path) -> None:
    """Services are upgraded before their bundles are exported anew."""
    engine = deshi.load(root / "serving")
    history = ["1", "2", "3"]
    items = [item.item_id for item in engine.recommend(history, k=5).items]
    assert len(set(items)) == 5 and not set(items) & set(history)


def _run(root: Path) -> object:
    return deshi.Run.open(next((root / "runs" / "fit").iterdir())).record


def _bundle(root: Path) -> object:
    return Bundle.load(root / "data" / "tiny")


def _soft_labels(root: Path) -> object:
    return SoftLabels.load(root / "soft_labels" / "lists")


def _serving(root: Path) -> object:
    return deshi.load(root / "serving")


@pytest.mark.parametrize(
    ("pattern", "open_it"),
    [
        ("runs/fit/*/run.json", _run),
        ("data/tiny/manifest.json", _bundle),
        ("soft_labels/lists/manifest.json", _soft_labels),
        ("serving/manifest.json", _serving),
    ],
)
def test_another_format_is_refused_with_a_sentence(root: Path, pattern: str, open_it: Callable[[Path], object]) -> None:
    """A file of a version to come must not be half understood."""
    (file,) = root.glob(pattern)
    content = read_json(file)
    key = next(name for name in ("format", "schema") if name in content)
    write_json(file, {**content, key: 99})
    with pytest.raises(DeshiError, match="99"):
        open_it(root)

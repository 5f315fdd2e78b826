"""Finished evaluations are found by every name that a user may have for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import deshi
from deshi.runs import find_evaluations
from deshi.types import DeshiError


def seeds(root: Path) -> list[int]:
    return [one.record["fit"]["seed"] for one in find_evaluations(root / "runs", ["latest"])]


def test_names_patterns_and_fit_runs_lead_to_the_same_evaluation(finished_root: Path) -> None:
    """A user knows the run that was trained better than the folder of its evaluation."""
    runs = finished_root / "runs"
    first, second = sorted((runs / "evaluate").iterdir())
    fitted = next((runs / "fit").glob("*_tiny_seed0"))
    for text in (str(first), first.name, str(fitted), fitted.name):
        (found,) = find_evaluations(runs, [text])
        assert found.folder.name == first.name
    assert [one.folder.name for one in find_evaluations(runs, ["*_tiny_*", "latest"])] == [first.name, second.name]
    assert seeds(finished_root) == [1]


def test_an_evaluation_gives_metrics_and_ranks(finished_root: Path) -> None:
    """What was measured can be measured again from the ranks."""
    (found,) = find_evaluations(finished_root / "runs", ["*_tiny_*"])[:1]
    assert found.parts == ["validation", "test"]
    assert set(found.baselines) == {"popularity", "itemknn", "ease", "markov"}
    ranks = found.ranks("test")
    assert set(ranks["part"]) == {"test"} and ranks.height == found.metrics["test/n_examples"] == 60
    assert float((ranks["rank"] <= 5).mean()) == pytest.approx(found.metrics["test/hr@5"])
    assert found.baseline_ranks("markov", "validation").height == 60


def test_a_second_evaluation_is_the_newest(finished_root: Path) -> None:
    """A run stands for its newest evaluation, also when there are several."""
    runs = finished_root / "runs"
    fitted = next((runs / "fit").glob("*_tiny_seed1"))
    (old,) = evaluations_of(runs, fitted)
    new = old.folder.with_name("99991231-000000_tiny_sasrec")
    old.folder.rename(old.folder.with_name("19990101-000000_tiny_sasrec"))
    shutil.copytree(old.folder.with_name("19990101-000000_tiny_sasrec"), new)
    assert [one.folder for one in evaluations_of(runs, fitted)][-1] == new
    assert find_evaluations(runs, [fitted.name])[0].folder == new


def test_a_run_stands_for_its_full_ranking(finished_root: Path) -> None:
    """A later evaluation among 20 candidates must not take the place of the one among all items."""
    runs = finished_root / "runs"
    fitted = next((runs / "fit").glob("*_tiny_seed1"))
    (full,) = evaluations_of(runs, fitted)
    later = deshi.evaluate(f"paths.root={finished_root}", f"run={fitted}", "candidates=llara")
    assert find_evaluations(runs, [fitted.name])[0].folder == full.folder
    (full.folder / "metrics.json").unlink()
    assert find_evaluations(runs, [fitted.name])[0].folder == later.folder


def test_what_is_missing_comes_with_a_command(finished_root: Path) -> None:
    """Every refusal names the way out."""
    runs = finished_root / "runs"
    first, second = sorted((runs / "evaluate").iterdir())
    with pytest.raises(DeshiError, match="matches '\\*nothing\\*'"):
        find_evaluations(runs, ["*nothing*"])
    with pytest.raises(DeshiError, match="No run 'absent'"):
        find_evaluations(runs, ["absent"])
    fitted = load_evaluation(second).record["run"]
    (second / "metrics.json").unlink()
    with pytest.raises(DeshiError, match=f"deshi evaluate run={fitted}"):
        find_evaluations(runs, [fitted])
    with pytest.raises(DeshiError, match="did not finish"):
        load_evaluation(second)
    found = load_evaluation(first)
    with pytest.raises(DeshiError, match="expected one of deshi evaluate"):
        load_evaluation(Path(found.record["run"]))
    for name in [name for name in found.metrics if name.startswith("test/")]:
        del found.metrics[name]
    with pytest.raises(DeshiError, match="part=both"):
        found.ranks("test")

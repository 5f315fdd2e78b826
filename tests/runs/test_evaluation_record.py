"""Finished evaluations are evaluation by every name that a user may have for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import deshi
from deshi.baselines import BASELINES
from deshi.configuration.schemas import PathsConfig
from deshi.runs import Evaluation, Run, find_evaluations
from deshi.types import DeshiError


def paths_of(root: Path) -> PathsConfig:
    return PathsConfig.model_validate({"root": str(root)})


def seeds(root: Path) -> list[int]:
    return [one.record["fit"]["seed"] for one in find_evaluations(paths_of(root), ["latest"])]


def test_names_patterns_and_fit_runs_lead_to_the_same_evaluation(finished_root: Path) -> None:
    """A user knows the run that was trained better than the folder of its evaluation."""
    runs = finished_root / "runs"
    first, second = sorted((runs / "evaluate").iterdir())
    fitted = next((runs / "fit").glob("*_tiny_seed0"))
    for text in (str(first), first.name, str(fitted), fitted.name, "tiny_seed0", fitted, Run(fitted)):
        (evaluation,) = find_evaluations(paths_of(finished_root), [text])
        assert evaluation.folder.name == first.name
    assert [one.folder.name for one in find_evaluations(paths_of(finished_root), ["*_tiny_*", "latest"])] == [
        first.name,
        second.name,
    ]
    assert seeds(finished_root) == [1]


def test_an_evaluation_gives_metrics_and_ranks(finished_root: Path) -> None:
    """What was measured can be measured again from the ranks."""
    (evaluation,) = find_evaluations(paths_of(finished_root), ["*_tiny_*"])[:1]
    assert evaluation.parts == ["validation", "test"]
    assert set(evaluation.baselines) == set(BASELINES)
    ranks = evaluation.ranks("test")
    assert set(ranks["part"]) == {"test"} and ranks.height == evaluation.metrics["test/n_examples"] == 60
    assert float((ranks["rank"] <= 5).to_numpy().mean()) == pytest.approx(evaluation.metrics["test/hr@5"])
    assert evaluation.baseline_ranks("markov", "validation").height == 60


def test_a_second_evaluation_is_the_newest(finished_root: Path) -> None:
    """A run stands for its newest evaluation, also when there are several."""
    runs = finished_root / "runs"
    fitted = next((runs / "fit").glob("*_tiny_seed1"))
    (old,) = Run(fitted).evaluations()
    new = old.folder.with_name("99991231-000000_tiny_sasrec")
    old.folder.rename(old.folder.with_name("19990101-000000_tiny_sasrec"))
    shutil.copytree(old.folder.with_name("19990101-000000_tiny_sasrec"), new)
    assert [one.folder for one in Run(fitted).evaluations()][-1] == new
    assert find_evaluations(paths_of(finished_root), [fitted.name])[0].folder == new


def test_a_run_stands_for_its_full_ranking(finished_root: Path) -> None:
    """A later evaluation among 20 candidates must not take the place of the one among all items."""
    runs = finished_root / "runs"
    fitted = next((runs / "fit").glob("*_tiny_seed1"))
    (full,) = Run(fitted).evaluations()
    later = deshi.evaluate(f"paths.root={finished_root}", f"run={fitted}", "candidates=llara")
    assert find_evaluations(paths_of(finished_root), [fitted.name])[0].folder == full.folder
    (full.folder / "metrics.json").unlink()
    assert find_evaluations(paths_of(finished_root), [fitted.name])[0].folder == later.folder


def test_what_is_missing_comes_with_a_command(finished_root: Path) -> None:
    """Every refusal names the way out."""
    runs = finished_root / "runs"
    first, second = sorted((runs / "evaluate").iterdir())
    with pytest.raises(DeshiError, match="matches '\\*nothing\\*'"):
        find_evaluations(paths_of(finished_root), ["*nothing*"])
    with pytest.raises(DeshiError, match="No run 'absent'"):
        find_evaluations(paths_of(finished_root), ["absent"])
    fitted = Evaluation(second).record["run"]
    (second / "metrics.json").unlink()
    with pytest.raises(DeshiError, match=f"deshi evaluate run={fitted}"):
        find_evaluations(paths_of(finished_root), [fitted])
    with pytest.raises(DeshiError, match="did not finish"):
        Evaluation(second)
    evaluation = Evaluation(first)
    with pytest.raises(DeshiError, match="expected one of deshi evaluate"):
        Evaluation(Path(evaluation.record["run"]))
    for name in [name for name in evaluation.metrics if name.startswith("test/")]:
        del evaluation.metrics[name]
    with pytest.raises(DeshiError, match="part=both"):
        evaluation.ranks("test")

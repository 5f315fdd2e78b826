"""The stage gap, end to end: a clean run, a refit, and the two mistakes of the original report."""

from __future__ import annotations

from pathlib import Path

import pytest

import deshi
from deshi.artifacts import read_json
from deshi.types import DeshiError


def test_a_clean_run_is_explained_and_written(finished_root: Path) -> None:
    """The figures are those of the evaluation, and the contributions add up to the difference."""
    run = next((finished_root / "runs" / "fit").glob("*_tiny_seed0"))
    result = deshi.gap(f"paths.root={finished_root}", run=run.name, samples=200)
    evaluated = read_json(sorted((finished_root / "runs" / "evaluate").iterdir())[0] / "metrics.json")
    assert result.validation.mean == pytest.approx(evaluated["validation/ndcg@10"], abs=1e-6)
    assert result.test.mean == pytest.approx(evaluated["test/ndcg@10"], abs=1e-6)
    assert sum(each.interval.mean for each in result.contributions) == pytest.approx(result.difference.mean, abs=1e-9)
    assert result.contributions[-1].name == "residue" and result.verdict in ("noise", "drift", "suspicious")
    assert [step.name for step in result.steps][-3:] == ["train-1", "validation", "test"]
    assert result.steps[-1].interval.mean == pytest.approx(result.test.mean)
    assert [each.name for each in result.counterfactuals] == ["newest events withheld from the history"]
    assert result.folder is not None
    saved = read_json(result.folder / "gap.json")
    assert saved["difference"] == result.difference.mean and saved["sentence"] == result.sentence
    assert {"name", "value", "interval", "note"} == set(saved["contributions"][0])
    assert (result.folder / "config.yaml").is_file() and read_json(result.folder / "run.json")["run"] == str(run)
    assert result.sentence in " ".join(str(result).split()) and "residue" in result._repr_html_()


def fit(root: Path, config_dir: Path, *overrides: str) -> Path:
    """A student that learns the tiny data by heart in a few seconds."""
    words = (f"paths.root={root}", "student.dim=32", "student.max_length=14", "student.dropout=0", "train.threads=1")
    more = ("train.max_epochs=40", "train.patience=40", "train.validate_every=40", "train.progress=false")
    return Path(deshi.fit(*words, *more, "train.precision=fp32", *overrides, data="tiny", config_dir=config_dir).folder)


def test_a_leak_is_named_and_seen(finished_root: Path, config_dir: Path) -> None:
    """The record of the run says it, and the student's answers show it without the record."""
    with pytest.warns(UserWarning, match="LEAK"):
        run = fit(finished_root, config_dir, "train.train_targets=including_validation")
    result = deshi.gap(f"paths.root={finished_root}", run=str(run), metric="mrr@20", samples=200)
    assert result.verdict == "suspicious" and "trained on the validation targets" in result.sentence
    values = [step.interval.mean for step in result.steps]
    assert values[-2] > values[-1], "the leaked validation targets must be answered better than test"


def test_a_refit_shows_what_the_newest_events_give(finished_root: Path, config_dir: Path) -> None:
    """Validation and test are those of the selected student; the refitted one stands beside it."""
    run = fit(finished_root, config_dir, "train.refit=true", "train.max_epochs=3", "train.validate_every=1")
    result = deshi.gap(f"paths.root={finished_root}", run=str(run), samples=200)
    assert result.validation.mean == pytest.approx(read_json(run / "metrics.json")["validation/ndcg@10"], abs=1e-6)
    refit = {each.name: each for each in result.counterfactuals}["refit on training and validation"]
    deshi.evaluate(f"paths.root={finished_root}", run=str(run))
    evaluation = sorted((finished_root / "runs" / "evaluate").glob("*_tiny_sasrec*"))[-1]
    assert refit.test.mean == pytest.approx(read_json(evaluation / "metrics.json")["test/ndcg@10"], abs=1e-6)
    assert refit.change.mean == pytest.approx(refit.test.mean - result.test.mean)
    (run / "checkpoints" / "model.safetensors").unlink()
    with pytest.raises(DeshiError, match="only that file holds what was selected"):
        deshi.gap(f"paths.root={finished_root}", run=str(run), samples=200)


def test_wrong_requests_are_refused(finished_root: Path) -> None:
    """A metric that doesn't exist and a run that doesn't exist are named."""
    with pytest.raises(DeshiError, match="metric is 'accuracy@10'"):
        deshi.gap(f"paths.root={finished_root}", run="latest", metric="accuracy@10")
    with pytest.raises(DeshiError, match="No run 'absent'"):
        deshi.gap(f"paths.root={finished_root}", run="absent")

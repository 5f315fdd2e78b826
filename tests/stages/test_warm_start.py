"""Warm start: weights of an older run, items matched by id in whatever order the vocabularies are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deshi.configuration.schemas import FitConfig
from deshi.configuration.targets import ConfigError
from deshi.configuration.validation import validate
from deshi.runs import Run
from deshi.stages import compose
from deshi.training import fit
from deshi.types import DeshiError
from tiny_bundles import tiny_bundle

STUDENT = {"_target_": "deshi.models.sasrec.SASRec", "dim": 16, "max_length": 12, "heads": 2}


def walks(names: Sequence[str], seed: int = 0) -> list[list[str]]:
    """60 users who walk around a ring of items."""
    draw, n = np.random.default_rng(seed), len(names)
    return [[names[(start + k) % n] for k in range(draw.integers(5, 20))] for start in draw.integers(0, n, 60)]


def config(root: Path, student: dict[str, Any] | None = None, **train: Any) -> FitConfig:
    settings = {
        "max_epochs": 1, "learning_rate": 0.01, "warmup_steps": 1, "batch_positions": 200, "threads": 1,
        "precision": "fp32", "progress": False, "accelerator": "cpu",
    }  # fmt: skip
    source = {"_target_": "deshi.data.sources.tabular.Tabular", "path": "none.csv"}
    values: dict[str, Any] = {
        "data": {"name": "tiny", "source": source}, "student": student or STUDENT,
        "loss": {"_target_": "deshi.losses.softmax.Softmax"}, "paths": {"root": str(root)}, "train": settings | train,
    }  # fmt: skip
    return validate(FitConfig, values)


@pytest.fixture
def older(tmp_path: Path) -> Run:
    """A student of 20 items, whose data have been prepared anew since: two new items, one gone, all indices moved."""
    names = [f"b{number:02}" for number in range(20)]
    tiny_bundle(tmp_path / "data", walks(names))
    run = fit.run(config(tmp_path, max_epochs=4))
    tiny_bundle(tmp_path / "data", walks(["z", *reversed(names[1:]), "a"], seed=1))
    return run


def vectors(run: Run) -> dict[str, torch.Tensor]:
    """The items' vectors by their ids."""
    ids = [f"b{number:02}" for number in range(20)] if run.record["n_items"] == 20 else run.bundle.vocabulary["item_id"]
    return dict(zip(ids, run.student().item_table().detach(), strict=True))


def test_items_are_matched_by_id(older: Run, tmp_path: Path) -> None:
    """Vectors of other items would look like a start and be noise: every shared id keeps its own, new ones are new."""
    run = fit.run(config(tmp_path, start_from="latest", learning_rate=1e-12))
    before, after = vectors(older), vectors(run)
    assert list(after) != list(before) and set(after) - set(before) == {"a", "z"}
    for name in set(before) & set(after):
        torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0)
    cold = vectors(fit.run(config(tmp_path, learning_rate=1e-12)))
    for name in ("a", "z"):
        torch.testing.assert_close(after[name], cold[name], atol=1e-6, rtol=0)
    weights, previous = (each.student().state_dict() for each in (run, older))
    assert all(torch.allclose(weights[name], previous[name], atol=1e-6) for name in weights if "items" not in name)
    assert run.record["start_from"] == {"run": older.name, "items": 19, "new_items": 2}
    assert run.config.train.start_from == older.name, "latest is another run tomorrow"


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (STUDENT | {"dim": 8}, r"of shape \(12, 16\), but the student's is \(12, 8\)"),
        (STUDENT | {"blocks": 3}, "of shape None, but the student's is"),
        ({"_target_": "deshi.models.gru4rec.GRU4Rec", "dim": 16}, "holds a SASRec, but the student is a GRU4Rec"),
    ],
)
def test_what_doesnt_fit_is_refused(older: Run, tmp_path: Path, student: dict[str, Any], message: str) -> None:
    """Half of the weights would be worse than none, and nobody would know; no folder is left behind."""
    with pytest.raises(DeshiError, match=f"start_from={older.name} .*{message}"):
        fit.run(config(tmp_path, student, start_from="latest"))
    assert len(list((tmp_path / "runs" / "fit").iterdir())) == 1


def test_a_run_that_knows_the_answers_is_refused(tmp_path: Path) -> None:
    """A refit has learnt the validation targets that the new student would be selected by."""
    tiny_bundle(tmp_path / "data", walks([f"b{number:02}" for number in range(20)]))
    fit.run(config(tmp_path, refit=True))
    with pytest.raises(DeshiError, match="has trained on validation events"):
        fit.run(config(tmp_path, start_from="latest"))


def test_two_origins_of_the_items_vectors_are_refused() -> None:
    """One of them would be lost without a word; teachers don't start from students."""
    with pytest.raises(ConfigError, match="leave one out"):
        compose("distill", ["soft_labels=[x]", "distill=listwise-table", "train.start_from=x"], {})
    with pytest.raises(ConfigError, match="start_from is for students"):
        compose("teach", ["train.start_from=x"], {})
    run = compose("run", ["recipe=self", "train.start_from=x"], {})
    assert run.distilled.train.start_from == "x"
    assert all(part.train.start_from is None for part in run.teachers.values())

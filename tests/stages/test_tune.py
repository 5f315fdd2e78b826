"""The stage tune: a search over any keys, its resumption, what it refuses, and how its space is written."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path
from typing import Any

import pytest

import deshi
from deshi import stages
from deshi.artifacts import read_json
from deshi.configuration.run_folders import load_config
from deshi.configuration.schemas import FitConfig
from deshi.configuration.targets import ConfigError
from deshi.configuration.validation import resolved
from deshi.stages._tune_space import Choice, Numbers, parse
from deshi.training import fit
from deshi.training.module import TrainingModule
from deshi.types import DeshiError
from tiny_movielens import SMALL

SPACE = (
    "space.train.learning_rate=log(1e-4,1e-1)",
    "space.student.dim=choice(8,16)",
    "space.train.warmup_steps=range(1,3)",
)
SHORT = (*SMALL, "train.max_epochs=1", "train.warmup_steps=2", "trials=3")


def tune(root: Path, config_dir: Path, *words: str, **values: Any) -> Any:
    return deshi.tune(f"paths.root={root}", *SHORT, *SPACE, *words, config_dir=config_dir, data="tiny", **values)


def test_the_best_of_three_is_found_on_validation(finished_root: Path, config_dir: Path) -> None:
    """Each trial is a run like any other; the printed command is the best one's configuration; the start is tried."""
    result = tune(finished_root, config_dir)
    first, *others = sorted(result.trials, key=lambda trial: trial.number)
    assert first.values == {"train.learning_rate": 1e-3, "student.dim": 16, "train.warmup_steps": 2}
    assert len(others) == 2 and len({str(trial.values) for trial in result.trials}) == 3
    best = result.ordered[0]
    assert best.value == max(trial.value for trial in result.trials)
    folder = finished_root / "runs" / "fit" / best.run
    assert read_json(folder / "metrics.json")["validation/ndcg@10"] == best.value
    saved = load_config(folder, FitConfig)
    assert (saved.train.learning_rate, saved.student["dim"]) == (
        best.values["train.learning_rate"], best.values["student.dim"],
    )  # fmt: skip
    again = stages.compose("fit", shlex.split(result.command)[2:], {})
    assert resolved(again) | {"name": None} == resolved(saved) | {"name": None}
    written = read_json(result.folder / "metrics.json")
    assert written["best"]["run"] == best.run and written["command"] == result.command
    assert read_json(result.folder / "time.json").keys() == {"search_seconds", "trials"}
    assert "3 trials of deshi fit" in str(result) and "test part was not looked at" in str(result)


def test_an_interrupted_search_ends_as_an_uninterrupted_one(
    finished_root: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cut training goes on, the sampler proposes what it would have proposed; then two trials are added."""
    whole = tune(finished_root, config_dir)
    step = TrainingModule.training_step
    begun: list[TrainingModule] = []

    def cut(self: TrainingModule, batch: Any, batch_index: int) -> Any:
        if self not in begun:
            begun.append(self)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return step(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", cut)
        with pytest.raises(KeyboardInterrupt, match=r"deshi tune resume=\S+runs/tune/"):
            tune(finished_root, config_dir, "name=cut")
    resumed = deshi.tune(resume="cut", paths={"root": str(finished_root)})
    assert [(t.number, t.values, t.value) for t in resumed.trials] == [
        (t.number, t.values, t.value) for t in whole.trials
    ]
    assert len(list((finished_root / "runs" / "fit").glob("*_trial*_of_*_cut"))) == 3, "no training was begun twice"
    more = deshi.tune(resume="cut", trials=4, paths={"root": str(finished_root)})
    assert len(more.trials) == 4 and list(more.trials[:3]) == list(resumed.trials)
    with pytest.raises(ConfigError, match="keeps its own configuration"):
        deshi.tune(resume="cut", seed=3, paths={"root": str(finished_root)})


def test_a_failed_training_is_a_bad_trial_and_no_end(
    finished_root: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A learning rate that diverges must not cost the nineteen other trainings."""
    real = fit.run

    def fails_at_16(cfg: FitConfig) -> Any:
        if cfg.student["dim"] == 16:
            raise DeshiError("diverged")
        return real(cfg)

    monkeypatch.setattr(fit, "run", fails_at_16)
    result = tune(finished_root, config_dir, "trials=4")
    assert {trial.value is None for trial in result.trials} == {True, False} and result.ordered[-1].value is None
    with pytest.raises(DeshiError, match="No trial of 1 has succeeded"):
        tune(finished_root, config_dir, "trials=1", "space.student.dim=choice(16,17)")


def test_values_that_fit_only_together_are_searched(finished_root: Path, config_dir: Path) -> None:
    """17 heads don't fit the width that the search sets out from; trials with a width that they don't fit fail."""
    words = ["space.student.dim=choice(16,34)", "space.student.heads=choice(2,17)", "trials=4", "seed=5"]
    result = tune(finished_root, config_dir, *words)
    fits = {(trial.values["student.dim"], trial.values["student.heads"]): trial.value for trial in result.trials}
    assert {value is not None for pair, value in fits.items() if pair != (16, 17)} == {True}
    assert fits.get((16, 17)) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["space.train.learning_rat=log(1e-4,1e-2)"], "Nearest valid keys: train.learning_rate"),
        (["space.train.weight_decay=interval(-1,1)"], "train.weight_decay: got -1"),
        (["space.student.dim=64"], r"space.student.dim: got 64, expected e.g. choice\(64,128\)"),
        (["space.student.dim=chioce(1,2)"], "Nearest valid names: choice"),
        (["space.train.learning_rate=log(0,1)"], "lower bound below the upper one and above 0"),
        (["space.train.learning_rate=interval(a,b)"], "expected two bounds"),
        (["stage=distill"], r"needs soft_labels=\[STORE\]"),
        (["stage=teach"], "needs a teacher"),
        (["train.refit=true"], "refit the best configuration at the end"),
    ],
)
def test_mistakes_are_found_before_any_training(
    words: list[str], message: str, finished_root: Path, config_dir: Path
) -> None:
    """A bound that the tenth trial would have run into is checked at the start."""
    with pytest.raises(DeshiError, match=message):
        tune(finished_root, config_dir, *words)
    assert not (finished_root / "runs" / "tune").exists()


def test_the_space_is_read_as_written() -> None:
    """Whole numbers stay whole, since most keys are strict about it."""
    assert parse("choice(64, 1e-3, gelu, true, null)") == Choice((64, 1e-3, "gelu", True, None))
    assert parse("interval(0,0.5)") == Numbers(0, 0.5) and parse("log(1e-4,1e-2)") == Numbers(1e-4, 1e-2, log=True)
    assert parse("range(32,256,32)") == Numbers(32, 256, step=32)
    default = parse("range(1,4)")
    assert isinstance(default, Numbers) and default.step == 1
    assert parse("range(32,256,32)").holds(96) and not parse("range(32,256,32)").holds(100)
    assert parse("choice(1,2)").holds(2) and not parse("choice(1,2)").holds(True)
    assert not parse("interval(0,1)").holds("0.5")


def test_what_is_drawn_is_of_the_right_type() -> None:
    """Asked of Optuna itself."""
    optuna = importlib.import_module("optuna")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for text, kind in (
        ("log(8,64)", int), ("range(8,64,8)", int), ("interval(0,1)", float), ("log(1e-4,1)", float),
        ("range(0,1,0.5)", float),
    ):  # fmt: skip
        domain = parse(text)
        drawn = [domain.draw(study.ask(), text) for _ in range(5)]
        assert all(type(value) is kind and domain.holds(value) for value in drawn), text


def test_a_missing_optuna_names_its_extra(
    finished_root: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ImportError would not say that deshi has an extra for it."""
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(DeshiError, match=r"pip install 'deshi\[tune\]'"):
        tune(finished_root, config_dir)

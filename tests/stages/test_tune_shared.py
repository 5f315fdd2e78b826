"""One search of several workers through an Optuna storage: trials are dealt out, counted together, given back."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import deshi
from deshi.artifacts import read_json
from deshi.stages._tune_shared import WORKER, taken
from deshi.training.module import TrainingModule
from deshi.types import DeshiError
from tiny_movielens import SMALL

SPACE = ("space.train.learning_rate=log(1e-4,1e-1)", "space.student.dim=choice(8,16)")
WORDS = (*SMALL, *SPACE, "train.max_epochs=1", "train.warmup_steps=2", "name=shared")


def shared(root: Path, config_dir: Path, storage: str, *words: str) -> Any:
    paths = f"paths.root={root}"
    return deshi.tune(paths, *WORDS, f"storage={storage}", *words, config_dir=config_dir, data="tiny")


def test_two_processes_share_the_trials_of_a_journal(finished_root: Path, config_dir: Path, tmp_path: Path) -> None:
    """Five trials altogether, each drawn once and by its own seed, and the table of the last has all of them."""
    journal = tmp_path / "shared" / "search.journal"
    words = [sys.executable, "-m", "deshi", "tune", "data=tiny", *WORDS, "trials=5", f"storage={journal}"]
    words += [f"paths.root={finished_root}", f"--config-dir={config_dir}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    workers = [subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    optuna = importlib.import_module("optuna")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    study = optuna.load_study(storage=storage, study_name="shared")
    assert [trial.state.name for trial in taken(study)] == ["COMPLETE"] * 5
    assert len({str(trial.params) for trial in taken(study)}) == 5
    runs = {trial.user_attrs["run"] for trial in taken(study)}
    assert {path.name for path in (finished_root / "runs" / "fit").glob("*_trial*_of_shared")} == runs and len(
        runs
    ) == 5
    tables = [read_json(path) for path in (finished_root / "runs" / "tune").glob("*/metrics.json")]
    assert max(len(table["trials"]) for table in tables) == 5
    more = shared(finished_root, config_dir, str(journal), "trials=6")
    assert len(more.trials) == 6 and more.ordered[0].value == max(trial.value for trial in more.trials)
    with pytest.raises(DeshiError, match=r"another one: .*seed: 0 -> 1.*name=NAME"):
        shared(finished_root, config_dir, str(journal), "trials=7", "seed=1")


def test_an_interrupted_and_a_killed_trial_are_trained_by_another_worker(
    finished_root: Path, config_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a database, too; neither counts, and the values that were drawn are not lost."""
    storage = f"sqlite:///{tmp_path / 'search.db'}"

    def cut(self: TrainingModule, batch: Any, batch_index: int) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", cut)
        with pytest.raises(KeyboardInterrupt, match="deshi tune resume="):
            shared(finished_root, config_dir, storage, "trials=2")
    optuna = importlib.import_module("optuna")
    study = optuna.load_study(storage=storage, study_name="shared")
    killed = study.ask()  # a worker that dies at once
    killed.set_user_attr(WORKER, "gone")
    assert [trial.number for trial in taken(study)] == [killed.number]
    study.tell(killed.number, state=optuna.trial.TrialState.FAIL)
    result = shared(finished_root, config_dir, storage, "trials=2")
    assert len(result.trials) == 2 and all(trial.value is not None for trial in result.trials)


def test_a_storage_that_cannot_be_opened_is_a_sentence(finished_root: Path, config_dir: Path) -> None:
    """Without the password."""
    with pytest.raises(DeshiError, match=r"postgresql://me:\*\*\*@127\.0\.0\.1:1/db can't be opened"):
        shared(finished_root, config_dir, "postgresql://me:secret@127.0.0.1:1/db")

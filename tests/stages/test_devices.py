"""Training on several processes: the results of one, whatever happens to the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from deshi.configuration.launch import as_launched, further_rank
from deshi.configuration.schemas import FitConfig, PrepareConfig, TeachConfig, TrainConfig
from deshi.configuration.validation import validate
from deshi.runs import Run
from deshi.training import fit, teach
from deshi.training.module import TrainingModule
from deshi.types import DeshiError
from tiny_bundles import ring_bundle

SASREC = {"_target_": "deshi.models.sasrec.SASRec", "dim": 16, "max_length": 12, "heads": 2, "dropout": 0.0}
DATA = {"name": "tiny", "source": {"_target_": "deshi.data.sources.tabular.Tabular", "path": "none.csv"}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of 61 users who walk around a ring of 30 items."""
    folder = tmp_path_factory.mktemp("devices")
    ring_bundle(folder, 61)
    return folder


def config(root: Path, devices: int, **other: Any) -> FitConfig:
    values: dict[str, Any] = {
        "data": DATA,
        "student": SASREC,
        "loss": {"_target_": "deshi.losses.softmax.Softmax"},
        "paths": {"root": str(root)},
        "train": {
            "max_epochs": 4, "learning_rate": 0.01, "warmup_steps": 5, "batch_positions": 130, "threads": 1,
            "precision": "fp32", "progress": False, "accelerator": "cpu", "augment": {"item_drop": 0.1},
            "ema_decay": 0.9, "devices": devices,
        },
    }  # fmt: skip
    return validate(FitConfig, values | other)


def children() -> list[int]:
    """The processes that this one has started and that still run."""
    return [int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]


def curve(folder: Path) -> pl.DataFrame:
    return pl.read_csv(folder / "epochs.csv").drop("seconds")


def assert_same(run: Run, other: Run) -> None:
    """Losses to rounding, positions and metrics to the digit."""
    ours, theirs = curve(run.folder), curve(other.folder)
    exact = [name for name in ours.columns if name != "train/loss_epoch"]
    assert ours[exact].equals(theirs[exact])
    assert ours["train/loss_epoch"].to_list() == pytest.approx(theirs["train/loss_epoch"].to_list(), rel=1e-5)
    assert run.metrics == other.metrics and run.epochs == other.epochs


def test_two_processes_train_as_one_does(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One folder, written by the first; a killed process is named, and one process can go on alone."""
    alone = fit.run(config(root, 1, name="alone"))
    environment = dict(os.environ)
    both = fit.run(config(root, 2, name="both"))
    assert_same(both, alone)
    assert [path.name.partition("_")[2] for path in sorted((root / "runs" / "fit").iterdir())] == ["alone", "both"]
    assert {name: both.record[name] for name in ("devices", "nodes", "processes")} == dict(
        devices=2, nodes=1, processes=2
    )
    assert dict(os.environ) == environment and not torch.distributed.is_initialized()
    assert not children()

    step = TrainingModule.training_step

    def killing(self: TrainingModule, batch: Any, batch_index: int) -> torch.Tensor:
        if self.current_epoch == 2 and batch_index == 1:
            for child in children():
                os.kill(child, signal.SIGKILL)
        return step(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", killing)
        with pytest.raises(DeshiError, match=r"Process 1 .* was ended by SIGKILL.*deshi fit resume=.*_killed"):
            fit.run(config(root, 2, name="killed"))
    (cut,) = (root / "runs" / "fit").glob("*_killed")
    assert_same(fit.run(config(root, 1, resume=str(cut))), alone)


def test_processes_of_torchrun_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers hold where the keys ask for one process, and for a resumed run; others are a mistake."""
    assert as_launched(TrainConfig(), resumed=False) == TrainConfig()
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6", "RANK": "4"}.items():
        monkeypatch.setenv(name, value)
    launched = TrainConfig(devices=2, nodes=3)
    assert as_launched(TrainConfig(), resumed=False) == launched == as_launched(launched, resumed=False)
    assert as_launched(TrainConfig(devices=4), resumed=True) == launched
    with pytest.raises(DeshiError, match="torchrun has started 6 processes, 2 on this node, but train.devices=3"):
        as_launched(TrainConfig(devices=3, nodes=2), resumed=False)


def test_nodes_that_nobody_has_connected_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning would wait for the other node for ever."""
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    lonely = config(root, 1, name="lonely")
    lonely = lonely.model_copy(update={"train": lonely.train.model_copy(update={"nodes": 2})})
    with pytest.raises(DeshiError, match=r"train.nodes=2, but neither torchrun nor SLURM.*leave train.nodes out"):
        fit.run(lonely)
    assert not list((root / "runs" / "fit").glob("*_lonely")) and not children()


def test_only_the_first_process_of_a_training_speaks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under SLURM each of several trainings with a process of its own speaks, too; torchrun is for trainings alone."""
    assert further_rank(config(root, 2)) == 0
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert (further_rank(config(root, 2)), further_rank(config(root, 1))) == (1, 0)
    monkeypatch.delenv("SLURM_PROCID")
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert further_rank(config(root, 1)) == 1
    with pytest.raises(DeshiError, match="Run any other command without it"):
        further_rank(validate(PrepareConfig, {"data": DATA}))


def test_an_interactive_session_says_what_to_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning would refuse with words about its own strategies; nothing is left behind."""
    monkeypatch.setattr("sys.ps1", ">>> ", raising=False)
    with pytest.raises(DeshiError, match="Run deshi fit in a shell, or a script"):
        fit.run(config(root, 2, name="interactive"))
    assert not list((root / "runs" / "fit").glob("*_interactive"))


@pytest.mark.slow
def test_torchrun_starts_what_lightning_would(root: Path) -> None:
    """One folder, one account on the standard output, the results of one process."""
    alone = fit.run(config(root, 1, name="one"))
    saved = alone.folder / "config.yaml"
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "deshi", "fit"]
    words = [f"config={saved}", "name=torchrun", f"paths.root={root}"]
    done = subprocess.run([sys.executable, "-m", *command, *words], capture_output=True, text=True, check=True)
    (folder,) = (root / "runs" / "fit").glob("*_torchrun")
    assert_same(Run(folder), alone)
    assert done.stdout.count("# resolved configuration") == 1 == done.stdout.count(f"{folder}: selected epoch")
    assert Run(folder).record["devices"] == 2


@pytest.mark.slow
def test_two_processes_refit_and_cross_fit_as_one_does(root: Path) -> None:
    """Several trainings in one run: the processes stay together through all of them."""
    train = {**config(root, 1).train.model_dump(), "max_epochs": 2, "refit": True}
    runs = [fit.run(config(root, 1, train={**train, "devices": n}, name=f"refit{n}")) for n in (1, 2)]
    assert_same(runs[1], runs[0])
    curves = [pl.read_csv(run.folder / "epochs-refit.csv").drop("seconds") for run in runs]
    assert curves[1]["train/loss_epoch"].to_list() == pytest.approx(curves[0]["train/loss_epoch"].to_list(), rel=1e-5)
    teachers = [
        teach.run(validate(TeachConfig, {
            "data": DATA, "teacher": SASREC, "loss": {"_target_": "deshi.losses.softmax.Softmax"}, "cross_fit": 2,
            "paths": {"root": str(root)}, "train": {**train, "refit": False, "devices": n}, "name": f"crossed{n}",
        }))
        for n in (1, 2)
    ]  # fmt: skip
    assert teachers[1].metrics == teachers[0].metrics
    assert teachers[1].record["fold_epochs"] == teachers[0].record["fold_epochs"]

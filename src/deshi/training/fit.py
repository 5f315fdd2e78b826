"""The stage ``fit``: train a student on a bundle, select it on validation, leave a run folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from deshi.artifacts import environment, new_run_folder, read_json, write_json
from deshi.configuration.saved import find_run, load_config, save_config
from deshi.configuration.schemas import FitConfig, TrainingConfig
from deshi.configuration.targets import build
from deshi.data.bundle import Bundle
from deshi.data.splits import Split
from deshi.hardware import choose_precision, limit_kernel_cache, set_threads, training_device
from deshi.rendering import Block, Result, paragraphs
from deshi.training.runs import CHECKPOINTS, DATA_FILE, RUN_FILE, load_bundle
from deshi.training.trainer import Trained, Training
from deshi.types import DeshiError

Config = TypeVar("Config", bound=TrainingConfig)
Train = Callable[[Config, Bundle, Split, Path], Trained]


@dataclass(frozen=True)
class FitResult(Result):
    """A finished training.

    Attributes:
        folder: the run folder.
        metrics: of the selected student on validation, e.g. ``validation/ndcg@10``.
        epochs: number of epochs that the selected student was trained for.
        seconds: of training and validation, the refit included.
        reused: whether the run was complete already and nothing was done.
    """

    folder: Path
    metrics: dict[str, float]
    epochs: int
    seconds: float
    reused: bool = field(default=False)

    def blocks(self) -> Sequence[Block]:
        """One line."""
        figures = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        state = "was complete already" if self.reused else f"took {self.seconds:.0f} s"
        return paragraphs(f"{self.folder}: {state}, selected epoch {self.epochs}, {figures}")


def run(cfg: FitConfig) -> FitResult:
    """Train as ``cfg`` says; ``cfg.resume`` goes on with an interrupted run, by that run's own configuration.

    Raises:
        DeshiError: if the bundle is missing or another than the interrupted run's, or the training diverges.
    """
    return run_training("fit", cfg, network_name(cfg.student), _train)


def _train(cfg: FitConfig, bundle: Bundle, split: Split, folder: Path) -> Trained:
    return Training(cfg, bundle, split, folder, network_name(cfg.student)).run()


def network_name(node: dict[str, object]) -> str:
    """What a record and a folder call the class that a node names."""
    return str(node["_target_"]).rsplit(".", 1)[-1].lower()


def run_training(stage: str, cfg: Config, network: str, train: Train[Config]) -> FitResult:
    """Open a run folder, or one that was interrupted, and train in it.

    Args:
        stage: the run folder's.
        cfg: of the stage.
        network: ends a new folder's name.
        train: does the work and returns what came of it, reaching ``metrics.json`` last.
    """
    limit_kernel_cache()
    folder = None
    if cfg.resume is not None:
        folder = find_run(cfg.paths.runs, stage, cfg.resume)
        cfg = _resumed_config(cfg, folder)
        if (folder / "metrics.json").exists():
            return _finished(folder)
    bundle = load_bundle(cfg)
    split: Split = build(cfg.split)(bundle)
    new = folder is None
    if folder is None:
        cfg = _with_measured_precision(cfg)
        folder = new_run_folder(cfg.paths.runs, stage, cfg.name or f"{cfg.data.name}_{network}")
        save_config(folder, cfg)
        write_json(folder / "environment.json", environment())
        write_json(folder / DATA_FILE, {"name": bundle.name, "fingerprint": bundle.fingerprint})
    else:
        _check_same_data(folder, bundle)
    with _refused_leaves_nothing(folder, new=new), _log_file(folder / "log.txt"):
        trained = train(cfg, bundle, split, folder)
    return FitResult(folder, trained.metrics, trained.record["selected_epoch"], sum(trained.seconds.values()))


def _with_measured_precision(cfg: Config) -> Config:
    """``auto`` replaced by what was measured, once for the run: a resumed run must not choose anew."""
    set_threads(cfg.train.threads)
    precision = choose_precision(cfg.train.precision, training_device(cfg.train.accelerator))
    return cfg.model_copy(update={"train": cfg.train.model_copy(update={"precision": precision})})


def _resumed_config(cfg: Config, folder: Path) -> Config:
    saved = load_config(folder, type(cfg))
    extra = [item for item in cfg.overrides if not item.startswith(("resume=", "paths.", "data=", "data.name="))]
    if extra:
        raise DeshiError(
            f"resume={folder} goes on with that run's own configuration, but got {', '.join(extra)} too. "
            "Leave the other overrides out, or start a new run."
        )
    return saved


def _finished(folder: Path) -> FitResult:
    seconds = read_json(folder / "time.json")
    record = read_json(folder / RUN_FILE)
    return FitResult(
        folder, read_json(folder / "metrics.json"), record["selected_epoch"], seconds["wall_seconds"], reused=True
    )


def _check_same_data(folder: Path, bundle: Bundle) -> None:
    known = read_json(folder / DATA_FILE)["fingerprint"]
    if known != bundle.fingerprint:
        raise DeshiError(
            f"The run {folder} was started on data {known[:12]}, but {bundle.path} now holds "
            f"{bundle.fingerprint[:12]}. Prepare the data as they were, or start a new run."
        )


@contextmanager
def _refused_leaves_nothing(folder: Path, new: bool) -> Iterator[None]:
    """Remove the folder of a new run that was refused before any training in it began: there is nothing to resume."""
    try:
        yield
    except DeshiError:
        if new and not any(folder.rglob(CHECKPOINTS)):
            shutil.rmtree(folder)
        raise


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Also write what deshi logs to ``path``."""
    logger = logging.getLogger("deshi")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(logging.INFO, logger.getEffectiveLevel()))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()

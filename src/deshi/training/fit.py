"""The stage ``fit``: train a student on a bundle, select it on validation, leave a run folder."""

from __future__ import annotations

import logging
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from html import escape
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from deshi.artifacts import environment, new_run_folder, read_json, write_json
from deshi.config import find_run, load_config, save_config
from deshi.data.bundle import Bundle
from deshi.data.datamodule import DataModule
from deshi.data.sequences import Augmentation, Ints
from deshi.data.splits import Cases, Split
from deshi.schemas import FitConfig
from deshi.students.base import Student
from deshi.targets import build
from deshi.training.callbacks import KeepBest, LearningCurve, ReleaseMemory
from deshi.training.checkpoint import SafeCheckpointIO, load_weights, save_weights
from deshi.training.hardware import choose_precision, limit_kernel_cache, set_threads, training_device
from deshi.training.module import MONITOR, TrainingModule, count_parameters
from deshi.types import DeshiError

log = logging.getLogger(__name__)

STUDENT_FILE = "student.safetensors"
RUN_FILE = "run.json"
DATA_FILE = "data.json"


@dataclass(frozen=True)
class FitResult:
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

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        state = "was complete already" if self.reused else f"took {self.seconds:.0f} s"
        return f"{self.folder}: {state}, selected epoch {self.epochs}, {figures}"

    def _repr_html_(self) -> str:
        """The metrics as a table, for a notebook."""
        rows = "".join(f"<tr><td>{name}</td><td>{value:.4f}</td></tr>" for name, value in self.metrics.items())
        return f"<p>{escape(str(self.folder))}, epoch {self.epochs}</p><table>{rows}</table>"


def run(cfg: FitConfig) -> FitResult:
    """Train as ``cfg`` says; ``cfg.resume`` goes on with an interrupted run, by that run's own configuration.

    Raises:
        DeshiError: if the bundle is missing or another than the interrupted run's, or the training diverges.
    """
    limit_kernel_cache()
    folder = None
    if cfg.resume is not None:
        folder = find_run(cfg.paths.runs, "fit", cfg.resume)
        cfg = _resumed_config(cfg, folder)
        if (folder / "metrics.json").exists():
            return _finished(folder)
    bundle = load_bundle(cfg)
    split: Split = build(cfg.split)(bundle)
    student_name = str(cfg.student["_target_"]).rsplit(".", 1)[-1].lower()
    if folder is None:
        cfg = _with_measured_precision(cfg)
        folder = new_run_folder(cfg.paths.runs, "fit", cfg.name or f"{cfg.data.name}_{student_name}")
        save_config(folder, cfg)
        write_json(folder / "environment.json", environment())
        write_json(folder / DATA_FILE, {"name": bundle.name, "fingerprint": bundle.fingerprint})
    else:
        _check_same_data(folder, bundle)
    with _log_file(folder / "log.txt"):
        return _Training(cfg, bundle, split, folder, student_name).run()


def load_bundle(cfg: FitConfig) -> Bundle:
    """The bundle of ``cfg.data``.

    Raises:
        DeshiError: with the command that prepares it.
    """
    path = cfg.paths.data / cfg.data.name
    if not (path / "manifest.json").exists():
        raise DeshiError(
            f"There is no data bundle at {path}. Prepare it first: deshi prepare data={cfg.data.name} "
            "(with the same data.* and paths.* overrides as here)."
        )
    return Bundle.load(path)


def load_student(folder: Path) -> tuple[Student, dict[str, Any]]:
    """The selected student of a run folder, in evaluation mode, and the run's record (``run.json``).

    Raises:
        DeshiError: if the folder is no finished run of ``deshi fit``, with the command that finishes it.
    """
    cfg = load_config(folder, FitConfig)
    if not (folder / "metrics.json").exists():
        raise DeshiError(f"The run {folder} isn't finished. Finish it: deshi fit resume={folder}")
    record = cast(dict[str, Any], read_json(folder / RUN_FILE))
    student = cast(Student, build(cfg.student, n_items=record["n_items"]))
    load_weights(student, folder / STUDENT_FILE)
    return student.eval(), record


def load_selected_student(folder: Path) -> Student:
    """The student that validation selected, before any refit, in evaluation mode.

    Raises:
        DeshiError: as :func:`load_student`, or if the checkpoints of a refitted run were removed.
    """
    student, record = load_student(folder)
    if record["refit"]:
        path = folder / "checkpoints" / STUDENT_FILE
        if not path.is_file():
            raise DeshiError(f"{path} is missing: the run was refitted, and only that file holds what was selected.")
        load_weights(student, path)
    return student.eval()


class _Training:
    """One run of the stage, step by step."""

    def __init__(self, cfg: FitConfig, bundle: Bundle, split: Split, folder: Path, student_name: str) -> None:
        self.cfg, self.bundle, self.split, self.folder = cfg, bundle, split, folder
        self.student_name = student_name
        self.checkpoints = folder / "checkpoints"
        self.threads = set_threads(cfg.train.threads)

    def run(self) -> FitResult:
        train = self.cfg.train
        starts, ends = self.split.train_ranges(self.bundle, train.train_targets)
        if train.train_targets == "including_validation":
            log.warning("LEAK: train_targets=%s; the validation figures of this run mean nothing", train.train_targets)
        cases = self.split.cases(self.bundle, "validation")
        if not len(cases):
            raise DeshiError(
                f"The split {self.split.name} of {self.bundle.name} has no validation case, so nothing can be "
                "selected. Lower the filters or move the split's boundaries."
            )
        best = KeepBest(self.checkpoints / STUDENT_FILE)
        begin = time.perf_counter()
        curve, trainer = self._train("select", starts, ends, cases, train.max_epochs, best)
        seconds = {"student_baseline_train_time": round(_total_seconds(curve), 3)}
        student = self._new_student()
        load_weights(student, best.path)
        if train.refit:
            student = self._refit(best.epochs, seconds)
        save_weights(student, self.folder / STUDENT_FILE)
        metrics = _best_row(curve, best.epochs)
        record = self._record(student, best.epochs, curve, trainer)
        write_json(self.folder / RUN_FILE, record)
        write_json(self.folder / "time.json", seconds | {"wall_seconds": round(time.perf_counter() - begin, 3)})
        write_json(self.folder / "metrics.json", metrics)
        log.info("finished: %s", metrics)
        return FitResult(self.folder, metrics, best.epochs, sum(seconds.values()))

    def _refit(self, epochs: int, seconds: dict[str, float]) -> Student:
        log.info("refit on training and validation events for %d epochs", epochs)
        starts, ends = self.split.refit_ranges(self.bundle)
        curve, trainer = self._train("refit", starts, ends, None, epochs, None)
        seconds["student_refit_time"] = round(_total_seconds(curve), 3)
        return cast(TrainingModule, trainer.lightning_module).result

    def _train(
        self, phase: str, starts: Ints, ends: Ints, cases: Cases | None, epochs: int, best: KeepBest | None
    ) -> tuple[LearningCurve, L.Trainer]:
        """Train a fresh student, or go on from the phase's last checkpoint."""
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no hardware lists, no advertisements
        module, data = self._module(starts, ends, cases)
        curve = LearningCurve(self.folder / ("epochs.csv" if phase == "select" else f"epochs-{phase}.csv"), log.info)
        trainer = self._trainer(phase, epochs, [curve, *self._selection(best)], len(data.epoch(0)), cases is not None)
        last = self.checkpoints / f"{phase}-last.ckpt"
        with warnings.catch_warnings():
            for message in (".*does not have many workers.*", ".*Checkpoint directory.*", ".*`isinstance.*"):
                warnings.filterwarnings("ignore", message=message)
            with self._interrupts(trainer):
                trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.exists() else None)
        return curve, trainer

    @contextmanager
    def _interrupts(self, trainer: L.Trainer) -> Iterator[None]:
        """Turn the trainer's way of leaving on Ctrl-C (exit, with further Ctrl-C ignored) into an interrupt."""
        before = signal.getsignal(signal.SIGINT)
        try:
            yield
        except SystemExit:
            if trainer.interrupted:
                raise KeyboardInterrupt(f"deshi fit resume={self.folder}") from None
            raise
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, before)

    def _module(self, starts: Ints, ends: Ints, cases: Cases | None) -> tuple[TrainingModule, DataModule]:
        cfg, train = self.cfg, self.cfg.train
        student, loss = self._new_student(), build(cfg.loss)
        data = data_module(cfg, self.bundle, starts, ends, cases, student.max_length)
        if hasattr(loss, "set_counts"):
            loss.set_counts(torch.from_numpy(target_counts(self.bundle, starts, ends)))
        module = TrainingModule(
            student,
            loss,
            train.learning_rate,
            train.betas,
            train.weight_decay,
            train.warmup_steps,
            train.schedule,
            total_steps=len(data.epoch(0)) * train.max_epochs,
            averaging=train.averaging,
            seed=cfg.seed,
        )
        return module, data

    def _new_student(self) -> Student:
        """A student whose initial weights depend on the run's seed alone; the global generator stays as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.cfg.seed)
            return cast(Student, build(self.cfg.student, n_items=self.bundle.n_items))

    def _selection(self, best: KeepBest | None) -> list[Callback]:
        if best is None:
            return []
        return [best, EarlyStopping(MONITOR, mode="max", patience=self.cfg.train.patience, check_finite=True)]

    def _trainer(self, phase: str, epochs: int, callbacks: list[Callback], steps: int, validates: bool) -> L.Trainer:
        train = self.cfg.train
        device = training_device(train.accelerator)
        accelerator = "cpu" if device.type == "cpu" else train.accelerator
        precision = choose_precision(train.precision, device)
        log.info("%s: %s, %s, %d threads", phase, accelerator, precision, self.threads)
        last = ModelCheckpoint(
            self.checkpoints, filename=f"{phase}-last", enable_version_counter=False, save_on_train_epoch_end=True
        )
        trainer = L.Trainer(
            accelerator=accelerator,
            devices=1,
            precision="bf16-mixed" if precision == "bf16" else "32-true",
            max_epochs=epochs,
            max_time=timedelta(minutes=train.max_minutes) if train.max_minutes else None,
            gradient_clip_val=train.gradient_clip,
            check_val_every_n_epoch=train.validate_every,
            limit_val_batches=None if validates else 0,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            callbacks=[*callbacks, last, ReleaseMemory()],
            plugins=[SafeCheckpointIO()],
            logger=TensorBoardLogger(self.folder, name="tensorboard", version=phase),
            log_every_n_steps=min(50, steps),
            enable_progress_bar=train.progress,
            enable_model_summary=False,
            default_root_dir=self.folder,
        )
        return trainer

    def _record(self, student: Student, epochs: int, curve: LearningCurve, trainer: L.Trainer) -> dict[str, Any]:
        """What later stages must know of this run."""
        cfg = self.cfg
        return {
            "stage": "fit",
            "student": self.student_name,
            "parameters": count_parameters(student),
            "data": self.bundle.name,
            "data_fingerprint": self.bundle.fingerprint,
            "n_items": self.bundle.n_items,
            "split": self.split.description,
            "train_targets": cfg.train.train_targets,
            "refit": cfg.train.refit,
            "selected_on": MONITOR,
            "selected_epoch": epochs,
            "trained_epochs": len(curve.rows),
            "positions": sum(row["train/positions"] for row in curve.rows),
            "precision": str(trainer.precision),
            "threads": self.threads,
            "seed": cfg.seed,
        }


def data_module(
    cfg: FitConfig, bundle: Bundle, starts: Ints, ends: Ints, cases: Cases | None, max_length: int
) -> DataModule:
    """The batches of a run: what ``deshi fit`` trains on and what ``deshi audit`` looks at.

    Args:
        cfg: of the run.
        bundle: its data.
        starts: ``(U,)`` flat position of each user's first training event.
        ends: ``(U,)`` one past each user's last training event.
        cases: the validation cases; None for training without validation.
        max_length: of the student.
    """
    train = cfg.train
    return DataModule(
        bundle,
        starts,
        ends,
        cases,
        max_length,
        train.batch_positions,
        train.max_batch_size,
        train.windows,
        Augmentation(**train.augment.model_dump()),
        (cfg.eval.batch_size, cfg.eval.filter_seen),
        cfg.seed,
    )


def target_counts(bundle: Bundle, starts: Ints, ends: Ints) -> Ints:
    """How often each item is a training target ``(n_items,)``: every event of a range but its first."""
    begins = np.zeros(bundle.n_interactions + 1, dtype=np.int64)
    real = ends - starts >= 2
    np.add.at(begins, starts[real] + 1, 1)
    np.add.at(begins, ends[real], -1)
    inside = np.cumsum(begins[:-1]) > 0
    return np.bincount(np.asarray(bundle.items)[inside], minlength=bundle.n_items)


def _with_measured_precision(cfg: FitConfig) -> FitConfig:
    """``auto`` replaced by what was measured, once for the run: a resumed run must not choose anew."""
    set_threads(cfg.train.threads)
    precision = choose_precision(cfg.train.precision, training_device(cfg.train.accelerator))
    return cfg.model_copy(update={"train": cfg.train.model_copy(update={"precision": precision})})


def _resumed_config(cfg: FitConfig, folder: Path) -> FitConfig:
    saved = load_config(folder, FitConfig)
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


def _total_seconds(curve: LearningCurve) -> float:
    return sum(row["seconds"] for row in curve.rows)


def _best_row(curve: LearningCurve, epochs: int) -> dict[str, float]:
    row = next(row for row in curve.rows if row["epoch"] == epochs)
    return {name: value for name, value in row.items() if name.startswith("validation/")}

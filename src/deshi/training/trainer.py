"""The training of one network: batches, trainer, selection on validation, refit, files of the run."""

from __future__ import annotations

import logging
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from numpy.typing import NDArray
from torch import Tensor

from deshi.arrays import Ints, count_codes
from deshi.artifacts import read_json, write_json
from deshi.configuration.run_folders import CHECKPOINTS, CURVE_FILE, METRICS_FILE, TIME_FILE, WEIGHTS_FILE
from deshi.configuration.schemas import TrainingConfig
from deshi.configuration.targets import build
from deshi.data.bundle import Bundle
from deshi.data.datamodule import DataModule
from deshi.data.extra_histories import MoreHistories
from deshi.data.ranges import inside
from deshi.data.sequences import Augmentation
from deshi.data.splits import Examples, Split
from deshi.distillation.objective import Objective
from deshi.hardware import choose_precision, set_threads, training_device
from deshi.models.base import Recommender
from deshi.runs import Run, load_weights, new_network, save_weights, write_record
from deshi.training._callbacks import InterruptBetweenSteps, KeepBest, LearningCurve, ReleaseMemory
from deshi.training._loggers import logger_of
from deshi.training._preparation import Preparation
from deshi.training._ranks import Ranks, log_level
from deshi.training._refit import refitted_run
from deshi.training._sparse_table import use_sparse_gradients
from deshi.training._warm_start import start_from
from deshi.training.checkpoint import SafeCheckpointIO
from deshi.training.module import MONITOR, TrainingModule, count_parameters
from deshi.types import DeshiError

log = logging.getLogger(__name__)


TIME_NAMES = {
    "fit": "student_baseline_train_time",
    "teach": "teacher_train_time_total",
    "distill": "distill_student_train_time",
}
"""The name of a stage's training time in ``time.json``."""


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes:
        metrics: of the selected network on validation, e.g. ``validation/ndcg@10``; a refit of another run has none.
        record: for ``run.json``.
        seconds: of training and validation, the refit included, by name.
    """

    metrics: dict[str, float]
    record: dict[str, Any]
    seconds: dict[str, float]


@dataclass(frozen=True)
class _Outcome:
    """A trained network and how it came about.

    Attributes:
        network: what the run keeps.
        epochs: the number that was selected.
        curve: of the training that selected, or of the refit of another run.
        trainer: of the same training.
        metrics: on validation, see :class:`Trained`.
        seconds: by name.
    """

    network: Recommender
    epochs: int
    curve: LearningCurve
    trainer: L.Trainer
    metrics: dict[str, float]
    seconds: dict[str, float]


class Training:
    """One training of one network.

    Args:
        cfg: of the stage.
        bundle: the data.
        split: of that bundle.
        folder: of the run.
        name: of the network, for the record.
        users: ``(n_users,)`` bool, whose events are trained and validated on; None is everybody.
        ranks: the processes that train together; the first one writes.
    """

    def __init__(
        self, cfg: TrainingConfig, bundle: Bundle, split: Split, folder: Path, name: str,
        users: NDArray[np.bool_] | None = None, ranks: Ranks | None = None,
    ) -> None:  # fmt: skip
        self.cfg, self.bundle, self.split, self.folder = cfg, bundle, split, folder
        self.name, self.users, self.ranks = name, users, ranks or Ranks()
        self.stage = cfg.stage
        self.checkpoints = folder / CHECKPOINTS
        self.threads = set_threads(cfg.train.threads)
        self.start: dict[str, Any] | None = None
        self.sample: dict[str, Any] = {}

    def run_once(self) -> Trained:
        """:meth:`run`, unless the folder holds the finished training already."""
        if not self.ranks.from_first((self.folder / METRICS_FILE).exists):
            return self.run()
        metrics, record, seconds = (read_json(self.folder / f"{name}.json") for name in ("metrics", "run", "time"))
        return Trained(metrics, record, {key: value for key, value in seconds.items() if key != "wall_seconds"})

    def run(self) -> Trained:
        """Train, or go on; leaves weights, ``run.json``, ``time.json`` and, last of all, ``metrics.json``.

        With ``train.refit=RUN`` it trains for the epochs that RUN selected, and nothing is validated.
        """
        begin = time.perf_counter()
        selected = refitted_run(self.cfg, self.bundle)
        outcome = self._select() if selected is None else self._refit(selected.epochs)
        record = self._record(outcome.network, outcome.epochs, outcome.curve, outcome.trainer)
        self.ranks.first_alone(lambda: self._write(outcome, record, round(time.perf_counter() - begin, 3)))
        log.info("finished: %s", outcome.metrics or "refitted, so there is no validation figure")
        return Trained(outcome.metrics, record, outcome.seconds)

    def _write(self, outcome: _Outcome, record: dict[str, Any], wall_seconds: float) -> None:
        save_weights(outcome.network, self.folder / WEIGHTS_FILE)
        write_record(self.folder, record)
        write_json(self.folder / TIME_FILE, outcome.seconds | {"wall_seconds": wall_seconds})
        write_json(self.folder / METRICS_FILE, outcome.metrics)

    def _select(self) -> _Outcome:
        """Train on the training part, choose the epoch on validation and, with ``train.refit=true``, train again."""
        train = self.cfg.train
        starts, ends = self._of_users(self.split.train_ranges(self.bundle, train.train_targets))
        if train.train_targets == "including_validation":
            log.warning("LEAK: train_targets=%s; the validation figures of this run mean nothing", train.train_targets)
        examples = self.split.examples(self.bundle, "validation")
        if self.users is not None:
            examples = examples.of_users(self.users)
        if self.cfg.eval.max_validation_users is not None:  # the same users for every seed
            examples = examples.sample(self.cfg.eval.max_validation_users, 0)
            self.sample = {"validation_examples": len(examples)}
        if not len(examples):
            raise DeshiError(
                f"The split {self.split.name} of {self.bundle.name} has no validation example, so nothing can be "
                "selected. Lower the filters or move the split's boundaries."
            )
        best = KeepBest(self.checkpoints / WEIGHTS_FILE)
        curve, trainer = self._train("select", starts, ends, examples, train.max_epochs, best)
        seconds = {TIME_NAMES[self.stage]: round(_total_seconds(curve), 3)}
        network = self._new_network()
        self.ranks.first_alone(lambda: None)  # the first rank has written the best network by now
        load_weights(network, best.path)
        if train.refit:
            refit = self._refit(best.epochs)
            network, seconds["student_refit_time"] = refit.network, refit.seconds[TIME_NAMES[self.stage]]
        return _Outcome(network, best.epochs, curve, trainer, _best_row(curve, best.epochs), seconds)

    def _of_users(self, ranges: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
        """The ranges, empty for users who are left out."""
        starts, ends = ranges
        return starts, ends if self.users is None else np.where(self.users, ends, starts)

    def _refit(self, epochs: int) -> _Outcome:
        """Train on training and validation events for so many epochs, by the schedule of the selection."""
        log.info("refit on training and validation events for %d epochs", epochs)
        starts, ends = self._of_users(self.split.refit_ranges(self.bundle))
        curve, trainer = self._train("refit", starts, ends, None, epochs, None)
        seconds = {TIME_NAMES[self.stage]: round(_total_seconds(curve), 3)}
        network = cast(TrainingModule, trainer.lightning_module).result.merged()
        return _Outcome(network, epochs, curve, trainer, {}, seconds)

    def _train(
        self, phase: str, starts: Ints, ends: Ints, examples: Examples | None, epochs: int, best: KeepBest | None
    ) -> tuple[LearningCurve, L.Trainer]:
        """Train a fresh student, or go on from the phase's last checkpoint."""
        module, data = self._module(starts, ends, examples)
        after_selection = phase == "refit" and self.cfg.train.refit is True
        curve = LearningCurve(self.folder / (f"epochs-{phase}.csv" if after_selection else CURVE_FILE), log.info)
        interrupt = InterruptBetweenSteps()
        callbacks = [curve, *self._selection(best), interrupt]
        self.checkpoints.mkdir(exist_ok=True)
        last = self.checkpoints / f"{phase}-last.ckpt"
        with quiet_lightning(), logger_of(self.cfg, self.folder, phase, self.ranks) as logger:
            trainer = self._trainer(phase, epochs, callbacks, logger, module, len(data.epoch(0)), examples is not None)
            resumes = self.ranks.from_first(last.exists)
            with self._interrupts(trainer, interrupt):
                trainer.fit(module, datamodule=data, ckpt_path=str(last) if resumes else None)
        return curve, trainer

    @contextmanager
    def _interrupts(self, trainer: L.Trainer, interrupt: InterruptBetweenSteps) -> Iterator[None]:
        """Turn the trainer's way of leaving on Ctrl-C (exit, with further Ctrl-C ignored) into an interrupt."""
        in_main_thread, before = threading.current_thread() is threading.main_thread(), signal.getsignal(signal.SIGINT)
        top = self.folder if self.users is None else self.folder.parent
        if in_main_thread and before is signal.default_int_handler:  # a handler of somebody else's stays
            signal.signal(signal.SIGINT, interrupt.handle)
        try:
            yield
            interrupt.end()  # asked for after the last step
        except (SystemExit, KeyboardInterrupt) as error:
            if trainer.interrupted or isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(f"deshi {self.stage} resume={top}") from None
            raise
        finally:
            if in_main_thread:
                signal.signal(signal.SIGINT, before)

    def _module(self, starts: Ints, ends: Ints, examples: Examples | None) -> tuple[TrainingModule, DataModule]:
        cfg, train = self.cfg, self.cfg.train
        counts = torch.from_numpy(target_counts(self.bundle, starts, ends))
        network, objective = self.objective(counts)
        objective.set_counts(counts)
        if use_sparse_gradients(network, objective, train.sparse_table, self.ranks.size):
            log.info("sparse gradients of the item table: a step changes the rows that it reads")
        data = data_module(cfg, self.bundle, starts, ends, examples, network.max_length, self.more_histories())
        waited_for = training_device(train.accelerator).type != "cpu"
        data.prepare_batches(Preparation(objective, network.n_items if waited_for else None), ahead=waited_for)
        total_steps = len(data.epoch(0)) * train.max_epochs
        module = TrainingModule(network, objective, train, total_steps, cfg.seed)
        return module, data

    def objective(self, counts: Tensor) -> tuple[Recommender, Objective]:
        """The network to train and its objective.

        Args:
            counts: ``(n_items,)`` how often each item is a training target.
        """
        return self._first_network(), Objective(build(self.cfg.loss))

    def more_histories(self) -> MoreHistories | None:
        """Further training histories than the bundle's; none by default."""
        return None

    def _new_network(self) -> Recommender:
        return cast(Recommender, new_network(self.cfg, self.bundle, self.bundle.n_items))

    def _first_network(self) -> Recommender:
        """The network before training: initialised, or with the weights of an older run."""
        network, name = self._new_network(), self.cfg.train.start_from
        if name is not None:
            self.start = start_from(network, Run.open(name, self.cfg.paths), self.bundle)
        return network

    def _selection(self, best: KeepBest | None) -> list[Callback]:
        if best is None:
            return []
        return [best, EarlyStopping(MONITOR, mode="max", patience=self.cfg.train.patience, check_finite=True)]

    def _trainer(
        self, phase: str, epochs: int, callbacks: list[Callback], logger: Logger, module: TrainingModule, steps: int,
        validates: bool,
    ) -> L.Trainer:  # fmt: skip
        train = self.cfg.train
        device = training_device(train.accelerator)
        accelerator = "cpu" if device.type == "cpu" else train.accelerator
        precision = choose_precision(train.precision, device)
        ranks = f", {self.ranks.size} processes" if self.ranks.size > 1 else ""
        log.info("%s: %s, %s, %d threads%s", phase, accelerator, precision, self.threads, ranks)
        last = ModelCheckpoint(
            self.checkpoints, filename=f"{phase}-last", enable_version_counter=False, save_on_train_epoch_end=True
        )
        return L.Trainer(
            accelerator=accelerator,
            devices=train.devices,
            num_nodes=train.nodes,
            strategy="auto" if self.ranks.size == 1 else _strategy(module),
            use_distributed_sampler=False,  # the batches are dealt out by deshi
            precision="bf16-mixed" if precision == "bf16" else "32-true",
            max_epochs=epochs,
            max_time=timedelta(minutes=train.max_minutes) if train.max_minutes else None,
            gradient_clip_val=train.gradient_clip,
            check_val_every_n_epoch=min(train.validate_every, epochs),  # a short training is validated at its end
            limit_val_batches=None if validates else 0,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            callbacks=[*callbacks, last, ReleaseMemory()],
            plugins=[SafeCheckpointIO()],
            logger=logger,
            log_every_n_steps=min(50, steps),
            enable_progress_bar=train.progress,
            enable_model_summary=False,
            default_root_dir=self.folder,
        )

    def _record(self, student: Recommender, epochs: int, curve: LearningCurve, trainer: L.Trainer) -> dict[str, Any]:
        """The run's record for later stages, ``run.json``."""
        cfg = self.cfg
        start = self.sample if self.start is None else {"start_from": self.start} | self.sample
        return start | {
            "stage": self.stage,
            "model": self.name,
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
            "devices": cfg.train.devices,
            "nodes": cfg.train.nodes,
            "processes": self.ranks.size,
            "seed": cfg.seed,
        }


def _strategy(module: TrainingModule) -> DDPStrategy:
    """The gradients' mean over the ranks. Buffers are the same on all of them, without being sent.

    A term may find nothing to learn in a rank's part of a batch, so that its parameters are looked for in each step.
    """
    has_own = any(parameter.requires_grad for parameter in module.objective.parameters())
    return DDPStrategy(find_unused_parameters=has_own, broadcast_buffers=False)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning without lists of hardware, advertisements, and warnings about what deshi does on purpose."""
    with log_level(logging.WARNING, "lightning.pytorch"), warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*", ".*Checkpoint directory.*", ".*`isinstance.*", ".*sync_dist=True.*",
            ".*broadcast_buffers.*", ".*MLFlow only allows.*", ".*Your `IterableDataset` has.*",
            ".*in eval mode at the start.*",
        ):  # fmt: skip
            warnings.filterwarnings("ignore", message=message)
        yield


def data_module(
    cfg: TrainingConfig, bundle: Bundle, starts: Ints, ends: Ints, examples: Examples | None, max_length: int,
    more: MoreHistories | None = None,
) -> DataModule:  # fmt: skip
    """The batches of a run by its configuration; see :class:`~deshi.data.datamodule.DataModule` for the arguments."""
    train = cfg.train
    augmentation, evaluation = Augmentation(**train.augment.model_dump()), (cfg.eval.batch_size, cfg.eval.filter_seen)
    return DataModule(
        bundle, starts, ends, examples, max_length, train.batch_positions, train.max_batch_size, train.windows,
        augmentation, evaluation, cfg.seed, more,
    )  # fmt: skip


def target_counts(bundle: Bundle, starts: Ints, ends: Ints) -> Ints:
    """Counts of each item as a training target ``(n_items,)``: every event of a range but its first."""
    return count_codes(bundle.items, bundle.n_items, inside(starts + 1, ends, bundle.n_interactions))


def _total_seconds(curve: LearningCurve) -> float:
    return sum(row["seconds"] for row in curve.rows)


def _best_row(curve: LearningCurve, epochs: int) -> dict[str, float]:
    row = next(row for row in curve.rows if row["epoch"] == epochs)
    return {name: value for name, value in row.items() if name.startswith("validation/")}

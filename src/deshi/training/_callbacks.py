"""Callbacks of the trainer: the best network kept, freed memory returned, the learning curve written."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lightning as L
import polars as pl

from deshi.artifacts import atomic_file
from deshi.hardware import release_memory
from deshi.runs import save_weights
from deshi.training.module import MONITOR, TrainingModule


class KeepBest(L.Callback):
    """Saves the network's weights whenever the validation metric improves.

    Args:
        path: of the safetensors file.

    Attributes:
        best: the best value so far, minus infinity before the first validation.
        epochs: number of epochs that the best network was trained for, 0 before the first validation.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = -math.inf
        self.epochs = 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare and save."""
        value = float(trainer.callback_metrics[MONITOR])
        if value > self.best and isinstance(pl_module, TrainingModule):
            if trainer.is_global_zero:
                save_weights(pl_module.result.merged(), self.path)
            self.best, self.epochs = value, trainer.current_epoch + 1

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run continues from."""
        return {"best": self.best, "epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a resumed run."""
        self.best, self.epochs = state_dict["best"], state_dict["epochs"]


class ReleaseMemory(L.Callback):
    """Gives freed memory back before every epoch's training and validation."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Before training."""
        release_memory()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Before validation."""
        release_memory()


class InterruptBetweenSteps(L.Callback):
    """Lets Ctrl-C end a training between two steps: anywhere else it may leave a lock held for ever.

    The writer of TensorBoard's files waits for its own thread at the end, which would wait for a lock that an
    interrupted line of the queue between them has kept. A second Ctrl-C interrupts at once.

    Attributes:
        asked: whether Ctrl-C was pressed and nothing has ended yet.
    """

    def __init__(self) -> None:
        self.asked = False

    def handle(self, *_: Any) -> None:
        """The handler of SIGINT."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def on_train_batch_start(self, *_: Any) -> None:
        """End here if it was asked for."""
        self.end()

    def on_validation_batch_start(self, *_: Any) -> None:
        """End here if it was asked for."""
        self.end()

    def end(self) -> None:
        """Raise what was held back."""
        if self.asked:
            self.asked = False
            raise KeyboardInterrupt


class LearningCurve(L.Callback):
    """Writes one row an epoch to a CSV file: epoch, seconds, loss, positions, validation metrics.

    The rows travel in the checkpoint, so that a resumed run's file is that of an uninterrupted one (but for the
    seconds).

    Args:
        path: of the CSV file.
        write_line: receives a line of text for each epoch.
    """

    def __init__(self, path: Path, write_line: Callable[[str], None]) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self._write_line = write_line
        self._start = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the epoch's row and write the file anew."""
        metrics = dict(cast(TrainingModule, pl_module).epoch_summary())
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0:
            logged = trainer.callback_metrics.items()
            metrics |= {name: float(value) for name, value in logged if name.startswith("validation/")}
        seconds = time.perf_counter() - self._start
        row = {"epoch": trainer.current_epoch + 1, "seconds": round(seconds, 3), **metrics}
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        with atomic_file(self.path) as temporary:
            pl.DataFrame(self.rows, infer_schema_length=None).write_csv(temporary)
        self._write_line(", ".join(f"{name} {value:.5g}" for name, value in row.items()))

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a resumed run's rows."""
        self.rows = list(state_dict["rows"])

"""An epoch's training batches and the validation examples, for Lightning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
from torch.utils.data import DataLoader

from deshi.arrays import Ints
from deshi.data.bundle import Bundle
from deshi.data.example_batches import ExampleBatches
from deshi.data.extra_histories import JoinedBatches, MoreHistories
from deshi.data.prepared_batches import PreparedBatches, made_ahead
from deshi.data.rank_batches import RankBatches
from deshi.data.sequences import Augmentation, TrainingBatches, WindowMode
from deshi.data.splits import Examples
from deshi.types import Batch


class DataModule(L.LightningDataModule):
    """Training ranges and validation examples of one bundle.

    Args:
        bundle: the data.
        starts: ``(U,)`` flat position of each user's first training event.
        ends: ``(U,)`` one past each user's last training event.
        validation: the validation examples; ``None`` for training without validation.
        max_length: of the student.
        batch_positions: see :class:`TrainingBatches`.
        max_batch_size: see :class:`TrainingBatches`.
        windows: see :func:`deshi.data.sequences.make_windows`.
        augmentation: of the training histories.
        evaluation: batch size and seen-item filter of the validation.
        seed: of the run.
        more: further histories that are trained on, each batch with its share of them; never augmented.
    """

    def __init__(
        self,
        bundle: Bundle,
        starts: Ints,
        ends: Ints,
        validation: Examples | None,
        max_length: int,
        batch_positions: int,
        max_batch_size: int,
        windows: WindowMode,
        augmentation: Augmentation,
        evaluation: tuple[int, bool],
        seed: int,
        more: MoreHistories | None = None,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer validation examples than ranks
        self._validation = validation
        self._bundle, self._max_length, self._evaluation = bundle, max_length, evaluation
        self._training = (np.asarray(bundle.items), starts, ends, max_length, batch_positions, max_batch_size)
        self._settings = (windows, augmentation, seed)
        self._more = more
        self._prepare: Callable[[Batch], Any] = _alone
        self._ahead = False

    def prepare_batches(self, prepare: Callable[[Batch], Any], ahead: bool) -> None:
        """Let all training batches be prepared before their step.

        Args:
            prepare: makes what the step is given of a batch on the CPU; by default it is ``(batch, None)``.
            ahead: whether a further process makes and prepares them, for a device that would wait.
        """
        self._prepare, self._ahead = prepare, ahead

    def epoch(self, number: int) -> TrainingBatches | JoinedBatches:
        """The batches of epoch ``number`` (from 0)."""
        batches = TrainingBatches(*self._training, *self._settings, epoch=number)
        if self._more is None:
            return batches
        _, _, _, length, positions, size = self._training
        windows, _, seed = self._settings
        starts, ends = self._more.of_epoch(number)
        further = TrainingBatches(
            self._more.items, starts, ends, length, positions, size, windows, Augmentation(), seed, epoch=number
        )
        return JoinedBatches(batches, further, self._more.with_targets)

    def train_dataloader(self) -> PreparedBatches | DataLoader[Any]:
        """The current epoch's batches, or this rank's part of each, prepared; the trainer asks anew at every epoch."""
        number, rank, ranks = 0, 0, 1
        if self.trainer is not None:
            number, rank, ranks = self.trainer.current_epoch, self.trainer.global_rank, self.trainer.world_size
        batches = self.epoch(number)
        prepared = PreparedBatches(batches if ranks == 1 else RankBatches(batches, rank, ranks), self._prepare)
        return made_ahead(prepared) if self._ahead else prepared

    def val_dataloader(self) -> ExampleBatches | list[Any]:
        """The validation examples, or this rank's part of them, or nothing."""
        if self._validation is None:
            return []
        size, filter_seen = self._evaluation
        part = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return ExampleBatches(self._bundle, self._validation, self._max_length, size, filter_seen, part=part)


def _alone(batch: Batch) -> tuple[Batch, None]:
    return batch, None

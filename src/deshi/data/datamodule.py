"""An epoch's training batches and the validation examples, for Lightning."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np

from deshi.arrays import Ints
from deshi.data.bundle import Bundle
from deshi.data.example_batches import ExampleBatches
from deshi.data.extra_histories import JoinedBatches, MoreHistories
from deshi.data.rank_batches import RankBatches
from deshi.data.sequences import Augmentation, TrainingBatches, WindowMode
from deshi.data.splits import Examples


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

    def train_dataloader(self) -> TrainingBatches | JoinedBatches | RankBatches:
        """The current epoch's batches, or this rank's part of each; the trainer asks anew at every epoch."""
        if self.trainer is None:
            return self.epoch(0)
        batches = self.epoch(self.trainer.current_epoch)
        ranks = self.trainer.world_size
        return batches if ranks == 1 else RankBatches(batches, self.trainer.global_rank, ranks)

    def val_dataloader(self) -> ExampleBatches | list[Any]:
        """The validation examples, or this rank's part of them, or nothing."""
        if self._validation is None:
            return []
        size, filter_seen = self._evaluation
        part = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return ExampleBatches(self._bundle, self._validation, self._max_length, size, filter_seen, part=part)

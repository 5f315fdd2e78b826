"""What the trainer iterates over: an epoch's training batches and the validation examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from deshi.arrays import Ints
from deshi.data.bundle import Bundle
from deshi.data.extra_histories import JoinedBatches, MoreHistories
from deshi.data.sequences import Augmentation, TrainingBatches, WindowMode, history_batches
from deshi.data.splits import Examples
from deshi.types import PAD, Batch


def padded_rows(values: np.ndarray[Any, Any], starts: Ints, ends: Ints) -> Ints:
    """Rows ``values[starts[r]:ends[r]]``, ``(B, L)`` int64, padded on the right with ``PAD``."""
    positions = starts[:, None] + np.arange(int((ends - starts).max(initial=0)))
    inside = positions < ends[:, None]
    return np.where(inside, values[np.where(inside, positions, 0)], PAD).astype(np.int64)


class ExampleBatches:
    """Evaluation examples in batches, each example exactly once, the last batch as small as it is.

    Iterating yields ``(examples, batch, targets, seen)``: example numbers ``(B,)``, the histories, target items
    ``(B, T)`` padded with ``PAD``, and the whole history's items ``(B, S)`` to be left out of the ranking
    (``(B, 0)`` where ``filter_seen`` is false). ``seen`` is never cut to ``max_length``.

    Args:
        bundle: the data.
        examples: of one part of a split of that bundle.
        max_length: number of latest events that a student reads.
        batch_size: examples of a batch.
        filter_seen: whether seen items are left out.
    """

    def __init__(self, bundle: Bundle, examples: Examples, max_length: int, batch_size: int, filter_seen: bool) -> None:
        self._bundle = bundle
        self._examples = examples
        self._max_length = max_length
        self._batch_size = batch_size
        self._filter_seen = filter_seen

    def __len__(self) -> int:
        return -(-len(self._examples) // self._batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Batch, Tensor, Tensor]]:
        examples, items = self._examples, np.asarray(self._bundle.items)
        targets, offsets = items[examples.target_rows], examples.target_offsets
        parts = history_batches(
            items, examples.users, examples.starts, examples.ends, self._max_length, self._batch_size
        )
        for numbers, batch in parts:
            target_items = padded_rows(targets, offsets[numbers], offsets[numbers + 1])
            # without the filter every row is empty
            ends = examples.ends if self._filter_seen else examples.starts
            seen = padded_rows(items, examples.starts[numbers], ends[numbers])
            yield torch.from_numpy(numbers), batch, torch.from_numpy(target_items), torch.from_numpy(seen)


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

    def train_dataloader(self) -> TrainingBatches | JoinedBatches:
        """The current epoch's batches; the trainer asks anew at every epoch."""
        return self.epoch(self.trainer.current_epoch if self.trainer else 0)

    def val_dataloader(self) -> ExampleBatches | list[Any]:
        """The validation examples, or nothing."""
        if self._validation is None:
            return []
        size, filter_seen = self._evaluation
        return ExampleBatches(self._bundle, self._validation, self._max_length, size, filter_seen)

"""Evaluation examples in padded batches: histories, targets, and the items that are left out of the ranking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from deshi.arrays import Array, Ints
from deshi.data.bundle import Bundle
from deshi.data.sequences import history_batches
from deshi.data.splits import Examples
from deshi.types import PAD, Batch


class ExampleBatch(NamedTuple):
    """A batch of evaluation examples.

    Attributes:
        numbers: ``(B,)`` each example's number among all.
        histories: of ``B`` examples, without targets.
        targets: ``(B, T)`` items, padded with ``PAD``.
        seen: ``(B, S)`` items that are no candidates, padded with ``PAD``; never cut to the length that a model reads.
    """

    numbers: Tensor
    histories: Batch
    targets: Tensor
    seen: Tensor

    def to(self, device: torch.device | str) -> ExampleBatch:
        """The same batch with every tensor on ``device``."""
        return ExampleBatch(
            self.numbers.to(device), self.histories.to(device), self.targets.to(device), self.seen.to(device)
        )


class ExampleBatches:
    """Evaluation examples in batches, each example exactly once, the last batch as small as it is.

    Args:
        bundle: the data.
        examples: of one part of a split of that bundle.
        max_length: number of latest events that a model reads.
        batch_size: examples of a batch.
        filter_seen: whether the items of the whole history are left out of the ranking.
        seen_ends: ``(C,)`` one past the last event that is left out; None for the end of each history.
        part: the number of this part and the number of parts that the examples are dealt out to.
    """

    def __init__(
        self,
        bundle: Bundle,
        examples: Examples,
        max_length: int,
        batch_size: int,
        filter_seen: bool,
        seen_ends: Ints | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self._bundle = bundle
        self._examples = examples
        self._max_length = max_length
        self._batch_size = batch_size
        self._part = part
        # without the filter every row is empty
        self._seen_ends = (examples.ends if seen_ends is None else seen_ends) if filter_seen else examples.starts

    def __len__(self) -> int:
        number, parts = self._part
        return -(-len(range(number, len(self._examples), parts)) // self._batch_size)

    def __iter__(self) -> Iterator[ExampleBatch]:
        examples, items = self._examples, np.asarray(self._bundle.items)
        all_targets, offsets = items[examples.target_rows], examples.target_offsets
        for numbers, histories in history_batches(
            items, examples.users, examples.starts, examples.ends, self._max_length, self._batch_size, self._part
        ):
            targets = padded_rows(all_targets, offsets[numbers], offsets[numbers + 1])
            seen = padded_rows(items, examples.starts[numbers], self._seen_ends[numbers])
            yield ExampleBatch(torch.from_numpy(numbers), histories, torch.from_numpy(targets), torch.from_numpy(seen))


def padded_rows(values: Array, starts: Ints, ends: Ints) -> Ints:
    """Rows ``values[starts[r]:ends[r]]``, ``(B, L)`` int64, padded on the right with ``PAD``."""
    positions = starts[:, None] + np.arange(int((ends - starts).max(initial=0)))
    inside = positions < ends[:, None]
    return np.where(inside, values[np.where(inside, positions, 0)], PAD).astype(np.int64)

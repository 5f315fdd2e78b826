"""Training batches with what is looked up for them on the CPU, made by this process or ahead by a further one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from deshi.data.extra_histories import JoinedBatches
from deshi.data.rank_batches import RankBatches
from deshi.data.sequences import TrainingBatches
from deshi.types import Batch

AHEAD = 4
"""Batches that wait for the device at most."""


class PreparedBatches(IterableDataset[Any]):
    """An epoch's batches, each as a function makes it ready for its step.

    Args:
        batches: of the epoch.
        prepare: is given each batch.
    """

    def __init__(
        self, batches: TrainingBatches | JoinedBatches | RankBatches, prepare: Callable[[Batch], Any]
    ) -> None:  # fmt: skip
        self._batches, self._prepare = batches, prepare

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        return map(self._prepare, self._batches)


def made_ahead(batches: PreparedBatches) -> DataLoader[Any]:
    """The same batches in the same order, made by a forked process while the device computes, in pinned memory.

    It is one process, since an epoch's batches are drawn one after the other from one random stream.
    """
    return DataLoader(
        batches, batch_size=None, num_workers=1, prefetch_factor=AHEAD, multiprocessing_context="fork",
        pin_memory=torch.cuda.is_available(), generator=torch.Generator(),
    )  # fmt: skip

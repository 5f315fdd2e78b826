"""The batches of an epoch dealt out over the ranks of a training, the processes that train one network together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from deshi.data.extra_histories import JoinedBatches
from deshi.data.sequences import TrainingBatches
from deshi.types import Batch


@dataclass(frozen=True)
class RankBatch(Batch):
    """A rank's histories of a batch.

    A rank for which none is left stands in with the batch's first history and a share of 0, so that it takes part in
    the step.

    Attributes:
        full: the batch of all ranks; it stays on the CPU, where positions are counted without waiting for a device.
        dealt: ``(R,)`` the rank's rows of it, none for one that stands in.
        ranks: number of ranks.
    """

    full: Batch
    dealt: Tensor
    ranks: int

    @classmethod
    def of(cls, batch: Batch, rank: int, ranks: int) -> RankBatch:
        """Every ``ranks``-th history from number ``rank`` on: neighbours are of similar length, so that ranks are, too.

        The rows stay as wide as they were: what a network makes of padding doesn't depend on the number of ranks.
        """
        dealt = torch.arange(len(batch.users))[rank::ranks]
        part = batch.select(dealt if len(dealt) else torch.zeros(1, dtype=torch.int64))
        tensors: dict[str, Any] = {field.name: getattr(part, field.name) for field in fields(Batch)}
        return cls(**tensors, full=batch, dealt=dealt, ranks=ranks)

    @property
    def whole(self) -> Batch:
        """The batch of all ranks together."""
        return self.full

    def share(self, count: Callable[[Batch], int]) -> float:
        """See :meth:`deshi.types.Batch.share`: the rank's part of all positions, times the number of ranks."""
        return self.ranks * count(self.full.select(self.dealt)) / max(1, count(self.full))

    def _map(self, change: Callable[[Tensor], Tensor]) -> RankBatch:
        tensors: dict[str, Any] = {field.name: change(getattr(self, field.name)) for field in fields(Batch)}
        return replace(self, **tensors)


class RankBatches:
    """An epoch's batches of one rank: as many on every rank, together the epoch.

    Every rank makes the whole batch, by the one plan of the epoch, and takes its rows of it.

    Args:
        batches: of the epoch.
        rank: of this process.
        ranks: number of ranks.
    """

    def __init__(self, batches: TrainingBatches | JoinedBatches, rank: int, ranks: int) -> None:
        self._batches, self._rank, self._ranks = batches, rank, ranks

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[RankBatch]:
        for batch in self._batches:
            yield RankBatch.of(batch, self._rank, self._ranks)

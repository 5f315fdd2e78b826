"""Training batches of a bundle, joined with those of further histories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from deshi.arrays import Ints
from deshi.data.sequences import TrainingBatches
from deshi.types import Batch


@dataclass(frozen=True, eq=False)
class MoreHistories:
    """Histories beside the bundle's that are trained on as they are.

    Attributes:
        items: ``(R + M,)`` int32, the bundle's events and then theirs: rows of batches count in this array.
        starts: ``(S,)`` place of each history's first event in ``items``.
        ends: ``(S,)`` one past its last.
        users: ``(S,)`` the user of each; a user's copies stand next to each other, and an epoch sees one of them.
        with_targets: whether their next items are training targets, too.
    """

    items: NDArray[np.int32] = field(repr=False)
    starts: Ints = field(repr=False)
    ends: Ints = field(repr=False)
    users: Ints = field(repr=False)
    with_targets: bool = False

    def of_epoch(self, epoch: int) -> tuple[Ints, Ints]:
        """Starts and ends of the copies that are epoch ``epoch``'s: each user's copies take turns.

        Place ``u`` of both is user ``u``'s, so that batches know whose they are; a user without copies has no events.
        """
        users, first, counts = np.unique(self.users, return_index=True, return_counts=True)
        chosen = first + epoch % counts
        starts, ends = (np.zeros(int(users[-1]) + 1, dtype=np.int64) for _ in range(2))
        starts[users], ends[users] = self.starts[chosen], self.ends[chosen]
        return starts, ends


class JoinedBatches:
    """An epoch's batches, each with its share of the batches of further histories.

    Args:
        batches: the bundle's.
        more: those of the further histories; they are spread evenly over ``batches``.
        with_targets: whether the further histories keep their targets.
    """

    def __init__(self, batches: TrainingBatches, more: TrainingBatches, with_targets: bool) -> None:
        self._batches, self._more, self._with_targets = batches, more, with_targets
        self.windows = batches.windows

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        further = iter(self._more)
        share = len(self._more) / len(self._batches)
        for number, batch in enumerate(self._batches):
            joined = batch
            for further_batch in islice(further, round((number + 1) * share) - round(number * share)):
                joined = joined.join(further_batch if self._with_targets else further_batch.without_targets())
            yield joined

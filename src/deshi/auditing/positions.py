"""Training batches as flat arrays: every position that holds an item, with what must be predicted there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from deshi.arrays import Array
from deshi.types import PAD, Batch


@dataclass(frozen=True, eq=False)
class Positions:
    """All positions of an epoch that hold an item, as flat arrays of one length.

    Attributes:
        users: user indices.
        items: what the model reads there.
        targets: what it must predict there, ``PAD`` for nothing.
        rows: the event's flat position in the bundle, as the batch says.
        following: the flat position of the next input of the same history, ``PAD`` for the last.
        next_items: the next input, ``PAD`` for the last.
        padded: ``(batch, row)`` of places where padding and lengths disagree.
        whole: whether the epoch was looked at to its end.
    """

    users: Array
    items: Array
    targets: Array
    rows: Array
    following: Array
    next_items: Array
    padded: list[tuple[int, int]]
    whole: bool

    @classmethod
    def of(cls, batches: Iterable[Batch], limit: int) -> Positions:
        """Read batches until ``limit`` positions are seen."""
        parts: list[tuple[Array, ...]] = []
        padded: list[tuple[int, int]] = []
        seen, whole = 0, True
        for number, batch in enumerate(batches):
            if seen >= limit:
                whole = False
                break
            part, wrong = _read(batch)
            parts.append(part)
            padded += [(number, row) for row in wrong]
            seen += len(part[0])
        nothing = (np.zeros(0, dtype=np.int64),) * 6
        columns = [np.concatenate(column) for column in zip(*(parts or [nothing]), strict=True)]
        users, items, targets, rows, following, next_items = columns
        return cls(users, items, targets, rows, following, next_items, padded, whole)


def _read(batch: Batch) -> tuple[tuple[Array, ...], list[int]]:
    """A batch's real positions, and the rows whose padding is wrong."""
    users, items, lengths, targets, rows = (
        tensor.numpy() for tensor in (batch.users, batch.items, batch.lengths, batch.targets, batch.rows)
    )
    inside = np.arange(items.shape[1]) < lengths[:, None]
    wrong = ((items != PAD) != inside).any(1) | ((targets != PAD) & ~inside).any(1)
    end = np.full((len(items), 1), PAD)
    last = np.arange(items.shape[1]) == lengths[:, None] - 1
    following = np.where(last, PAD, np.hstack([rows[:, 1:], end]))
    next_items = np.where(last, PAD, np.hstack([items[:, 1:], end]))
    owners = np.broadcast_to(users[:, None], items.shape)
    columns = (owners, items, targets, rows, following, next_items)
    return tuple(column[inside] for column in columns), np.flatnonzero(wrong).tolist()

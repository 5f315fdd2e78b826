"""The targets of rows: the item that came next, at training rows and at held-out rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deshi.arrays import Ints, range_rows
from deshi.data.bundle import Bundle
from deshi.data.splits import PARTS, Split
from deshi.soft_labels._histories import Histories

TRAIN, LATEST = "train", "train-last"
"""All training rows, and each user's latest one: the neighbour in time of the first held-out row."""


@dataclass(frozen=True, eq=False)
class Targets:
    """Rows of one kind with the items that came next.

    Attributes:
        name: ``train``, ``train-last``, ``validation`` or ``test``.
        rows: ``(M,)`` int64.
        users: ``(M,)`` int64, user indices.
        items: ``(M,)`` int64, the item that came next.
    """

    name: str
    rows: Ints
    users: Ints
    items: Ints

    def at(self, mask: NDArray[Any]) -> Targets:
        """Those of a mask."""
        return Targets(self.name, self.rows[mask], self.users[mask], self.items[mask])


def row_targets(histories: Histories, bundle: Bundle, split: Split) -> list[Targets]:
    """The targets of the four kinds of rows, whether or not a store covers them.

    Of augmented histories the training rows are all but each sequence's last; that one is followed by the target of
    the split's ``next_part`` (validation), where it is the event that the target really came after. They have no
    other held-out rows. For lists of a refitted teacher the split is :meth:`~deshi.data.splits.Split.refitted`.
    """
    if histories.augmented:
        return [
            *_training(histories, histories.offsets[:-1], histories.offsets[1:]),
            _continued(histories, bundle, split),
        ]
    targets = _training(histories, *split.train_ranges(bundle))
    for part in PARTS:
        examples = split.examples(bundle, part)
        targets.append(
            Targets(part, examples.ends - 1, examples.users, np.asarray(bundle.items)[examples.ends].astype(np.int64))
        )
    return targets


def _training(histories: Histories, starts: Ints, ends: Ints) -> list[Targets]:
    latest = (ends - 2)[ends - starts >= 2]
    return [
        _followed(histories, name, rows) for name, rows in ((TRAIN, range_rows(starts, ends - 1)), (LATEST, latest))
    ]


def _followed(histories: Histories, name: str, rows: Ints) -> Targets:
    items = np.asarray(histories.items)[rows + 1].astype(np.int64)
    return Targets(name, rows, histories.users[histories.owners(rows)], items)


def _continued(histories: Histories, bundle: Bundle, split: Split) -> Targets:
    """The ends of augmented histories that still end with the last training event."""
    # a sequence is kept if its last event is the user's event just before the first held-out target
    examples = split.examples(bundle, split.next_part)
    ends = np.full(bundle.n_users, -1, dtype=np.int64)
    ends[examples.users] = examples.ends
    rows = np.asarray(histories.offsets[1:]) - 1
    sources = np.asarray(histories.sources)[rows]
    kept = ends[histories.users] == sources + 1
    items = np.asarray(bundle.items)[sources[kept] + 1].astype(np.int64)
    return Targets(split.next_part, rows[kept], np.asarray(histories.users)[kept], items)

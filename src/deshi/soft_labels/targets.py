"""Which item really came next after a row, at training rows and at held-out rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deshi.arrays import Ints, range_rows
from deshi.data.bundle import Bundle
from deshi.data.splits import PARTS, Split
from deshi.soft_labels.histories import Histories

TRAIN, LATEST = "train", "train-last"
"""All training rows, and each user's latest one: the neighbour in time of the first held-out row."""


@dataclass(frozen=True, eq=False)
class Truths:
    """Rows of one kind with what came next.

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

    def at(self, chosen: NDArray[Any]) -> Truths:
        """Some of them: ``chosen`` is a mask or places."""
        return Truths(self.name, self.rows[chosen], self.users[chosen], self.items[chosen])


def truths(histories: Histories, bundle: Bundle, split: Split) -> list[Truths]:
    """The four kinds of rows, whether or not a store covers them.

    Of augmented histories the training rows are all but each sequence's last; that one is followed by the validation
    target, where it is the event that the target really came after. They have no test rows.
    """
    if histories.augmented:
        return [
            *_training(histories, histories.offsets[:-1], histories.offsets[1:]),
            _continued(histories, bundle, split),
        ]
    found = _training(histories, *split.train_ranges(bundle))
    for part in PARTS:
        examples = split.examples(bundle, part)
        found.append(
            Truths(part, examples.ends - 1, examples.users, np.asarray(bundle.items)[examples.ends].astype(np.int64))
        )
    return found


def _training(histories: Histories, starts: Ints, ends: Ints) -> list[Truths]:
    latest = (ends - 2)[ends - starts >= 2]
    return [
        _followed(histories, name, rows) for name, rows in ((TRAIN, range_rows(starts, ends - 1)), (LATEST, latest))
    ]


def _followed(histories: Histories, name: str, rows: Ints) -> Truths:
    items = np.asarray(histories.items)[rows + 1].astype(np.int64)
    return Truths(name, rows, histories.users[histories.owners(rows)], items)


def _continued(histories: Histories, bundle: Bundle, split: Split) -> Truths:
    """The ends of augmented histories that still end with the last training event."""
    examples = split.examples(bundle, "validation")
    ends = np.full(bundle.n_users, -1, dtype=np.int64)
    ends[examples.users] = examples.ends
    rows = np.asarray(histories.offsets[1:]) - 1
    sources = np.asarray(histories.sources)[rows]
    kept = ends[histories.users] == sources + 1
    items = np.asarray(bundle.items)[sources[kept] + 1].astype(np.int64)
    return Truths("validation", rows[kept], np.asarray(histories.users)[kept], items)

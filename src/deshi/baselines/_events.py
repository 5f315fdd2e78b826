"""The training events of a bundle as flat arrays: what baselines are fitted on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deshi.arrays import Ints, range_rows
from deshi.data.bundle import Bundle
from deshi.types import PAD, Batch, DeshiError


@dataclass(frozen=True)
class Events:
    """Training events, grouped by user and oldest first.

    Attributes:
        users: ``(E,)`` int64, not decreasing.
        items: ``(E,)`` int64.
        n_users: number of users of the bundle.
        n_items: number of items of the bundle.
    """

    users: Ints
    items: Ints
    n_users: int
    n_items: int

    def counts(self) -> Ints:
        """``(n_items,)`` number of events of each item."""
        return np.bincount(self.items, minlength=self.n_items)

    def pairs(self) -> tuple[Ints, Ints]:
        """The distinct (user, item) pairs, ordered by user."""
        keys = np.unique(self.users * self.n_items + self.items)
        return keys // self.n_items, keys % self.n_items


def training_events(bundle: Bundle, starts: Ints, ends: Ints) -> Events:
    """The events at the flat positions ``[starts[u], ends[u])`` of every user ``u``.

    Raises:
        DeshiError: if there are none, or the ranges don't fit the bundle.
    """
    if starts.shape != (bundle.n_users,) or ends.shape != starts.shape:
        raise DeshiError(f"Ranges have shapes {starts.shape} and {ends.shape}, expected both ({bundle.n_users},).")
    lengths = np.maximum(ends - starts, 0)
    if not lengths.sum():
        raise DeshiError(f"The training ranges of {bundle.name} hold no event. Move the boundaries of the split.")
    rows = range_rows(starts, ends)
    users = np.repeat(np.arange(bundle.n_users), lengths)
    return Events(users, bundle.items[rows].astype(np.int64), bundle.n_users, bundle.n_items)


def user_item_matrix(events: Events) -> Tensor:
    """``(n_users, n_items)`` sparse COO float32, 1 where the user has the item in training."""
    users, items = events.pairs()
    indices = torch.from_numpy(np.stack([users, items]))
    shape = (events.n_users, events.n_items)
    return torch.sparse_coo_tensor(indices, torch.ones(len(users)), shape, is_coalesced=True, check_invariants=False)


def distinct_items(batch: Batch, n_items: int) -> tuple[Tensor, Tensor]:
    """The distinct (row, item) pairs of a batch's histories, ordered by row."""
    rows, columns = (batch.items != PAD).nonzero(as_tuple=True)
    keys = torch.unique(rows * n_items + batch.items[rows, columns])
    return keys // n_items, keys % n_items

"""Markov: the items that followed the last item in training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deshi.arrays import offsets_of, range_rows
from deshi.baselines._base import Baseline
from deshi.baselines._events import Events
from deshi.types import Batch, DeshiError


class Markov(Baseline):
    """First-order transitions of the history's last item, smoothed with popularity.

    The score is ``(n_ij + prior p_j) / (n_i + prior)``: ``n_ij`` times ``j`` followed ``i`` directly within a user's
    training range, ``n_i`` times anything did, ``p_j`` the item's share of the training events. An item
    that nothing followed falls back on popularity.

    Args:
        prior: the weight of popularity, in transitions.
    """

    def __init__(self, prior: float = 10.0) -> None:
        if prior <= 0:
            raise DeshiError(f"Markov got prior={prior}, expected a number above 0.")
        self.prior = prior

    def _fit(self, events: Events) -> None:
        # n_ij in rows: for each item i the items j that followed it, and how often
        same_user = events.users[1:] == events.users[:-1]
        keys = events.items[:-1][same_user] * events.n_items + events.items[1:][same_user]
        pairs, counts = np.unique(keys, return_counts=True)
        self._offsets = offsets_of(np.bincount(pairs // events.n_items, minlength=events.n_items))
        self._next = torch.from_numpy(pairs % events.n_items)
        self._counts = torch.from_numpy(counts).float()
        share = events.counts() / len(events.items)
        self._popularity = torch.from_numpy(share).float()

    def _scores(self, batch: Batch) -> Tensor:
        rows = torch.arange(len(batch.items))
        last = batch.items[rows, batch.lengths - 1].numpy()
        begins, ends = self._offsets[last], self._offsets[last + 1]
        # all transitions of the last items, with the batch row that each belongs to
        row = torch.from_numpy(np.repeat(rows.numpy(), ends - begins))
        transitions = torch.from_numpy(range_rows(begins, ends))
        scores = (self.prior * self._popularity).repeat(len(rows), 1)
        scores[row, self._next[transitions]] += self._counts[transitions]
        totals = torch.zeros(len(rows)).index_add_(0, row, self._counts[transitions])
        return scores / (totals + self.prior)[:, None]

"""SeqRules: rules from an item to the items after it in training, nearer ones weighing more."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array

from deshi.arrays import Floats
from deshi.baselines._events import Events
from deshi.baselines._history import latest_items
from deshi.baselines._pair_counts import count_pairs
from deshi.baselines._search import Grid, SearchedBaseline
from deshi.types import Batch, DeshiError

_GRIDS: tuple[Grid, ...] = (
    {"steps": (5, 10, 20, 50)},
    {"decay": (0.5, 1.0, 2.0)},
    {"latest": (1, 5, 10, 20), "idf": (False, True)},
    {"pruning": (50, 200, 1000)},
)


class SeqRules(SearchedBaseline):
    """Sequential rules with a weight that falls with the distance, row pruning and IDF.

    The rule ``i -> j`` weighs ``idf_i * sum of d ** -decay`` over all pairs of events of a user's training range in
    which ``j`` comes ``d <= steps`` events after ``i``. The ``pruning`` heaviest rules of each item are kept, with all
    that tie with the last of them. An item's score is the mean of its rules from the ``latest`` items of the history,
    weighed by ``1 / k`` for the ``k``-th latest. ``idf_i`` is ``log(users / users with i)``, scaled to 0 .. 1 over the
    catalogue.

    Kamehkhosh, Jannach and Ludewig (2017, https://ceur-ws.org/Vol-1922/paper10.pdf) have the rules from the last item,
    with ``decay=1`` and no IDF. Pruning is from Ludewig and Jannach (2018, arXiv 1803.09587), whose program
    (session-rec) also has the IDF of a rule's first item and other decays, and sketches older items over ``k``. Petrov
    et al. (RecSys 2026, arXiv 2608.19833) tune decay, pruning, length of the history and IDF together; the formula here
    is that program's, not theirs.

    Args:
        steps: events from a rule's first item to its second, at most.
        decay: exponent of the distance; 0 counts all pairs alike.
        latest: items of a history that are read.
        idf: whether rules from rare items weigh more.
        pruning: rules kept for an item.
    """

    grids = _GRIDS

    def __init__(
        self, steps: int = 10, decay: float = 1.0, latest: int = 10, idf: bool = True, pruning: int = 200
    ) -> None:
        if decay < 0 or min(steps, latest, pruning) < 1:
            raise DeshiError(
                f"SeqRules got steps={steps}, decay={decay}, latest={latest} and pruning={pruning}, expected a decay "
                "from 0 and the others from 1."
            )
        self.steps, self.decay, self.latest, self.idf, self.pruning = steps, decay, latest, idf, pruning

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that :meth:`search` chooses."""
        return {name: getattr(self, name) for name in ("steps", "decay", "latest", "idf", "pruning")}

    def _set(self, settings: dict[str, Any]) -> None:
        changed = {name for name, value in self.settings.items() if value != settings[name]}
        vars(self).update(settings)
        if changed & {"steps", "decay"}:
            self._counts = self._count()
        if changed & {"steps", "decay", "pruning"}:
            self._kept = pruned(self._counts, self.pruning)
        self._rules = self._weighed()

    def _fit(self, events: Events) -> None:
        self._events = events
        self._counts = self._count()
        self._kept = pruned(self._counts, self.pruning)
        self._rules = self._weighed()

    def _count(self) -> csr_array:
        weights = np.arange(1, self.steps + 1, dtype=np.float64) ** -self.decay
        return count_pairs(self._events.users, self._events.items, self._events.n_items, weights)

    def _weighed(self) -> csr_array:
        return csr_array(diags_array(inverse_frequency(self._events)) @ self._kept) if self.idf else self._kept

    def sparse_scores(self, batch: Batch) -> csr_array:
        """``(B, n_items)`` float32, from 0; the batch holds whole histories."""
        weights = 1.0 / np.arange(1, self.latest + 1)
        offsets, items, shares = latest_items(batch, torch.arange(len(batch.items)), batch.lengths - 1, weights)
        scores = csr_array((shares, items, offsets), shape=(len(batch.items), self._rules.shape[0])) @ self._rules
        # sums in float64, rounded to float32: equal scores stay equal in whatever order they were summed
        return scores.astype(np.float32)


def pruned(table: csr_array, kept: int) -> csr_array:
    """The ``kept`` greatest numbers of every row, and all that tie with the last of them."""
    sizes = np.diff(table.indptr)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    falling = table.data[np.lexsort((-table.data, rows))]
    # the least number that stays in a row, where the row has more than `kept`
    least, long = np.zeros(len(sizes)), sizes > kept
    least[long] = falling[table.indptr[:-1][long] + kept - 1]
    stays = table.data >= least[rows]
    return csr_array((table.data[stays], (rows[stays], table.indices[stays])), shape=table.shape)


def inverse_frequency(events: Events) -> Floats:
    """``(n_items,)`` the inverse user frequency of each item, scaled to 0 .. 1; all 1 where all are equal."""
    users = np.bincount(events.pairs()[1], minlength=events.n_items).clip(min=1)
    idf = np.log(events.n_users / users)
    spread = float(np.ptp(idf))
    return (idf - idf.min()) / spread if spread else np.ones(len(idf))

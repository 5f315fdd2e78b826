"""Pairwise: transition counts of item pairs, pooled over the latest items of a history."""

from __future__ import annotations

import math
from copy import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array, vstack
from scipy.sparse.linalg import eigsh
from torch import Tensor

from deshi.arrays import Array, Float32s, Floats, Ints, offsets_of, range_rows
from deshi.baselines._events import Events
from deshi.baselines._history import latest_items
from deshi.baselines._pair_counts import count_pairs, greatest, subtract_pairs, without
from deshi.baselines._search import Grid, SearchedBaseline, full
from deshi.models.scorers import Scorer
from deshi.types import Batch, DeshiError, ScoreKind

_LEAST_WEIGHT = 1e-4
"""Items of a history that weigh less than this share of the latest one's are not read."""

_FULL_ENTRIES, _FULL_SHARE = 250_000_000, 0.05
"""Tables of so many entries at most, with so many of them above 0, are held in full: several times as fast."""
_VECTOR_SIZE = 64
"""Width of the item vectors."""
_BLOCK, _SHARPNESS = 1000, 7
"""Items whose neighbours are looked for at a time, and the power of their cosines."""

_GRIDS: tuple[Grid, ...] = (
    {"history_decay": (0.4, 0.6, 0.8, 0.9), "smoothing": (0.1, 0.3, 1.0, 3.0)},
    {"distance_decay": (0.3, 0.5, 0.85)},
    {"max_distance": (5, 100)},
    {"history_decay": (0.5, 0.7, 0.85)},
    {"smoothing": (0.2, 0.5, 0.7, 1.5)},
)


class Pairwise(SearchedBaseline):
    """Smoothed transition counts of all pairs of events, pooled log-linearly over the latest items of a history.

    ``C[i, j]`` is the sum over users and pairs ``s_x = i, s_y = j, 1 <= y - x <= max_distance`` of
    ``distance_decay ** (y - x - 1)``, over training events only. After a history ``h_1 .. h_n`` item ``j`` scores
    ``sum_k w_k log(1 + C[h_k, j] / smoothing)`` with ``w_k ~ history_decay ** (n - k)``, which sum to 1: the pooled
    logarithms of transition probabilities smoothed by a pseudo-count, without the rows' constants. Pairwise counts
    match or beat published sequential networks on most benchmarks (Petrov et al., RecSys 2026, arXiv 2608.19833,
    "PCTM"; there the pseudo-count is ``tau / N``). Only the ``latest`` items of a history are read, and of those the
    ones that weigh at least 1e-4 of the last.

    With ``similar`` an item is also counted where items like it are: ``C + spread * C similar'`` stands for ``C``, so
    that an item with few events has counts by its text.

    Args:
        max_distance: of a pair's events.
        distance_decay: weight of a pair for each event more between its two, above 0 and up to 1.
        history_decay: weight of an item of the history for each item after it, above 0 and up to 1.
        smoothing: the pseudo-count of every pair, above 0.
        latest: items of a history that are read, at most.
        similar: ``(n_items, n_items)`` weights of the items that are like the item of a row, which sum to 1, or to 0
            where there are none (:func:`similar_items`); None counts items alone.
        spread: weight of the counts of similar items, from 0.
    """

    grids = _GRIDS
    max_length = 2**31 - 1
    score_kind = ScoreKind.LOGIT
    is_evidence = True

    def __init__(
        self,
        max_distance: int = 20,
        distance_decay: float = 0.7,
        history_decay: float = 0.6,
        smoothing: float = 1.0,
        latest: int = 50,
        similar: csr_array | None = None,
        spread: float = 0.0,
    ) -> None:
        if not (spread == 0 or (spread > 0 and similar is not None)):
            raise DeshiError(f"Pairwise got spread={spread}, expected 0, or similar items and a weight above 0.")
        if max_distance < 1 or latest < 1 or smoothing <= 0:
            raise DeshiError(
                f"Pairwise got max_distance={max_distance}, latest={latest} and smoothing={smoothing}, expected both "
                "from 1 and a smoothing above 0."
            )
        if not (0 < distance_decay <= 1 and 0 < history_decay <= 1):
            raise DeshiError(
                f"Pairwise got distance_decay={distance_decay} and history_decay={history_decay}, expected both above "
                "0 and up to 1."
            )
        self.max_distance, self.distance_decay = max_distance, distance_decay
        self.history_decay, self.smoothing, self.latest = history_decay, smoothing, latest
        self.similar, self.spread = similar, spread

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that :meth:`search` chooses."""
        return {
            "max_distance": self.max_distance,
            "distance_decay": self.distance_decay,
            "history_decay": self.history_decay,
            "smoothing": self.smoothing,
        } | ({} if self.similar is None else {"spread": self.spread})

    def _set(self, settings: dict[str, Any]) -> None:
        counted = self.max_distance, self.distance_decay
        vars(self).update(settings)
        if (self.max_distance, self.distance_decay) != counted:
            self.counts = self._count()
        self._smooth()

    def _fit(self, events: Events) -> None:
        self.events = events
        self.counts = self._count()
        self._smooth()

    def _count(self) -> csr_array:
        events = self.events
        return count_pairs(events.users, events.items, events.n_items, self.distance_weights())

    def _smooth(self) -> None:
        self.joined = self._spread(self.counts)
        self._read(self._smoothed(self.joined))

    def _read(self, table: csr_array) -> None:
        """Let scores be read from this table."""
        self._table = table
        n_entries = table.shape[0] ** 2
        is_full = n_entries <= _FULL_ENTRIES and table.nnz > _FULL_SHARE * n_entries
        self._full = torch.from_numpy(self._table.toarray()) if is_full else None

    def distance_weights(self) -> Floats:
        """``(max_distance,)`` the weight of a pair by its distance, the nearest first."""
        return self.distance_decay ** np.arange(self.max_distance, dtype=np.float64)

    def _spread(self, counts: csr_array) -> csr_array:
        """Counts ``(K, n_items)`` joined by those of similar items."""
        if self.similar is None or not self.spread:
            return counts
        joined = counts + self.spread * (counts @ self.similar.T)
        joined.data = without(joined.data, 0.0)
        return joined

    def _smoothed(self, counts: csr_array) -> csr_array:
        """``log(1 + C / smoothing)`` float32; zeros stay zeros."""
        return csr_array((self._log(counts.data), counts.indices, counts.indptr), shape=counts.shape)

    def _log(self, counts: Floats) -> Float32s:
        return np.log1p(counts / self.smoothing).astype(np.float32)

    @property
    def table(self) -> csr_array:
        """``(n_items, n_items)`` float32, ``log(1 + C / smoothing)``, without zeros."""
        return self._table

    def pruned(self, best: int) -> Pairwise:
        """The same with a table of each row's ``best`` highest entries, rounded to half precision.

        Of equal entries those of the lower indices stay. It scores histories; it doesn't leave users out.
        """
        kept = greatest(self._table, best)
        values = kept.data.astype(np.float16).astype(np.float32)
        served = csr_array((values, kept.indices, kept.indptr), shape=kept.shape, copy=True)  # changed in place below
        served.eliminate_zeros()
        pruned = copy(self)
        pruned._read(served)
        return pruned

    def history_weights(self) -> Array:
        """``(D,)`` float64: the weights of a history's latest items before they are normalised, the last item first."""
        depth = self.latest
        if self.history_decay < 1:
            depth = min(depth, 1 + math.floor(math.log(_LEAST_WEIGHT) / math.log(self.history_decay)))
        return self.history_decay ** np.arange(depth)

    def sparse_scores(self, batch: Batch) -> csr_array | Tensor:
        """See :meth:`deshi.baselines.SearchedBaseline.sparse_scores`."""
        return self._pooled(*self._weighted(batch, torch.arange(len(batch.items)), batch.lengths - 1))

    @torch.no_grad()
    def position_scores(self, batch: Batch, where: Tensor) -> Tensor:
        """See :meth:`~deshi.models.scorers.Scorer.position_scores`."""
        return full(self._pooled(*self._weighted(batch, *where.nonzero(as_tuple=True))))

    def leave_user_out(self) -> Scorer:
        """Scores of every history by counts without those of its user, exactly."""
        return LeaveUserOut(self)

    def item_vectors(self) -> NDArray[np.float32]:
        """``(n_items, D)`` the counts decomposed: what items occur near each other in histories points one way.

        The ``D`` (at most 64) leading eigenvectors of the symmetric smoothed counts ``T + T'``, whose rows and columns
        are divided by the roots of their sums so that popular items don't rule; each eigenvector is scaled with the
        root of its value, and each item's vector to length 1. Items without a pair have zeros.
        """
        symmetric = self._table.astype(np.float64) + self._table.T.astype(np.float64)
        totals = np.asarray(symmetric.sum(axis=1)).ravel()
        scale = diags_array(1 / np.sqrt(np.where(totals > 0, totals, 1.0)))
        size = min(_VECTOR_SIZE, self.n_items - 1)
        # a fixed first vector: the same counts give the same vectors
        values, vectors = eigsh(scale @ symmetric @ scale, k=size, v0=np.ones(self.n_items), which="LA")
        vectors = vectors * np.sqrt(values.clip(min=0))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = np.where((totals > 0)[:, None], vectors / lengths.clip(min=1e-12), 0.0)
        return vectors.astype(np.float32)

    def _pooled(self, offsets: Ints, items: Ints, weights: Float32s) -> csr_array | Tensor:
        if self._full is not None:
            return _weighted_rows(self._full, offsets, items, weights)
        return csr_array((weights, items, offsets), shape=(len(offsets) - 1, self._table.shape[0])) @ self._table

    def _weighted(self, batch: Batch, rows: Tensor, last: Tensor) -> tuple[Ints, Ints, Float32s]:
        """The items that are read at positions ``last`` ``(P,)`` of histories ``rows`` ``(P,)``.

        Returns:
            offsets ``(P + 1,)``, items, and their normalised weights float32, each position's latest item first.
        """
        offsets, items, weights = latest_items(batch, rows, last, self.history_weights())
        return offsets, items, weights.astype(np.float32)


class LeaveUserOut(Scorer):
    """The scores of :class:`Pairwise` with the pairs of the history's own user taken out of the counts.

    A user's training pairs hold the answers to that user's training positions. Taken out before the logarithm, the
    counts are exactly those of all other users. It answers for the users of the bundle (``batch.users``).

    Args:
        pairwise: fitted.
    """

    def __init__(self, pairwise: Pairwise) -> None:
        self.n_items, self.max_length, self.score_kind = pairwise.n_items, pairwise.max_length, pairwise.score_kind
        self.is_evidence, self._pairwise = True, pairwise
        events = pairwise.events
        self._offsets = offsets_of(np.bincount(events.users, minlength=events.n_users))

    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32."""
        return self._scores(batch, torch.arange(len(batch.items)), batch.lengths - 1)

    def position_scores(self, batch: Batch, where: Tensor) -> Tensor:
        """See :meth:`~deshi.models.scorers.Scorer.position_scores`."""
        return self._scores(batch, *where.nonzero(as_tuple=True))

    def _scores(self, batch: Batch, rows: Tensor, last: Tensor) -> Tensor:
        offsets, items, weights = self._pairwise._weighted(batch, rows, last)
        users = batch.users.cpu().numpy()[rows.cpu().numpy()]
        # a row of the table for each pair of user and item that is read, instead of one for each item
        keys, numbers = np.unique(np.repeat(users, np.diff(offsets)) * self.n_items + items, return_inverse=True)
        own, full_table = self._own_pairs(keys), self._pairwise._full
        if full_table is not None:
            return _weighted_rows(self._without_in_full(full_table, keys, own), offsets, numbers, weights)
        others = subtract_pairs(self._pairwise.counts[keys % self.n_items], own)
        table = self._pairwise._smoothed(self._pairwise._spread(others))
        return full(csr_array((weights, numbers, offsets), shape=(len(offsets) - 1, len(keys))) @ table)

    def _own_pairs(self, keys: Ints) -> csr_array:
        """``(K, n_items)`` the counts of the pairs that begin with a key's item in the history of the key's user."""
        pairwise, events, n_items = self._pairwise, self._pairwise.events, self.n_items
        users = np.unique(keys // n_items)
        rows = range_rows(self._offsets[users], self._offsets[users + 1])
        event_keys = events.users[rows] * n_items + events.items[rows]
        numbers = np.searchsorted(keys, event_keys).clip(max=len(keys) - 1)
        numbers = np.where(keys[numbers] == event_keys, numbers, len(keys))  # a last row for what is not read
        return count_pairs(
            events.users[rows], events.items[rows], n_items, pairwise.distance_weights(), numbers, len(keys) + 1
        )[:-1]  # fmt: skip

    def _without_in_full(self, table: Tensor, keys: Ints, own: csr_array) -> Tensor:
        """``(K, n_items)`` the keys' rows of the full table, with the entries of their users' pairs counted anew."""
        items, part = keys % self.n_items, self._pairwise._spread(own)
        row, column = part.nonzero()
        everybody = np.asarray(self._pairwise.joined[items[row], column]).ravel()
        rows = table[torch.from_numpy(items)]
        rows[row, column] = torch.from_numpy(self._pairwise._log(without(everybody, part.data)))
        return rows


def similar_items(vectors: Tensor, neighbours: int) -> csr_array:
    """``(n_items, n_items)`` the items nearest to each by the cosine of their vectors, weighted by its seventh power.

    Args:
        vectors: ``(n_items, D)``; a vector of zeros is like none.
        neighbours: items a row, at most; none of them is the item itself.

    Returns:
        float64, rows that sum to 1, or to 0 where no cosine is above 0.
    """
    unit, rows = torch.nn.functional.normalize(vectors.float(), dim=1), list[csr_array]()
    kept = min(neighbours, len(unit) - 1)
    for first in range(0, len(unit), _BLOCK):
        cosines = unit[first : first + _BLOCK] @ unit.T
        numbers = torch.arange(len(cosines))
        cosines[numbers, first + numbers] = 0.0
        values, columns = cosines.clamp_(min=0.0).topk(kept, dim=1)
        weights = values.double() ** _SHARPNESS
        weights /= weights.sum(1, keepdim=True).clamp(min=1e-12)
        entries = weights.flatten().numpy(), (numbers.repeat_interleave(kept).numpy(), columns.flatten().numpy())
        rows.append(csr_array(entries, shape=(len(cosines), len(unit))))
    table = csr_array(vstack(rows))
    table.eliminate_zeros()
    return table


def _weighted_rows(table: Tensor, offsets: Ints, rows: Ints, weights: Float32s) -> Tensor:
    """``(P, N)`` the weighted sums of rows of a table, those of each position standing together."""
    return torch.nn.functional.embedding_bag(
        torch.from_numpy(rows.astype(np.int64)), table, torch.from_numpy(offsets[:-1]), mode="sum",
        per_sample_weights=torch.from_numpy(weights),
    )  # fmt: skip

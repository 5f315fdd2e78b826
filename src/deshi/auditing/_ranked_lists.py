"""Ranked lists of users, with the ranks of ties."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from deshi.arrays import Array, Floats, Ints, offsets_of

NOTHING = -1
"""Stands for a row or item that isn't there."""


@dataclass(frozen=True, eq=False)
class RankedLists:
    """Ranked lists, sorted by user and from the best to the worst; an item that a list repeats counts once.

    Attributes:
        rows: ``user``, ``item``, ``line`` Int64, and ``score`` Float64 (higher is better).
        offsets: ``(users + 1,)`` int64.
        best: ``(P,)`` float64, the rank within the list with ties counted in favour, from 1.
        worst: ``(P,)`` float64, the rank with ties counted against.
        n_items: size of the item catalogue.
        repeated: lines of the predictions that repeat an item of their user, which are left out.
    """

    rows: pl.DataFrame
    offsets: Ints
    best: Floats
    worst: Floats
    n_items: int
    repeated: Ints

    @classmethod
    def of(cls, predictions: pl.DataFrame, n_users: int, n_items: int) -> RankedLists:
        """Rank each user's items by score; NaN comes last, equal scores keep the order of the file."""
        # adding zero makes -0.0 and 0.0 one score
        score = pl.col("score").fill_nan(-np.inf) + 0.0
        ordered = predictions.select("user", "item", "line", score.alias("score"))
        ordered = ordered.sort("user", "score", descending=[False, True], maintain_order=True)
        first = ordered.select(pl.struct("user", "item").is_first_distinct()).to_series()
        rows = ordered.filter(first)
        rank = -pl.col("score")
        ranks = rows.select(best=rank.rank("min").over("user"), worst=rank.rank("max").over("user")).cast(pl.Float64)
        offsets = offsets_of(np.bincount(rows["user"].to_numpy(), minlength=n_users))
        repeated = ordered.filter(~first)["line"].to_numpy()
        return cls(rows, offsets, ranks["best"].to_numpy(), ranks["worst"].to_numpy(), n_items, repeated)

    @cached_property
    def user(self) -> Ints:
        """``(P,)``: whose list the row is of."""
        return self.rows["user"].to_numpy()

    @cached_property
    def item(self) -> Ints:
        """``(P,)``: the item of the row."""
        return self.rows["item"].to_numpy()

    @property
    def lengths(self) -> Ints:
        """``(users,)``: how many items each user's list has."""
        return np.diff(self.offsets)

    @cached_property
    def mean(self) -> Floats:
        """``(P,)``: the mean rank of ties."""
        return (self.best + self.worst) / 2

    @cached_property
    def reversed(self) -> Floats:
        """``(P,)``: the mean rank if lower scores were better."""
        return self.lengths[self.user] + 1 - self.mean

    @cached_property
    def _keys(self) -> tuple[Ints, Ints]:
        keys = self.user * self.n_items + self.item
        order = np.argsort(keys, kind="stable")
        return keys[order], order

    def rows_of(self, users: Array, items: Array) -> Ints:
        """The row at which each user's list has the item; :data:`NOTHING` where it doesn't."""
        keys, order = self._keys
        if not len(keys):
            return np.full(len(users), NOTHING)
        targets = users * self.n_items + items
        rows = np.minimum(np.searchsorted(keys, targets), len(keys) - 1)
        listed = (keys[rows] == targets) & (items >= 0) & (users >= 0)
        return np.where(listed, order[rows], NOTHING)

    def ranks_of(self, users: Array, items: Array, ranks: Floats | None = None) -> Floats:
        """The rank of each item in the user's list, infinite where it isn't there: mean ranks, or of ``ranks``."""
        rows = self.rows_of(users, items)
        values = np.append(self.mean if ranks is None else ranks, np.inf)  # the last is that of NOTHING
        return values[rows]

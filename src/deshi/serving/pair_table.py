"""Transition counts of item pairs beside a student: the sparse table of a serving bundle, read with numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deshi.arrays import Floats, Ints

MAX_WEIGHT = 10.0
"""Of the counts against the student, whose weight is 1."""


@dataclass(frozen=True, eq=False)
class PairTable:
    """What counts add to the scores after a history: ``weight`` times the pooled rows of its latest items.

    The formula is that of :class:`deshi.baselines.Pairwise`; rows are pruned and in half precision.

    Attributes:
        offsets: ``(n_items + 1,)`` where the row of each item begins in ``items`` and ``values``.
        items: ``(E,)`` unsigned, the items that followed it, in index order.
        values: ``(E,)`` float16, ``log(1 + C / smoothing)``.
        history_weights: ``(D,)`` float64, of a history's latest items before they are normalised, the last item first.
        weight: of the pooled rows in the sum with the student's scores.
    """

    offsets: Ints
    items: NDArray[np.unsignedinteger]
    values: NDArray[np.float16]
    history_weights: Floats
    weight: float

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, NDArray[Any]], weight: float) -> PairTable:
        """The table of a bundle's file.

        Raises:
            KeyError: if a tensor is missing.
        """
        return cls(tensors["offsets"], tensors["items"], tensors["values"], tensors["history_weights"], weight)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, for the bundle's file."""
        return {
            "offsets": self.offsets,
            "items": self.items,
            "values": self.values,
            "history_weights": self.history_weights,
        }

    def problem(self, n_items: int) -> str | None:
        """What makes it no table of ``n_items`` items; None if it is one."""
        size = len(self.items)
        kinds = "".join(array.dtype.kind for array in self.tensors().values())
        if kinds != "iuff":
            return f"holds offsets, items, values and history_weights of the kinds {kinds}, expected iuff"
        if self.offsets.shape != (n_items + 1,) or self.values.shape != self.items.shape or self.items.ndim != 1:
            shapes = self.offsets.shape, self.items.shape, self.values.shape
            return f"holds offsets, items and values of shapes {', '.join(map(str, shapes))} for {n_items} items"
        if self.offsets[0] != 0 or self.offsets[-1] != size or (np.diff(self.offsets) < 0).any():
            return f"has offsets that don't divide its {size} entries"
        if size and int(self.items.max()) >= n_items:
            return f"names the item {int(self.items.max())} of {n_items}"
        if not (len(self.history_weights) and (self.history_weights > 0).all() and np.isfinite(self.values).all()):
            return "holds numbers that are no weights or values"
        return None

    def add_to(self, scores: NDArray[np.float32], history: Ints) -> None:
        """Add to the scores ``(n_items,)`` after a history, oldest item first and not empty."""
        items, values = self._entries(history)
        scores += np.bincount(items, values, len(scores)).astype(np.float32)

    def sums(self, history: Ints) -> tuple[Ints, NDArray[np.float32]]:
        """The distinct items that a history's rows name, in index order, and what each is given."""
        items, values = self._entries(history)
        distinct, numbers = np.unique(items, return_inverse=True)
        return distinct.astype(np.int64), np.bincount(numbers, values, len(distinct)).astype(np.float32)

    def _entries(self, history: Ints) -> tuple[NDArray[np.unsignedinteger], Floats]:
        """The entries of the rows of a history's latest items, weighted; an item may stand in several rows."""
        latest = history[::-1][: len(self.history_weights)]
        weights = self.history_weights[: len(latest)]
        rows = [slice(*self.offsets[item : item + 2].tolist()) for item in latest]
        items = np.concatenate([self.items[row] for row in rows])
        values = np.concatenate([self.values[row] for row in rows])
        lengths = [row.stop - row.start for row in rows]
        return items, np.repeat(self.weight / weights.sum() * weights, lengths) * values

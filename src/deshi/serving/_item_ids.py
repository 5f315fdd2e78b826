"""The items' ids and titles by index, and their indices by id, without an object in memory for each of millions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from deshi.arrays import Ints

AS_OBJECTS = 1_000_000
"""Up to so many ids are held as Python's own texts in a dictionary, which is faster and takes some 200 bytes each."""


class ItemIds:
    """Ids of a vocabulary.

    Above :data:`AS_OBJECTS` ids they stay in Polars' column, and an index is looked up by the hash of the id in a
    sorted array: 12 bytes an id.

    Args:
        ids: ``(n_items,)`` distinct texts in index order.
    """

    def __init__(self, ids: pl.Series) -> None:
        self._ids = ids
        self._index: dict[str, int] | None = None
        if len(ids) <= AS_OBJECTS:
            self._index = {item_id: index for index, item_id in enumerate(ids.to_list())}
            return
        hashes = ids.hash().to_numpy()
        self._order = hashes.argsort(kind="stable").astype(np.uint32)
        self._hashes = hashes[self._order]

    def indices(self, ids: Sequence[str]) -> Ints:
        """``(len(ids),)`` int64, -1 for ids that aren't in the vocabulary."""
        if self._index is not None:
            return np.array([self._index.get(item_id, -1) for item_id in ids], dtype=np.int64)
        if not len(ids):
            return np.zeros(0, dtype=np.int64)
        texts = pl.Series(ids, dtype=pl.String)
        hashes = texts.hash().to_numpy()
        indices = np.full(len(ids), -1, dtype=np.int64)
        positions = np.searchsorted(self._hashes, hashes)
        open_ = np.arange(len(ids))
        while len(open_):  # a second round only for ids of equal hashes
            open_ = open_[positions[open_] < len(self._hashes)]
            open_ = open_[self._hashes[positions[open_]] == hashes[open_]]
            candidates = self._order[positions[open_]].astype(np.int64)
            is_same = (self._ids.gather(candidates) == texts.gather(open_)).to_numpy()
            indices[open_[is_same]] = candidates[is_same]
            open_ = open_[~is_same]
            positions[open_] += 1
        return indices

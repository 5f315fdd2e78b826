"""The best items of states by blocks of the item table, whose numbers may be stored in half precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deshi.arrays import Bools, Ints

ScoredItems = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Distinct items, and a score of each."""

BLOCK_ITEMS = 32_768
"""Items scored at a time."""


def row_norms(table: NDArray[np.floating]) -> NDArray[np.float32]:
    """``(n_items,)`` the lengths of the rows, 1 for rows of zeros."""
    norms = np.empty(len(table), dtype=np.float32)
    for first in range(0, len(table), BLOCK_ITEMS):
        norms[first : first + BLOCK_ITEMS] = np.linalg.norm(_block(table, first), axis=1)
    return np.where(norms > 0, norms, np.float32(1.0))


def scores_of_all(hidden: NDArray[np.float32], table: NDArray[np.floating]) -> NDArray[np.float32]:
    """``hidden @ table.T`` ``(B, n_items)`` in fp32."""
    if table.dtype == np.float32:
        return hidden @ table.T
    scores = np.empty((len(hidden), len(table)), dtype=np.float32)
    for first in range(0, len(table), BLOCK_ITEMS):
        block = _block(table, first)
        scores[:, first : first + len(block)] = hidden @ block.T
    return scores


def best_by_blocks(
    hidden: NDArray[np.float32], table: NDArray[np.floating], k: int, left_out: Sequence[Ints],
    allowed: Bools | None = None, added: Sequence[ScoredItems] | None = None,
) -> list[ScoredItems]:  # fmt: skip
    """The ``k`` best items of each state, best first, equal scores by index; never all scores at once.

    Args:
        hidden: ``(B, dim)`` states.
        table: ``(n_items, dim)``, fp32 or fp16; products are in fp32.
        k: length of the lists.
        left_out: of each state the indices that may not be in its list.
        allowed: ``(n_items,)`` what may be in a list; None is everything.
        added: what a second score gives to some items of each state, in index order.

    Returns:
        for each state items ``(<= k,)`` int64 and their scores.
    """
    none = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    best: list[ScoredItems] = [none] * len(hidden)
    excluded = [np.unique(indices) for indices in left_out]
    for first in range(0, len(table), BLOCK_ITEMS):
        scores = hidden @ _block(table, first).T
        end = first + scores.shape[1]
        if allowed is not None:
            scores[:, ~allowed[first:end]] = -np.inf
        for row, row_scores in enumerate(scores):
            if added is not None:
                items, values = added[row]
                inside = slice(*np.searchsorted(items, (first, end)).tolist())
                row_scores[items[inside] - first] += values[inside]
            row_scores[_inside(excluded[row], first, end)] = -np.inf
            best[row] = _merged(best[row], row_scores, first, k)
    return best


def _block(table: NDArray[np.floating], first: int) -> NDArray[np.float32]:
    return table[first : first + BLOCK_ITEMS].astype(np.float32, copy=False)


def _inside(items: Ints, first: int, end: int) -> Ints:
    """Those of the sorted items that lie in the block, as numbers in it."""
    return items[slice(*np.searchsorted(items, (first, end)).tolist())] - first


def _merged(best: ScoredItems, scores: NDArray[np.float32], first: int, k: int) -> ScoredItems:
    """The best items so far and a later block's; of equal scores the earlier items stay."""
    items, values = best
    level = values[-1] if len(items) == k else np.float32(-np.inf)
    better = np.flatnonzero(scores > level)
    if not len(better):
        return best
    if len(better) > 4 * k:  # a selection in linear time before the sort
        threshold = np.partition(scores[better], len(better) - k)[len(better) - k]
        better = better[scores[better] >= threshold]
    items = np.concatenate([items, better + first])
    values = np.concatenate([values, scores[better]])
    order = np.lexsort((items, -values))[:k]
    return items[order], values[order]

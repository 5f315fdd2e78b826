"""Decayed counts of the item pairs that occur in users' histories, as a sparse matrix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array, csr_array

from deshi.arrays import Floats, Ints

_PAIRS = 20_000_000
"""Pairs that are added up at a time: half a gigabyte."""
_SMALL = 50_000_000
"""Entries of a table that is counted in full: 400 MB."""
_DECIMALS = 9
"""Counts are rounded to so many decimals: sums of the same decays in another order are equal, and ties stay ties."""


def count_pairs(
    users: Ints, items: Ints, n_items: int, weights: Floats, rows: Ints | None = None, n_rows: int = 0
) -> csr_array:
    """``C[i, j]``: the sum over pairs of events of one user, ``i`` before ``j``, of the weight of their distance.

    Args:
        users: ``(E,)`` of each event, a user's events together and oldest first.
        items: ``(E,)`` of each event.
        n_items: of the catalogue.
        weights: ``(D,)`` of a pair whose second event is the first, second, ... after its first; 0 beyond.
        rows: ``(E,)`` the row that an event counts in as the first of a pair; None is its item.
        n_rows: number of rows, where ``rows`` are given.

    Returns:
        ``(n_items or n_rows, n_items)`` float64, without zeros.
    """
    rows, shape = (items, (n_items, n_items)) if rows is None else (rows, (n_rows, n_items))
    if shape[0] * shape[1] <= _SMALL:  # a full table is ten times as fast as a sparse sum
        table = np.zeros(shape[0] * shape[1])
        for first, second, values in _blocks(users, weights):
            table += np.bincount(rows[first] * n_items + items[second], values, len(table))
        return csr_array(table.round(_DECIMALS).reshape(shape))
    total = csr_array(shape, dtype=np.float64)
    for first, second, values in _blocks(users, weights):
        total = total + coo_array((values, (rows[first], items[second])), shape=shape).tocsr()
    total.data = total.data.round(_DECIMALS)
    total.eliminate_zeros()
    return total


def subtract_pairs(counts: csr_array, part: csr_array) -> csr_array:
    """Counts without those of some events that were counted in, exactly as if they never had been."""
    left = counts - part
    left.data = without(left.data, 0.0)
    left.eliminate_zeros()
    return left


def without(counts: Floats, part: Floats | float) -> Floats:
    """Counts ``(E,)`` less a part of them, rounded as counts are."""
    return (counts - part).round(_DECIMALS).clip(min=0.0)


def _blocks(users: Ints, weights: Floats) -> Iterator[tuple[Ints, Ints, Floats]]:
    """The pairs with their weights, in blocks: the events' numbers of the first and the second of each."""
    firsts: list[Ints] = []
    seconds: list[Ints] = []
    values: list[Floats] = []
    size = 0
    for distance, weight in enumerate(weights.tolist(), start=1):
        if distance >= len(users) or round(weight, _DECIMALS) == 0:
            break
        first = np.flatnonzero(users[distance:] == users[:-distance])
        firsts.append(first)
        seconds.append(first + distance)
        values.append(np.full(len(first), weight))
        size += len(first)
        if size > _PAIRS:
            yield np.concatenate(firsts), np.concatenate(seconds), np.concatenate(values)
            firsts, seconds, values, size = [], [], [], 0
    if size:
        yield np.concatenate(firsts), np.concatenate(seconds), np.concatenate(values)

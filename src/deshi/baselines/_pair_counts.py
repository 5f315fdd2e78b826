"""Decayed counts of the item pairs that occur in users' histories, as a sparse matrix."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array, csr_array, vstack

from deshi.arrays import Floats, Ints, offsets_of, row_blocks

log = logging.getLogger(__name__)

_PAIRS = 20_000_000
"""Pairs that are added up at a time: half a gigabyte."""
_SMALL = 50_000_000
"""Entries of a table that is counted in full: 400 MB."""
_ENTRIES = 200_000_000
"""Entries that the rows of a large catalogue may have together: 2.4 GB."""
_LEAST_KEPT = 200
"""Entries that every row may have, whatever the catalogue."""
_DECIMALS = 9
"""Counts are rounded to so many decimals: sums of the same decays in another order are equal, and ties stay ties."""


def count_pairs(
    users: Ints, items: Ints, n_items: int, weights: Floats, rows: Ints | None = None, n_rows: int = 0
) -> csr_array:
    """``C[i, j]``: the sum over pairs of events of one user, ``i`` before ``j``, of the weight of their distance.

    Rows of the whole catalogue keep their greatest counts, as many as a catalogue of that size allows: all of them up
    to 14,142 items, 3,333 at 60,000, 200 from a million. Of equal counts those of the lower indices stay.

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
    if rows is None and n_items**2 > _SMALL:
        return _count_by_items(users, items, n_items, weights)
    rows, n_rows = (items, n_items) if rows is None else (rows, n_rows)
    return _count(users, items, n_items, weights, np.arange(len(users)), rows, slice(0, n_rows))


def _count_by_items(users: Ints, items: Ints, n_items: int, weights: Floats) -> csr_array:
    """The rows of some items at a time, so that their pairs fit into memory, however many all are."""
    most = max(_LEAST_KEPT, _ENTRIES // n_items)
    by_item = np.argsort(items, kind="stable")
    offsets = offsets_of(np.bincount(items, minlength=n_items))
    parts, shortened = [], 0
    for part in row_blocks(offsets, max(1, _PAIRS // len(weights))):
        events = by_item[offsets[part.start] : offsets[part.stop]]
        table = _count(users, items, n_items, weights, events, items, part)
        shortened += int(np.count_nonzero(np.diff(table.indptr) > most))
        parts.append(greatest(table, most))
    if shortened:
        log.info(
            "counts of item pairs: %d of %d items keep their %d greatest counts, the others all of theirs",
            shortened, n_items, most,
        )  # fmt: skip
    return csr_array(vstack(parts, format="csr"))


def _count(users: Ints, items: Ints, n_items: int, weights: Floats, events: Ints, rows: Ints, part: slice) -> csr_array:
    """The counts of the pairs that begin with some events ``(F,)``, whose ``rows`` ``(E,)`` are all in ``part``."""
    n_rows = part.stop - part.start
    shape = n_rows, n_items
    if n_rows * n_items <= _SMALL:  # a full table is ten times as fast as a sparse sum
        full = np.zeros(n_rows * n_items)
        for first, second, values in _blocks(users, events, weights):
            full += np.bincount((rows[first] - part.start) * n_items + items[second], values, len(full))
        return csr_array(full.round(_DECIMALS).reshape(shape))
    total = csr_array(shape, dtype=np.float64)
    for first, second, values in _blocks(users, events, weights):
        # int64 would stay int64 in the sum
        row, column = (rows[first] - part.start).astype(np.int32), items[second].astype(np.int32)
        total = total + coo_array((values, (row, column)), shape=shape).tocsr()
    total.data = total.data.round(_DECIMALS)
    total.eliminate_zeros()
    return total


def greatest(table: csr_array, most: int) -> csr_array:
    """The ``most`` greatest entries of every row; of equal ones those of the lower columns."""
    sizes = np.diff(table.indptr)
    if not (sizes > most).any():
        return table
    rows = np.repeat(np.arange(len(sizes)), sizes)
    # each row's entries by falling value, then by column: the place of an entry in its row decides
    order = np.lexsort((table.indices, -table.data, rows))
    kept = np.sort(order[np.arange(len(order)) - table.indptr[rows] < most])
    offsets = offsets_of(np.minimum(sizes, most)).astype(table.indptr.dtype)
    return csr_array((table.data[kept], table.indices[kept], offsets), shape=table.shape)


def subtract_pairs(counts: csr_array, part: csr_array) -> csr_array:
    """Counts without those of some events that were counted in, exactly as if they never had been."""
    left = counts - part
    left.data = without(left.data, 0.0)
    left.eliminate_zeros()
    return left


def without(counts: Floats, part: Floats | float) -> Floats:
    """Counts ``(E,)`` less a part of them, rounded as counts are."""
    return (counts - part).round(_DECIMALS).clip(min=0.0)


def _blocks(users: Ints, first: Ints, weights: Floats) -> Iterator[tuple[Ints, Ints, Floats]]:
    """The pairs that begin with some events, in blocks: the events' numbers of both, and their weights."""
    firsts: list[Ints] = []
    seconds: list[Ints] = []
    values: list[Floats] = []
    size = 0
    for distance, weight in enumerate(weights.tolist(), start=1):
        if round(weight, _DECIMALS) == 0:
            break
        # an event without a next one of its user so far on has none farther on
        first = first[first < len(users) - distance]
        first = first[users[first + distance] == users[first]]
        firsts.append(first)
        seconds.append(first + distance)
        values.append(np.full(len(first), weight))
        size += len(first)
        if size > _PAIRS:
            yield np.concatenate(firsts), np.concatenate(seconds), np.concatenate(values)
            firsts, seconds, values, size = [], [], [], 0
    if size:
        yield np.concatenate(firsts), np.concatenate(seconds), np.concatenate(values)

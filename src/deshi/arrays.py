"""Array types, and the arithmetic of ragged arrays: flat values, and the offset at which each row of them begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]
Bools = NDArray[np.bool_]
Array = NDArray[Any]
"""An array of any dtype, such as item indices that a bundle stores as int32."""

BLOCKWISE_ABOVE = 200_000
"""Catalogues above this size are scored block by block, in training, evaluation and serving; smaller ones at once."""

BLOCK = 1 << 21
"""Elements that are worked on at a time where temporary arrays as long as all events would take gigabytes."""


def offsets_of(counts: Array | Sequence[int]) -> Ints:
    """``(R + 1,)`` where each of ``R`` rows begins in their flat values, and where the last one ends.

    Args:
        counts: ``(R,)`` the length of each row.
    """
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(np.asarray(counts, dtype=np.int64), out=offsets[1:])
    return offsets


def range_rows(starts: Array, ends: Array) -> Ints:
    """``(sum of lengths,)`` all positions of the ranges ``starts[r] .. ends[r] - 1``, one range after the other.

    Args:
        starts: ``(R,)`` flat positions.
        ends: ``(R,)`` one past the last; a range that ends before it starts holds nothing.
    """
    lengths = np.maximum(ends - starts, 0)
    # a position counted over all ranges, minus the positions of the ranges before, plus its range's start
    return np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)


def blocks(size: int, length: int = BLOCK) -> Iterator[slice]:
    """The positions ``0 .. size - 1`` as slices of ``length`` positions, the last one shorter."""
    for begin in range(0, size, length):
        yield slice(begin, min(begin + length, size))


def row_blocks(offsets: Ints, length: int = BLOCK) -> Iterator[slice]:
    """Whole rows of a ragged array, as slices of row numbers that hold up to ``length`` flat values each.

    Args:
        offsets: ``(R + 1,)``, see :func:`offsets_of`.
        length: of flat values; a longer row is a slice of its own.
    """
    begin, rows = 0, len(offsets) - 1
    while begin < rows:
        end = max(int(np.searchsorted(offsets, offsets[begin] + length, side="right")) - 1, begin + 1)
        yield slice(begin, min(end, rows))
        begin = end


def count_codes(codes: Array, size: int, chosen: Bools | None = None) -> Ints:
    """``(size,)`` how often each of the codes ``0 .. size - 1`` occurs: ``np.bincount``, which makes an int64 copy.

    Args:
        codes: ``(N,)`` of any integer type.
        size: number of codes.
        chosen: ``(N,)`` which of them count; None: all.
    """
    counts = np.zeros(size, dtype=np.int64)
    for block in blocks(len(codes), max(BLOCK, size)):  # so that adding the counts takes no longer than counting
        part = codes[block] if chosen is None else codes[block][chosen[block]]
        counts += np.bincount(part, minlength=size)
    return counts


def take(table: Array, codes: Array) -> Array:
    """``table[codes]``, without the int64 copy that numpy makes of other integers.

    Args:
        table: ``(size,)``.
        codes: ``(N,)`` of any integer type.
    """
    values = np.empty(len(codes), dtype=table.dtype)
    for block in blocks(len(codes)):
        values[block] = table[codes[block]]
    return values

"""Array types, and the arithmetic of ragged arrays: flat values, and the offset at which each row of them begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]
Bools = NDArray[np.bool_]
Array = NDArray[Any]
"""An array of any dtype, such as item indices that a bundle stores as int32."""


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

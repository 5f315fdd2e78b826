"""The arithmetic of ragged arrays."""

from __future__ import annotations

import numpy as np

from deshi.arrays import offsets_of, range_rows


def test_offsets_begin_at_0_and_end_with_the_number_of_values() -> None:
    """Every ragged array of the tree is cut by them; marks are counted as well, and no rows have one offset."""
    assert offsets_of([2, 0, 3]).tolist() == [0, 2, 2, 5]
    assert offsets_of(np.array([True, False, True])).tolist() == [0, 1, 1, 2]
    assert offsets_of([]).tolist() == [0]
    assert offsets_of(np.array([1], dtype=np.uint32)).dtype == np.int64


def test_the_rows_of_ranges_follow_each_other() -> None:
    """Ranges may be empty or end before they begin."""
    assert range_rows(np.array([4, 0, 7, 9]), np.array([6, 1, 7, 3])).tolist() == [4, 5, 0]
    assert range_rows(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []

"""Ranges of events as marks."""

from __future__ import annotations

import numpy as np

from deshi.data.ranges import inside


def test_events_inside_ranges_are_marked_once() -> None:
    """Ranges may overlap, touch, be empty or end before they begin; each event is inside or it isn't."""
    starts, ends = np.array([0, 1, 4, 5, 7]), np.array([2, 3, 4, 3, 8])
    assert inside(starts, ends, 8).tolist() == [True, True, True, False, False, False, False, True]
    assert not inside(np.zeros(0, np.int64), np.zeros(0, np.int64), 3).any()

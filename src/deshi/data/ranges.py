"""Ranges of flat positions, one or more a user, as marks on all events."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deshi.arrays import Ints


def inside(starts: Ints, ends: Ints, n_events: int) -> NDArray[np.bool_]:
    """``(n_events,)``: which events lie in any of the ranges ``[starts[r], ends[r])``; empty ranges hold none.

    Only the ranges' edges are visited, so that it takes no longer for long ranges, and ranges may overlap.

    Args:
        starts: ``(R,)`` flat positions.
        ends: ``(R,)`` one past the last.
        n_events: number of events of the bundle.
    """
    real = ends > starts
    edges = np.zeros(n_events + 1, dtype=np.int32)
    np.add.at(edges, starts[real], 1)
    np.add.at(edges, ends[real], -1)
    # at each event, how many ranges have begun and not ended
    return np.cumsum(edges[:-1], out=edges[:-1]) > 0

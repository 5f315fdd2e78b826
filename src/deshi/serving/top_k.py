"""The best of a row of scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_of(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The indices of the ``k`` highest scores, best first, equal ones by index; none at minus infinity.

    Args:
        scores: ``(N,)`` without NaN.
        k: from 1 to ``N``.
    """
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    found = np.flatnonzero(scores >= least)  # more than k where several share the last place
    found = found[np.lexsort((found, -scores[found]))][:k]
    return found[scores[found] > -np.inf]

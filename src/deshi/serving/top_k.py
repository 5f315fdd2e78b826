"""The best items of a row of scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_of(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The indices of the ``k`` highest scores, best first, equal ones by index; none at minus infinity.

    Args:
        scores: ``(N,)`` without NaN.
        k: from 1 to ``N``.
    """
    # The k-th highest score by selection, which takes linear time; then only what reaches it is sorted, by falling
    # score and, among equals, by index. More than k items reach it where several tie with the k-th.
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    best = np.flatnonzero(scores >= threshold)
    best = best[np.lexsort((best, -scores[best]))][:k]
    return best[scores[best] > -np.inf]

"""Metrics beyond accuracy, of the lists that a ranker would show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deshi.types import PAD, DeshiError


def coverage(top_items: NDArray[np.int64], k: int, n_items: int) -> float:
    """The share of the catalogue that is in at least one user's best ``k``.

    Args:
        top_items: ``(C, K)`` item indices, best first, :data:`~deshi.types.PAD` where a list is shorter.
        k: the length of the lists that count, at most ``K``.
        n_items: the size of the catalogue.

    Returns:
        0 .. 1, NaN without any list.
    """
    if not 1 <= k <= top_items.shape[1]:
        raise DeshiError(f"coverage at {k} needs lists of {k} items, got lists of {top_items.shape[1]}.")
    shown = np.unique(top_items[:, :k])
    return float((shown != PAD).sum() / n_items) if len(top_items) else float("nan")

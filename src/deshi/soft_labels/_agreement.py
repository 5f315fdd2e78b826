"""Agreement of two ranked lists: Jaccard and rank-biased overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deshi.arrays import Floats
from deshi.types import PAD, DeshiError


def jaccard(first: NDArray[Any], second: NDArray[Any]) -> Floats:
    """Shared items over all items of two lists, whatever their order.

    Args:
        first: ``(B, D)`` item indices, each once in a row, ``PAD`` where a list is shorter.
        second: ``(B, D)`` likewise.

    Returns:
        ``(B,)`` from 0 to 1, NaN where both lists are empty.
    """
    shared = _shared(first, second)[:, -1]
    union = (first != PAD).sum(1) + (second != PAD).sum(1) - shared
    return np.where(union > 0, shared / np.maximum(union, 1), np.nan)


def rbo(first: NDArray[Any], second: NDArray[Any], persistence: float = 0.9) -> Floats:
    """Rank-biased overlap of two lists (Webber, Moffat and Zobel 2010, https://doi.org/10.1145/1852102.1852106).

    The mean share of common items in the first ``d`` places, depth ``d`` weighing ``persistence^(d-1)``. Deviation:
    the sum ends with the lists and is divided by its weights, so that equal lists give 1; there the lists are endless.

    Args:
        first: ``(B, D)`` as in :func:`jaccard`.
        second: ``(B, D)`` as in :func:`jaccard`.
        persistence: how much the next place counts, between 0 and 1.

    Returns:
        ``(B,)`` from 0 to 1, NaN where both lists are empty.
    """
    if not 0 < persistence < 1:
        raise DeshiError(f"persistence is {persistence}, expected a number between 0 and 1, such as 0.9.")
    depths = np.arange(1, first.shape[1] + 1)
    longest = np.maximum((first != PAD).sum(1), (second != PAD).sum(1))
    share = _shared(first, second) / np.maximum(np.minimum(depths, longest[:, None]), 1)
    weights = np.where(depths <= longest[:, None], persistence ** (depths - 1), 0.0)
    total = weights.sum(1)
    return np.where(total > 0, (share * weights).sum(1) / np.where(total > 0, total, 1.0), np.nan)


def _shared(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.int64]:
    """``(B, D)``: number of items that the first ``d`` places of both lists hold."""
    if first.shape != second.shape or first.ndim != 2 or first.shape[1] < 1:
        raise DeshiError(f"The lists have shapes {first.shape} and {second.shape}, expected the same (B, D) for both.")
    same = (first[:, :, None] == second[:, None, :]) & (first != PAD)[:, :, None]
    return np.asarray(np.diagonal(same.cumsum(1).cumsum(2), axis1=1, axis2=2))

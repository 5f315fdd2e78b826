"""Metrics beyond accuracy, of the lists that a model would show.

Every function takes lists ``(C, K)`` of item indices, best first, :data:`~deshi.types.PAD` on the right where a list is
shorter, and looks at the first ``k`` of each. Popularity is the number of events that were *trained on*, never of
tested ones. Formulas, and where other libraries differ, are in ``docs/metrics.md``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deshi.arrays import Float32s, Floats, Ints
from deshi.types import PAD, DeshiError

_NUMBERS = 4_000_000
"""Numbers of the largest temporary block of item vectors: 16 MB in float32."""


def coverage(top_items: Ints, k: int, n_items: int) -> float:
    """The share of the catalogue that is in at least one user's best ``k``.

    Args:
        top_items: ``(C, K)`` item indices, best first, :data:`~deshi.types.PAD` where a list is shorter.
        k: the length of the lists that count, at most ``K``.
        n_items: the size of the catalogue.

    Returns:
        0 .. 1, NaN without any list.
    """
    items = np.unique(_lists("coverage", top_items, k))
    return float((items != PAD).sum() / n_items) if len(top_items) else float("nan")


def gini(top_items: Ints, k: int, n_items: int) -> float:
    """The Gini coefficient of the items' exposure: how unequally the lists share their positions among the catalogue.

    With an item's exposure the number of lists that it is in, ascending ``x_1 <= ... <= x_n``, it is
    ``sum_i (2 i - n - 1) x_i / (n sum_i x_i)``: 0 if all items are shown equally often, ``1 - 1/n`` if one item takes
    every position. Source: Gini 1912; for recommenders Fleder and Hosanagar 2009,
    https://doi.org/10.1287/mnsc.1080.0974.

    Args:
        top_items: ``(C, K)`` as in :func:`coverage`.
        k: as in :func:`coverage`.
        n_items: the size of the catalogue; items that are never shown count with exposure 0.

    Returns:
        0 .. 1, NaN if nothing is shown.
    """
    lists = _lists("gini", top_items, k)
    exposure = np.sort(np.bincount(lists[lists != PAD], minlength=n_items))  # ascending: x_1 <= ... <= x_n
    if not exposure.sum():
        return float("nan")
    # 2 i - n - 1: the i-th item is above i - 1 others and below n - i
    weights = 2 * np.arange(1, n_items + 1) - n_items - 1
    return float((weights * exposure).sum() / (n_items * exposure.sum()))


def novelty(top_items: Ints, k: int, counts: Ints) -> Floats:
    """The mean self-information ``-log2 p(i)`` of each list's items, in bits.

    ``p(i) = (c_i + 1) / (sum_j c_j + n)``, the item's share of the training events with one event added to every item
    of the catalogue. So an item without a training event has the largest, finite information, and unseen catalogues
    don't turn the mean into infinity. Source: Zhou et al. 2010, https://doi.org/10.1073/pnas.1000488107 (there ``p`` is
    the share of users, without smoothing).

    Args:
        top_items: ``(C, K)`` as in :func:`coverage`.
        k: as in :func:`coverage`.
        counts: ``(n,)`` training events of each item of the catalogue.

    Returns:
        ``(C,)``, NaN for an empty list.
    """
    # -log2((c_i + 1) / (sum_j c_j + n)) as a difference of logarithms
    information = np.log2(counts.sum() + len(counts)) - np.log2(counts + 1.0)
    return _means(information, _lists("novelty", top_items, k))


def popularity_lift(top_items: Ints, k: int, counts: Ints, history_popularity: Floats) -> Floats:
    """How much more popular a list's items are than the items of the history that it continues.

    The mean number of training events of the list's items over that of the history's items: 1 is the user's own taste
    for popular items, 2 is twice as popular. After Abdollahpouri et al. 2020 (arXiv 2008.09273), who take the ratio of
    group means and subtract 1.

    Args:
        top_items: ``(C, K)`` as in :func:`coverage`.
        k: as in :func:`coverage`.
        counts: ``(n,)`` training events of each item of the catalogue.
        history_popularity: ``(C,)`` mean training events of the items of each example's history.

    Returns:
        ``(C,)``, NaN for an empty list, and where no item of the history has a training event.
    """
    lists = _lists("popularity_lift", top_items, k)
    denominator = np.where(history_popularity > 0, history_popularity, np.nan)
    return _means(counts.astype(np.float64), lists) / denominator


def intra_list_diversity(top_items: Ints, k: int, vectors: Float32s) -> Floats:
    """The mean of ``1 - cosine`` over all pairs of a list's items.

    Source: Ziegler et al. 2005, https://doi.org/10.1145/1060745.1060754 (there the sum of similarities); the mean
    distance after Vargas and Castells 2011, https://doi.org/10.1145/2043932.2043955. An item with a zero vector has
    cosine 0 with every other. What "different" means depends on the vectors: compare only models measured with the
    same ones.

    Args:
        top_items: ``(C, K)`` as in :func:`coverage`.
        k: as in :func:`coverage`.
        vectors: ``(n, D)`` a vector for every item of the catalogue.

    Returns:
        ``(C,)`` 0 .. 2, NaN for lists of fewer than two items.
    """
    lists = _lists("intra_list_diversity", top_items, k)
    # Unit vectors, whose inner products are cosines. A last row of zeros stands for padding: PAD = -1 indexes it.
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.concatenate([vectors / np.where(norms > 0, norms, 1), np.zeros_like(vectors[:1])])
    squares = (unit**2).sum(1)
    rows = max(1, _NUMBERS // max(1, k * vectors.shape[1]))
    diversity = np.full(len(lists), np.nan)
    for start in range(0, len(lists), rows):
        block = lists[start : start + rows]
        # |sum_i u_i|^2 = sum_i |u_i|^2 + sum_{i != j} u_i u_j: the cosines of all ordered pairs, in time linear in k
        cosines = (unit[block].sum(1).astype(np.float64) ** 2).sum(1) - squares[block].sum(1)
        size = (block != PAD).sum(1)
        pairs = size * (size - 1)
        diversity[start : start + rows] = np.where(pairs > 0, 1 - cosines / np.maximum(pairs, 1), np.nan)
    return np.clip(diversity, 0.0, 2.0)


def beyond_accuracy(
    top_items: Ints,
    ks: Sequence[int],
    counts: Ints,
    history_popularity: Floats,
    vectors: Float32s | None = None,
) -> dict[str, float]:
    """Gini and the means over the examples that have a value at every K, such as ``gini@10``.

    Args:
        top_items: ``(C, K)`` with ``K`` at least ``max(ks)``.
        ks: the list lengths.
        counts: ``(n,)`` training events of each item.
        history_popularity: ``(C,)`` see :func:`popularity_lift`.
        vectors: ``(n, D)`` item vectors; without them there is no ``ild@K``.

    Returns:
        ``gini``, ``novelty``, ``popularity_lift`` and ``ild``; what no example has (``ild@1``) is left out.
    """
    metrics: dict[str, float] = {}
    for k in ks:
        metrics[f"gini@{k}"] = gini(top_items, k, len(counts))
        metrics[f"novelty@{k}"] = _mean(novelty(top_items, k, counts))
        metrics[f"popularity_lift@{k}"] = _mean(popularity_lift(top_items, k, counts, history_popularity))
        if vectors is not None:
            metrics[f"ild@{k}"] = _mean(intra_list_diversity(top_items, k, vectors))
    return {name: value for name, value in metrics.items() if not np.isnan(value)}


def _lists(name: str, top_items: Ints, k: int) -> Ints:
    if not 1 <= k <= top_items.shape[1]:
        raise DeshiError(f"{name} at {k} needs lists of {k} items, got lists of {top_items.shape[1]}.")
    return top_items[:, :k]


def _means(values: Floats, lists: Ints) -> Floats:
    """``(C,)`` the mean of ``values`` ``(n,)`` over each list's items, NaN for an empty list."""
    real = lists != PAD
    sizes = real.sum(1)
    sums = np.where(real, values[lists], 0.0).sum(1)
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), np.nan)


def _mean(values: Floats) -> float:
    real = values[~np.isnan(values)]
    return float(real.mean()) if len(real) else float("nan")

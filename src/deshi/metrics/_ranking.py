"""Ranking metrics at K, as pure functions of exact ranks: HR, Recall, NDCG, MRR and MAP.

An *example* is a history and the targets that followed it. Every function takes the ranks of all targets, flat, and the
example that each belongs to, and returns one value an example; an example without targets is NaN, never 0. Definitions
and formulas are in ``docs/metrics.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from deshi.arrays import Floats, Ints, offsets_of
from deshi.configuration.targets import suggestion
from deshi.types import DeshiError


@dataclass(frozen=True)
class ExampleRanks:
    """The targets' ranks, ordered by example and then by rank.

    Attributes:
        ranks: ``(T,)`` float64, from 1; halves stand for ties.
        examples: ``(T,)`` int64, ``0 .. C - 1``, not decreasing.
        sizes: ``(C,)`` int64, the number of targets of each example.
        order: ``(T,)`` int64, the position of each target among its example's, best rank first, from 1.
    """

    ranks: Floats
    examples: Ints
    sizes: Ints
    order: Ints

    def total(self, values: Floats) -> Floats:
        """Sum ``values`` ``(T,)`` within each example; NaN for an example without targets."""
        sums = np.bincount(self.examples, weights=values, minlength=len(self.sizes))
        return np.where(self.sizes > 0, sums, np.nan)


def example_ranks(
    ranks: Floats | Tensor, examples: Ints | Tensor | None = None, n_examples: int | None = None
) -> ExampleRanks:
    """Group flat ``ranks`` ``(T,)`` by ``examples`` ``(T,)``; without ``examples`` every rank is an example of its own.

    Raises:
        DeshiError: for shapes that don't fit, ranks below 1 or NaN, or example numbers outside of ``0 .. n_examples -
        1``.
    """
    flat = np.asarray(ranks, dtype=np.float64)
    owner = np.arange(len(flat)) if examples is None else np.asarray(examples, dtype=np.int64)
    if flat.ndim != 1 or flat.shape != owner.shape:
        raise DeshiError(f"ranks have shape {flat.shape} and examples {owner.shape}, expected both (T,).")
    if not (flat >= 1).all():
        raise DeshiError(f"{int((~(flat >= 1)).sum())} of {len(flat)} ranks are below 1 or NaN; ranks count from 1.")
    count = (int(owner.max()) + 1 if len(owner) else 0) if n_examples is None else n_examples
    if len(owner) and not (0 <= owner.min() and owner.max() < count):
        raise DeshiError(f"examples lie in {owner.min()} .. {owner.max()}, expected 0 .. {count - 1}.")
    by_rank = np.lexsort((flat, owner))  # by example, then by rank: sums don't depend on the order of the input
    flat, owner = flat[by_rank], owner[by_rank]
    sizes = np.bincount(owner, minlength=count)
    starts = offsets_of(sizes)[:-1]
    return ExampleRanks(flat, owner, sizes, np.arange(len(flat)) - starts[owner] + 1)


def hit_rate(grouped: ExampleRanks, k: int) -> Floats:
    """1 if any target is among the best ``k``, else 0."""
    hits = grouped.total((grouped.ranks <= k).astype(np.float64))
    return np.minimum(hits, 1.0)


def recall(grouped: ExampleRanks, k: int) -> Floats:
    """The share of the targets that are among the best ``k``."""
    hits: Floats = grouped.total((grouped.ranks <= k).astype(np.float64))
    return hits / np.maximum(grouped.sizes, 1)


def ndcg(grouped: ExampleRanks, k: int) -> Floats:
    """Discounted gain ``sum 1 / log2(1 + rank)`` of the best ``k``, over that of an ideal order."""
    gains = np.where(grouped.ranks <= k, 1.0 / np.log2(1.0 + grouped.ranks), 0.0)
    # the gain of t targets on the ranks 1 .. t, at index t
    ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(1.0 + np.arange(1, k + 1)))])
    return _at_most_one(grouped.total(gains) / ideal[np.clip(grouped.sizes, 1, k)])


def reciprocal_rank(grouped: ExampleRanks, k: int) -> Floats:
    """``1 / rank`` of the best target if it is among the best ``k``, else 0."""
    first = (grouped.order == 1) & (grouped.ranks <= k)
    return grouped.total(np.where(first, 1.0 / grouped.ranks, 0.0))


def average_precision(grouped: ExampleRanks, k: int) -> Floats:
    """The precision at each target among the best ``k``, summed and divided by ``min(targets, k)``."""
    precision = np.where(grouped.ranks <= k, grouped.order / grouped.ranks, 0.0)
    return _at_most_one(grouped.total(precision) / np.clip(grouped.sizes, 1, k))


METRICS: dict[str, Callable[[ExampleRanks, int], Floats]] = {
    "ndcg": ndcg,
    "recall": recall,
    "hr": hit_rate,
    "mrr": reciprocal_rank,
    "map": average_precision,
}


def read_metric(text: str, setting: str = "metric is") -> tuple[str, int]:
    """The name and K of a metric that each example has, such as ``ndcg@10``.

    Args:
        text: ``NAME@K``.
        setting: how the message begins: the setting that held it.

    Raises:
        DeshiError: for an unknown name or a K that is no whole number from 1, with the nearest names.
    """
    name, _, k = text.partition("@")
    whole = k.isdecimal() and int(k) >= 1
    if name in METRICS and whole:
        return name, int(k)
    names = [f"{metric}@{int(k) if whole else 10}" for metric in METRICS]
    raise DeshiError(
        f"{setting} {text!r}, expected NAME@K of a metric that each user has, K from 1. "
        f"{suggestion(text, names, 'metrics')}"
    )


def metric_title(metric: str) -> str:
    """A metric's name as it is written in texts, with or without its K: ``NDCG@10``, ``Popularity lift@10``."""
    name, at, k = metric.partition("@")
    title = name.upper() if name in ("ndcg", "hr", "mrr", "map") else name.capitalize().replace("_", " ")
    return f"{title}{at}{k}"


def metrics_per_example(grouped: ExampleRanks, ks: Sequence[int]) -> dict[str, Floats]:
    """Every metric at every K, ``(C,)`` each, named such as ``ndcg@10``."""
    if any(k < 1 for k in ks):
        raise DeshiError(f"ks is {list(ks)}, expected numbers from 1.")
    return {f"{name}@{k}": metric(grouped, k) for name, metric in METRICS.items() for k in ks}


def metrics_from_ranks(
    ranks: Floats | Tensor, ks: Sequence[int], examples: Ints | Tensor | None = None, n_examples: int | None = None
) -> dict[str, float]:
    """The mean of every metric over the examples that have targets; NaN if there are none.

    Args:
        ranks: ``(T,)`` ranks of all targets of all examples (never an average of batch averages).
        ks: the list lengths.
        examples: ``(T,)`` the example of each target; without it every target is an example of its own.
        n_examples: the number of examples, where some may have no target.
    """
    grouped = example_ranks(ranks, examples, n_examples)
    full = grouped.sizes > 0
    return {
        name: float(values[full].mean()) if full.any() else float("nan")
        for name, values in metrics_per_example(grouped, ks).items()
    }


def _at_most_one(values: Floats) -> Floats:
    # Only more than k targets tied around rank k can exceed 1: their shared mean rank puts all of them inside.
    return np.minimum(values, 1.0)

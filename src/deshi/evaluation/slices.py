"""Metrics on slices of the examples, by the target's popularity and the history's length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.arrays import Ints
from deshi.data.splits import Examples
from deshi.metrics.ranking import metrics_from_ranks

Names = NDArray[np.str_]

POPULARITY = "target popularity"
LENGTH = "history length"
EDGE_SHARE = 0.2
"""Share of the training events that the head holds, and that the tail holds."""


def popularity_groups(counts: Ints) -> Names:
    """Every item's place in the distribution of popularity: ``head``, ``torso``, ``tail`` or ``cold``.

    ``head`` is the fewest most popular items that together hold at least 20 % of the training events, ``tail`` the
    least popular items that hold at most 20 %, ``torso`` what lies between; items with the same number of events are
    in the same group. ``cold`` items have no training event. After Abdollahpouri et al. 2021, arXiv 2103.06364.

    Args:
        counts: ``(n_items,)`` training events of each item.
    """
    distinct, group = np.unique(counts, return_inverse=True)
    held = distinct * np.bincount(group)
    share = np.cumsum(held) / max(1, held.sum())  # held by items of at most that many events
    more = 1 - share  # held by items of more events
    names = np.where(more < EDGE_SHARE, "head", np.where(share <= EDGE_SHARE, "tail", "torso"))
    return np.where(distinct == 0, "cold", names)[group]


def length_groups(lengths: Ints) -> Names:
    """Every history's tercile among all: ``short (1-7)``, ``medium (8-20)`` or ``long (21-130)``, with the lengths.

    A tercile ends at the length that a third (two thirds) of the histories don't exceed; equal lengths are together,
    so the groups may be uneven.

    Args:
        lengths: ``(C,)`` events of each history.
    """
    if not len(lengths):
        return np.zeros(0, dtype=np.str_)
    edges = np.quantile(lengths, [1 / 3, 2 / 3], method="inverted_cdf")
    group = np.searchsorted(edges, lengths, side="left")
    labels = np.array(["", "", ""], dtype=object)
    for number in np.unique(group):
        own = lengths[group == number]
        labels[number] = f"{('short', 'medium', 'long')[number]} ({own.min()}-{own.max()})"
    return labels[group].astype(np.str_)


def slice_frame(ranks: pl.DataFrame, examples: Examples, counts: Ints, ks: Sequence[int]) -> pl.DataFrame:
    """Every metric at every K on every slice: ``slice``, ``value``, ``n_examples``, then a column a metric.

    With several targets an example, a popularity slice looks at the targets in its group only, and at the examples that
    have any. Slices without an example have no row.

    Args:
        ranks: of :class:`~deshi.evaluation.ranking.Ranking`.
        examples: that were ranked.
        counts: ``(n_items,)`` training events of each item.
        ks: the list lengths.
    """
    rank, example = ranks["rank"].to_numpy(), ranks["example"].to_numpy()
    popularity = popularity_groups(counts)[ranks["target"].to_numpy()]
    rows = []
    for name, value, inside in [
        *_slices(POPULARITY, popularity, ("head", "torso", "tail", "cold")),
        *_slices(LENGTH, length_groups(examples.ends - examples.starts)[example], ("short", "medium", "long")),
    ]:
        of_example, dense = np.unique(example[inside], return_inverse=True)
        figures = metrics_from_ranks(rank[inside], ks, dense, len(of_example))
        rows.append({"slice": name, "value": value, "n_examples": len(of_example), **figures})
    return pl.DataFrame(rows)


def _slices(name: str, values: Names, order: Sequence[str]) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """The name, the value and the ``(T,)`` targets of each slice that has any."""
    for value in sorted(np.unique(values).tolist(), key=lambda text: order.index(text.split(" ")[0])):
        yield name, value, values == value

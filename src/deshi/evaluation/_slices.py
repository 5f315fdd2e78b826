"""Metrics on slices of the examples, by the target's popularity and the history's length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.arrays import Bools, Ints
from deshi.data.splits import Examples
from deshi.metrics import metrics_from_ranks

Names = NDArray[np.str_]

POPULARITY = "target popularity"
LENGTH = "history length"
EDGE_SHARE = 0.2
"""Share of the training events that the head holds, and that the tail holds."""


def popularity_groups(counts: Ints) -> Names:
    """Every item's group of popularity: ``head``, ``torso``, ``tail`` or ``cold``.

    ``head`` is the fewest most popular items that together hold at least 20 % of the training events, ``tail`` the
    least popular items that hold at most 20 %, ``torso`` what lies between; items with the same number of events are
    in the same group. ``cold`` items have no training event. After Abdollahpouri et al. 2021, arXiv 2103.06364.

    Args:
        counts: ``(n_items,)`` training events of each item.
    """
    # items with the same number of events are one level, levels ascending
    levels, level = np.unique(counts, return_inverse=True)
    events = levels * np.bincount(level)
    # share of all events that items of this level and below hold, and that items above it hold
    below = np.cumsum(events) / max(1, events.sum())
    above = 1 - below
    # a level is head while those above it don't fill the head's share yet; tail while it fits into the tail's share
    names = np.where(above < EDGE_SHARE, "head", np.where(below <= EDGE_SHARE, "tail", "torso"))
    return np.where(levels == 0, "cold", names)[level]


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
        members = lengths[group == number]
        labels[number] = f"{('short', 'medium', 'long')[number]} ({members.min()}-{members.max()})"
    return labels[group].astype(np.str_)


def slice_frame(ranks: pl.DataFrame, examples: Examples, counts: Ints, ks: Sequence[int]) -> pl.DataFrame:
    """Every metric at every K on every slice: ``slice``, ``value``, ``n_examples``, then a column a metric.

    With several targets an example, a popularity slice looks at the targets in its group only, and at the examples that
    have any. Slices without an example have no row.

    Args:
        ranks: of :class:`~deshi.evaluation.Ranking`.
        examples: that were ranked.
        counts: ``(n_items,)`` training events of each item.
        ks: the list lengths.
    """
    rank, example = ranks["rank"].to_numpy(), ranks["example"].to_numpy()
    popularity = popularity_groups(counts)[ranks["target"].to_numpy()]
    rows = []
    for name, value, in_slice in [
        *_slices(POPULARITY, popularity, ("head", "torso", "tail", "cold")),
        *_slices(LENGTH, length_groups(examples.ends - examples.starts)[example], ("short", "medium", "long")),
    ]:
        # examples are numbered anew, so that those without a target in the slice don't count
        members, example_in_slice = np.unique(example[in_slice], return_inverse=True)
        metrics = metrics_from_ranks(rank[in_slice], ks, example_in_slice, len(members))
        rows.append({"slice": name, "value": value, "n_examples": len(members), **metrics})
    return pl.DataFrame(rows)


def _slices(name: str, values: Names, order: Sequence[str]) -> Iterator[tuple[str, str, Bools]]:
    """The name, the value and the ``(T,)`` targets of each slice that has any."""
    for value in sorted(np.unique(values).tolist(), key=lambda text: order.index(text.split(" ")[0])):
        yield name, value, values == value

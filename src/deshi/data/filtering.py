"""Filters of interactions: values of columns, ratings, duplicates, k-core, minimum history; and the counts of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from deshi.arrays import blocks, count_codes, offsets_of, row_blocks
from deshi.data.raw import FILTER
from deshi.data.vocabulary import ITEM_INDEX, USER_INDEX, Events
from deshi.tables import id_text
from deshi.types import RATING, TIMESTAMP, DeshiError

DUPLICATES = ("keep", "exact", "first", "last", "error")


@dataclass(frozen=True)
class FilterStep:
    """What one filter did: how much it removed, and how much was left after it.

    ``name`` says which filter with which setting; the first step of a report, ``source``, removes nothing.
    """

    name: str
    removed_interactions: int
    removed_users: int
    removed_items: int
    interactions: int
    users: int
    items: int


def apply_filters(
    events: Events,
    keep: Mapping[str, Sequence[Any]] | None = None,
    min_rating: float | None = None,
    duplicates: str = "keep",
    min_user_interactions: int = 0,
    min_item_interactions: int = 0,
    k_core: bool = True,
    min_history: int = 0,
) -> tuple[Events, list[FilterStep]]:
    """Apply the filters in the order of the arguments.

    Args:
        events: sorted by user and time. The columns are taken out of their frame one by one, as in
            :func:`deshi.data.vocabulary.encode_events`.
        keep: for each column of the source, the values of which an event must have one; None is an empty one.
        min_rating: keep ratings of at least this; interactions without a rating are removed. None keeps all.
        duplicates: for several events of one user with one item: ``keep`` all, keep one of those at the same time
            (``exact``), keep the ``first`` or ``last`` in time, or ``error``.
        min_user_interactions: fewest events of a user.
        min_item_interactions: fewest events of an item.
        k_core: repeat the two minima until both hold; otherwise once, items first.
        min_history: fewest events of a user in the end; with ``k_core``, the minima hold again after it.

    Returns:
        the events that stay (same ids and indices) and one step per filter that is switched on.

    Raises:
        DeshiError: for a threshold without ratings, a duplicate under ``error``, an unknown rule.
    """
    steps = [FilterStep("source", 0, 0, 0, *events.counts())]

    def apply(name: str, stays: pl.Series | np.ndarray) -> None:
        nonlocal events
        frame, kept = events.frame, pl.Series(stays)
        columns = [frame.drop_in_place(column).filter(kept) for column in frame.columns]
        events = replace(events, frame=pl.DataFrame(columns))
        left, before = events.counts(), steps[-1]
        removed = (before.interactions - left[0], before.users - left[1], before.items - left[2])
        steps.append(FilterStep(name, *removed, *left))

    for column, values in (keep or {}).items():
        texts = [id_text(value) for value in values]
        apply(f"{column} in [{', '.join(map(str, texts))}]", _has_value(events, column, texts))
    for column in [name for name in events.frame.columns if name.startswith(FILTER)]:
        events.frame.drop_in_place(column)
    if min_rating is not None:
        apply(f"rating >= {min_rating:g}", _rated(events, min_rating))
    if duplicates != "keep":
        apply(f"duplicates: {duplicates}", _single(events, duplicates))
    minima = f"user >= {min_user_interactions}, item >= {min_item_interactions}"
    if min_user_interactions > 1 or min_item_interactions > 1:
        stays = core(*_codes(events), min_user_interactions, min_item_interactions, repeat=k_core)
        apply(f"k-core ({minima})" if k_core else f"minimum once ({minima})", stays)
    if min_history > 1:
        item_minimum = min_item_interactions if k_core else 0
        user_minimum = max(min_history, min_user_interactions if k_core else 0)
        apply(f"history >= {min_history}", core(*_codes(events), user_minimum, item_minimum, repeat=k_core))
    return events, steps


def core(users: np.ndarray, items: np.ndarray, min_user: int, min_item: int, repeat: bool) -> np.ndarray:
    """Which rows stay when users need ``min_user`` rows and items ``min_item``.

    Args:
        users: ``(n,)`` user codes.
        items: ``(n,)`` item codes.
        min_user: fewest rows of a user.
        min_item: fewest rows of an item.
        repeat: until nothing changes; otherwise one pass, items first, users by what that leaves.

    Returns:
        ``(n,)`` bool.
    """
    keep = np.ones(len(users), dtype=bool)
    if not len(users):
        return keep
    sides = ((items, min_item), (users, min_user))
    counts = [count_codes(codes, int(codes.max()) + 1) for codes, _ in sides]
    is_stable = False
    while not is_stable:
        is_stable = True
        for side, (codes, minimum) in enumerate(sides):
            is_rare = (counts[side] > 0) & (counts[side] < minimum)
            if not is_rare.any():
                continue
            # The counts of both sides without the removed rows, so that no pass counts all rows again.
            for block in blocks(len(codes)):
                rows = block.start + np.flatnonzero(is_rare[codes[block]] & keep[block])
                keep[rows] = False
                for (others, _), numbers in zip(sides, counts, strict=True):
                    np.subtract.at(numbers, others[rows], 1)
            is_stable = not repeat
    return keep


def _codes(events: Events) -> tuple[np.ndarray, np.ndarray]:
    return events.frame[USER_INDEX].to_numpy(), events.frame[ITEM_INDEX].to_numpy()


def _has_value(events: Events, column: str, values: Sequence[str | None]) -> pl.Series:
    """Which events have one of ``values`` in a column.

    Raises:
        DeshiError: for a value that no event has, and a column that wasn't read.
    """
    if FILTER + column not in events.frame.columns:
        raise DeshiError(
            f"data.filters.keep names the column {column!r}, which this source doesn't read. Use it with data=tabular, "
            f"recbole, sql, amazon or steam."
        )
    texts = events.frame[FILTER + column]
    counts = texts.value_counts(sort=True)
    unknown = [str(value) for value in values if value not in counts.to_series(0).to_list()]
    if unknown or not values:
        present = ", ".join(f"{text} ({number:,})" for text, number in counts.head(10).iter_rows())
        raise DeshiError(
            f"data.filters.keep.{column} names {', '.join(unknown) or 'nothing'}, which no row has; the column has "
            f"{present}{', ...' if counts.height > 10 else ''}."
        )
    return texts.is_in(values, nulls_equal=True)


def _rated(events: Events, minimum: float) -> pl.Series:
    if RATING not in events.frame.columns:
        raise DeshiError(
            f"data.filters.min_rating is {minimum:g}, but the source has no ratings. "
            f"Set data.filters.min_rating=null, or map a rating column in data.source."
        )
    return (events.frame[RATING] >= minimum).fill_null(False)


def _single(events: Events, rule: str) -> np.ndarray:
    """``(n,)`` bool, which events stay under a rule for duplicates."""
    if rule not in DUPLICATES:
        raise DeshiError(f"data.filters.duplicates is {rule!r}, expected one of {', '.join(DUPLICATES)}.")
    users, items = _codes(events)
    keep = np.empty(len(users), dtype=bool)
    offsets = offsets_of(count_codes(users, events.user_ids.len()))
    # A user's events stand together: the pairs or triples of a few users at a time fit into the processor's cache.
    for part in row_blocks(offsets):
        rows = slice(int(offsets[part.start]), int(offsets[part.stop]))
        if rule == "exact":
            triples = pl.struct(USER_INDEX, ITEM_INDEX, TIMESTAMP)
            keep[rows] = events.frame[rows].select(triples.is_first_distinct()).to_series()
            continue
        pairs = pl.Series((users[rows] - np.int64(part.start)) * events.item_ids.len() + items[rows])
        keep[rows] = pairs.is_last_distinct() if rule == "last" else pairs.is_first_distinct()
    if rule == "error" and not keep.all():
        row = int(keep.argmin())
        raise DeshiError(
            f"{len(keep) - int(keep.sum())} interactions repeat a user's item, the first for user "
            f"{events.user_ids[int(users[row])]!r} and item {events.item_ids[int(items[row])]!r}, and "
            f"data.filters.duplicates is 'error'. Repair the source, or set keep, exact, first or last."
        )
    return keep

"""Filters of interactions: rating threshold, duplicates, k-core, minimum history; and the counts of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from deshi.data.vocabulary import ITEM_INDEX, USER_INDEX, Events
from deshi.types import RATING, DeshiError

DUPLICATES = ("keep", "first", "last", "error")


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
    min_rating: float | None = None,
    duplicates: str = "keep",
    min_user_interactions: int = 0,
    min_item_interactions: int = 0,
    k_core: bool = True,
    min_history: int = 0,
) -> tuple[Events, list[FilterStep]]:
    """Apply the filters in the order of the arguments.

    Args:
        events: sorted by user and time.
        min_rating: keep ratings of at least this; interactions without a rating are removed. None keeps all.
        duplicates: for several events of one user with one item: ``keep`` all, keep the ``first`` or ``last`` in time,
            or ``error``.
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

    def apply(name: str, keep: pl.Series | np.ndarray) -> None:
        nonlocal events
        events = replace(events, frame=events.frame.filter(keep))
        left, before = events.counts(), steps[-1]
        removed = (before.interactions - left[0], before.users - left[1], before.items - left[2])
        steps.append(FilterStep(name, *removed, *left))

    if min_rating is not None:
        apply(f"rating >= {min_rating:g}", _rated(events, min_rating))
    if duplicates != "keep":
        apply(f"duplicates: {duplicates}", _single(events, duplicates))
    minima = f"user >= {min_user_interactions}, item >= {min_item_interactions}"
    if min_user_interactions > 1 or min_item_interactions > 1:
        keep = core(*_codes(events), min_user_interactions, min_item_interactions, repeat=k_core)
        apply(f"k-core ({minima})" if k_core else f"minimum once ({minima})", keep)
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
    rows = np.arange(len(users))
    while True:
        size = len(rows)
        for codes, minimum in ((items, min_item), (users, min_user)):
            if minimum > 1 and len(rows):
                left = codes[rows]
                rows = rows[np.bincount(left)[left] >= minimum]
        if not repeat or len(rows) == size:
            break
    keep = np.zeros(len(users), dtype=bool)
    keep[rows] = True
    return keep


def _codes(events: Events) -> tuple[np.ndarray, np.ndarray]:
    return events.frame[USER_INDEX].to_numpy(), events.frame[ITEM_INDEX].to_numpy()


def _rated(events: Events, minimum: float) -> pl.Series:
    if RATING not in events.frame.columns:
        raise DeshiError(
            f"data.filters.min_rating is {minimum:g}, but the source has no ratings. "
            f"Set data.filters.min_rating=null, or map a rating column in data.source."
        )
    return (events.frame[RATING] >= minimum).fill_null(False)


def _single(events: Events, rule: str) -> pl.Series:
    if rule not in DUPLICATES:
        raise DeshiError(f"data.filters.duplicates is {rule!r}, expected one of {', '.join(DUPLICATES)}.")
    users, items = _codes(events)
    pairs = pl.Series(users.astype(np.int64) * events.item_ids.len() + items)
    keep = pairs.is_last_distinct() if rule == "last" else pairs.is_first_distinct()
    if rule == "error" and not keep.all():
        row = int(keep.arg_min() or 0)
        raise DeshiError(
            f"{len(keep) - int(keep.sum())} interactions repeat a user's item, the first for user "
            f"{events.user_ids[int(users[row])]!r} and item {events.item_ids[int(items[row])]!r}, and "
            f"data.filters.duplicates is 'error'. Repair the source, or set keep, first or last."
        )
    return keep

"""Search of the events at which foreign histories end, in the bundle's sequences."""

from __future__ import annotations

import numpy as np

from deshi.arrays import Ints, range_rows
from deshi.data.bundle import Bundle

UNMATCHED, SEVERAL = -1, -2
"""In place of a position: the history is nowhere, or at several events."""


def exact(windows: Ints, nexts: Ints, bundle: Bundle, cut: bool) -> Ints:
    """The one event at which each window ends and after which its next item follows.

    Args:
        windows: ``(M, L)`` item indices, oldest first.
        nexts: ``(M,)`` next items.
        bundle: the data.
        cut: whether the user may have had events before the window.

    Returns:
        ``(M,)`` flat positions, :data:`UNMATCHED` or :data:`SEVERAL`.
    """
    length = windows.shape[1]
    items = np.asarray(bundle.items, dtype=np.int64)
    starts, stops = (np.repeat(ends, np.diff(bundle.offsets)) for ends in (bundle.offsets[:-1], bundle.offsets[1:]))
    # an event may end a window if the window's first event is the user's (first) one and another event follows
    first = np.arange(len(items)) - length + 1
    possible = (first >= starts) if cut else (first == starts)
    events = np.flatnonzero(possible & (np.arange(1, len(items) + 1) < stops))
    if not len(events):
        return np.full(len(windows), UNMATCHED, dtype=np.int64)
    # the items up to each such event, and the one after it
    candidates = np.column_stack([items[events[:, None] + shift] for shift in range(1 - length, 2)])
    return _match(np.column_stack([windows, nexts]), candidates, events)


def _match(rows: Ints, candidates: Ints, events: Ints) -> Ints:
    """The event of the candidate that equals each row; equal hashes are compared entry by entry."""
    keys, hashes = _hashes(candidates), _hashes(rows)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    left, right = np.searchsorted(keys, hashes, "left"), np.searchsorted(keys, hashes, "right")
    candidate = order[np.minimum(left, len(order) - 1)]
    equal = (right > left) & (candidates[candidate] == rows).all(axis=1)
    # several equal hashes are several events, or a collision: either way nothing may be guessed
    return np.where(right - left > 1, SEVERAL, np.where(equal, events[candidate], UNMATCHED))


def _hashes(rows: Ints) -> np.ndarray:
    """A 64-bit hash of each row: a sum with odd multipliers, mixed so that order matters."""
    total = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        total = (total ^ (column.astype(np.uint64) + np.uint64(1))) * np.uint64(0x9E3779B97F4A7C15)
        total ^= total >> np.uint64(29)
    return total


def contained(windows: Ints, nexts: Ints, bundle: Bundle, cut: bool) -> Ints:
    """The one event before a next item that exactly one user has after all items of the window, or at their time.

    Args:
        windows: ``(M, L)`` item indices.
        nexts: ``(M,)`` next items.
        bundle: the data.
        cut: ignored: the user may have had other events.

    Returns:
        as :func:`exact`.
    """
    events = _Events(bundle)
    # only users who have the rarest of a row's items need be looked at
    items = np.column_stack([windows, nexts])
    rarest = np.take_along_axis(items, events.counts[items].argmin(axis=1)[:, None], axis=1)[:, 0]
    rows = np.full(len(items), UNMATCHED, dtype=np.int64)
    for begin in range(0, len(items), CHUNK):
        part = slice(begin, begin + CHUNK)
        rows[part] = events.search(windows[part], nexts[part], rarest[part])
    return rows


CHUNK = 4096
"""Rows that are searched at once: each has as many candidates as its rarest item has users."""


class _Events:
    """The bundle's events by user and item."""

    def __init__(self, bundle: Bundle) -> None:
        self.n_items, self.times = bundle.n_items, np.asarray(bundle.timestamps)
        items = np.asarray(bundle.items, dtype=np.int64)
        self.users = np.repeat(np.arange(bundle.n_users), np.diff(bundle.offsets))
        self.starts = bundle.offsets[:-1]
        self.counts = np.bincount(items, minlength=self.n_items)
        self.by_item = np.argsort(items, kind="stable")
        self.item_ends = np.cumsum(self.counts)
        keys = self.users * self.n_items + items
        self.by_pair = np.argsort(keys, kind="stable")
        self.keys = keys[self.by_pair]

    def search(self, windows: Ints, nexts: Ints, rarest: Ints) -> Ints:
        """The events of some rows; see :func:`contained`."""
        rows, users = self._candidates(rarest)
        # the candidate's first event with the next item, which must not be the user's first event at all
        event, several = self._first(users, nexts[rows])
        good = (event >= 0) & (event > self.starts[users])
        times = self.times[np.maximum(event, 0)]
        # every item of the window must have an event that isn't later
        for column in windows.T:
            seen, _ = self._first(users, column[rows])
            good &= (seen >= 0) & (self.times[np.maximum(seen, 0)] <= times) & (seen != event)
        rows, event, several = rows[good], event[good], several[good]
        before = np.full(len(windows), UNMATCHED, dtype=np.int64)
        before[rows] = event - 1
        # two users, or a user who has the next item twice
        before[np.bincount(rows, weights=1 + several, minlength=len(windows)) > 1] = SEVERAL
        return before

    def _candidates(self, items: Ints) -> tuple[Ints, Ints]:
        """Pairs of a row and a user who has its item, each once."""
        counts = self.counts[items]
        rows = np.repeat(np.arange(len(items)), counts)
        within = range_rows(np.zeros_like(counts), counts)
        events = self.by_item[(self.item_ends - self.counts)[items][rows] + within]
        pairs = np.unique(rows * len(self.starts) + self.users[events])
        return pairs // len(self.starts), pairs % len(self.starts)

    def _first(self, users: Ints, items: Ints) -> tuple[Ints, Ints]:
        """The first event of each user with each item, ``-1`` for none, and whether there are more."""
        keys = users * self.n_items + items
        left, right = np.searchsorted(self.keys, keys, "left"), np.searchsorted(self.keys, keys, "right")
        event = self.by_pair[np.minimum(left, len(self.by_pair) - 1)]
        return np.where(right > left, event, -1), (right - left > 1).astype(np.int64)

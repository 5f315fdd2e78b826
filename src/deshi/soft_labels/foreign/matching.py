"""Where in the bundle's sequences a foreign history ends."""

from __future__ import annotations

import numpy as np

from deshi.arrays import Ints, range_rows
from deshi.data.bundle import Bundle
from deshi.types import DeshiError

UNMATCHED, SEVERAL = -1, -2
"""In place of a position: the history is nowhere, or at several events."""


def exact(windows: Ints, following: Ints | None, bundle: Bundle, cut: bool) -> Ints:
    """The one event at which each window ends and after which its next item follows.

    Args:
        windows: ``(M, L)`` item indices, oldest first.
        following: ``(M,)`` next items, or None to ask for none.
        bundle: the data.
        cut: whether the user may have had events before the window.

    Returns:
        ``(M,)`` flat positions, :data:`UNMATCHED` or :data:`SEVERAL`.
    """
    length = windows.shape[1]
    events = np.asarray(bundle.items, dtype=np.int64)
    starts, stops = (np.repeat(ends, np.diff(bundle.offsets)) for ends in (bundle.offsets[:-1], bundle.offsets[1:]))
    first = np.arange(len(events)) - length + 1
    possible = (first >= starts) if cut else (first == starts)
    if following is not None:
        possible &= np.arange(1, len(events) + 1) < stops
    places = np.flatnonzero(possible)
    there = (
        np.column_stack([events[places[:, None] + shift] for shift in range(1 - length, 1)]) if len(places) else None
    )
    if there is None:
        return np.full(len(windows), UNMATCHED, dtype=np.int64)
    if following is not None:
        there, windows = np.column_stack([there, events[places + 1]]), np.column_stack([windows, following])
    return _match(windows, there, places)


def _match(wanted: Ints, there: Ints, places: Ints) -> Ints:
    """The place of each wanted row among the rows that are there; equal hashes are checked entry by entry."""
    keys, asked = _hashes(there), _hashes(wanted)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    left, right = np.searchsorted(keys, asked, "left"), np.searchsorted(keys, asked, "right")
    candidate = order[np.minimum(left, len(order) - 1)]
    equal = (right > left) & (there[candidate] == wanted).all(axis=1)
    # several equal hashes are several places, or a collision: either way nothing may be guessed
    return np.where(right - left > 1, SEVERAL, np.where(equal, places[candidate], UNMATCHED))


def _hashes(rows: Ints) -> np.ndarray:
    """A 64-bit hash of each row: a sum with odd multipliers, mixed so that order matters."""
    total = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        total = (total ^ (column.astype(np.uint64) + np.uint64(1))) * np.uint64(0x9E3779B97F4A7C15)
        total ^= total >> np.uint64(29)
    return total


def contained(windows: Ints, following: Ints | None, bundle: Bundle, cut: bool) -> Ints:
    """The one event before a next item that exactly one user has after all items of the window, or at their time.

    Args:
        windows: ``(M, L)`` item indices.
        following: ``(M,)`` next items.
        bundle: the data.
        cut: ignored: what else the user did is of no account.

    Returns:
        as :func:`exact`.

    Raises:
        DeshiError: without next items.
    """
    if following is None:
        raise DeshiError("The lists have no next items, which how=contained needs. Use how=exact.")
    events = _Events(bundle)
    wanted = np.column_stack([windows, following])
    rarest = np.take_along_axis(wanted, events.counts[wanted].argmin(axis=1)[:, None], axis=1)[:, 0]
    found = np.full(len(wanted), UNMATCHED, dtype=np.int64)
    for begin in range(0, len(wanted), CHUNK):
        part = slice(begin, begin + CHUNK)
        found[part] = events.search(windows[part], following[part], rarest[part])
    return found


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

    def search(self, windows: Ints, following: Ints, rarest: Ints) -> Ints:
        """The positions for some rows; see :func:`contained`."""
        rows, users = self._candidates(rarest)
        place, several = self._first(users, following[rows])
        good = (place >= 0) & (place > self.starts[users])
        times = self.times[np.maximum(place, 0)]
        for column in windows.T:
            seen, _ = self._first(users, column[rows])
            good &= (seen >= 0) & (self.times[np.maximum(seen, 0)] <= times) & (seen != place)
        rows, place, several = rows[good], place[good], several[good]
        found = np.full(len(windows), UNMATCHED, dtype=np.int64)
        found[rows] = place - 1
        doubtful = np.bincount(rows, weights=1 + several, minlength=len(windows)) > 1
        found[doubtful] = SEVERAL
        return found

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
        place = self.by_pair[np.minimum(left, len(self.by_pair) - 1)]
        return np.where(right > left, place, -1), (right - left > 1).astype(np.int64)

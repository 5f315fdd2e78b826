"""A pair of files as arrays: histories, targets and ranked lists in one numbering of users and items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.arrays import Bools, Floats, Ints, offsets_of

NOTHING = -1
"""Stands for a row, item or line that isn't there."""


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The ids of one kind (users or items), numbered in the order in which the files name them first.

    Attributes:
        names: every id as text.
        known: how many of them the interactions hold; they have the smallest numbers.
    """

    names: list[str]
    known: int

    @classmethod
    def of(cls, interactions: pl.Series, others: Sequence[pl.Series]) -> Catalogue:
        """Number the ids of ``interactions`` first, then those that only ``others`` have."""
        first = interactions.unique(maintain_order=True)
        parts = [first, *(other.unique(maintain_order=True).rename(first.name) for other in others)]
        return cls(pl.concat(parts).unique(maintain_order=True).to_list(), len(first))

    def codes(self, ids: pl.Series) -> Ints:
        """The numbers of ``ids``, all of which the catalogue holds."""
        return ids.cast(pl.Enum(self.names)).to_physical().to_numpy().astype(np.int64)

    @cached_property
    def code_of(self) -> dict[str, int]:
        """The number of every id."""
        return {name: code for code, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class Events:
    """Events sorted by user and, within a user, from the oldest to the newest.

    Attributes:
        user: ``(E,)`` int64.
        item: ``(E,)`` int64.
        time: ``(E,)`` or None without timestamps.
        line: ``(E,)`` int64, where the file has the event.
        offsets: ``(users + 1,)`` int64: user u's events are ``offsets[u] .. offsets[u + 1]``.
    """

    user: Ints
    item: Ints
    time: NDArray[np.generic] | None
    line: Ints
    offsets: Ints

    @classmethod
    def of(
        cls, user: Ints, item: Ints, line: Ints, time: NDArray[np.generic] | None, n_users: int, by_time: bool = True
    ) -> Events:
        """Sort events by time; equal times, or all without timestamps, stay in the file's order."""
        order = np.lexsort((line, time, user)) if time is not None and by_time else np.lexsort((line, user))
        offsets = offsets_of(np.bincount(user, minlength=n_users))
        return cls(user[order], item[order], None if time is None else time[order], line[order], offsets)

    @property
    def counts(self) -> Ints:
        """``(users,)``: how many events each user has."""
        return np.diff(self.offsets)

    def take(self, keep: Bools) -> Events:
        """The events that ``keep`` ``(E,)`` marks."""
        user = self.user[keep]
        offsets = offsets_of(np.bincount(user, minlength=len(self.offsets) - 1))
        time = None if self.time is None else self.time[keep]
        return Events(user, self.item[keep], time, self.line[keep], offsets)

    def from_end(self, users: Ints, place: int) -> Ints:
        """The row of each user's event that is ``place`` before the last (0: the last); :data:`NOTHING` if none."""
        rows = self.offsets[users + 1] - 1 - place
        return np.where(rows >= self.offsets[users], rows, NOTHING)

    def items_at(self, rows: Ints) -> Ints:
        """The items of ``rows``, :data:`NOTHING` where the row is."""
        return np.where(rows >= 0, self.item[np.maximum(rows, 0)], NOTHING) if len(self.item) else rows * 0 + NOTHING


@dataclass(frozen=True, eq=False)
class Predicted:
    """The predictions as they stand in the file.

    Attributes:
        user: ``(R,)`` int64.
        item: ``(R,)`` int64.
        score: ``(R,)`` float64, higher is better (minus the rank where the file has no scores); NaN as in the file.
        rank: ``(R,)`` float64 as in the file, or None.
        line: ``(R,)`` int64.
        scored: whether the scores are the file's own.
    """

    user: Ints
    item: Ints
    score: Floats
    rank: Floats | None
    line: Ints
    scored: bool


@dataclass(frozen=True, eq=False)
class Lists:
    """Ranked lists, sorted by user and from the best to the worst; an item that a list repeats counts once.

    Attributes:
        user: ``(P,)`` int64.
        item: ``(P,)`` int64.
        score: ``(P,)`` float64, higher is better.
        line: ``(P,)`` int64.
        offsets: ``(users + 1,)`` int64.
        best: ``(P,)`` float64, the rank within the list with ties counted in favour, from 1.
        worst: ``(P,)`` float64, the rank with ties counted against.
        n_items: size of the item catalogue.
    """

    user: Ints
    item: Ints
    score: Floats
    line: Ints
    offsets: Ints
    best: Floats
    worst: Floats
    n_items: int

    @classmethod
    def of(cls, user: Ints, item: Ints, score: Floats, line: Ints, n_users: int, n_items: int) -> tuple[Lists, Ints]:
        """Rank each user's items by score; also the lines of repeated (user, item) pairs that were left out."""
        order = np.lexsort((line, -score, user))
        user, item, score, line = user[order], item[order], score[order], line[order]
        _, first = np.unique(user * n_items + item, return_index=True)
        keep = np.zeros(len(user), dtype=bool)
        keep[first] = True
        repeated = line[~keep]
        user, item, score, line = user[keep], item[keep], score[keep], line[keep]
        offsets = offsets_of(np.bincount(user, minlength=n_users))
        best, worst = _tied_ranks(user, score, offsets)
        return cls(user, item, score, line, offsets, best, worst, n_items), repeated

    @property
    def lengths(self) -> Ints:
        """``(users,)``: how many items each user's list has."""
        return np.diff(self.offsets)

    @cached_property
    def mean(self) -> Floats:
        """``(P,)``: the mean rank of ties."""
        return (self.best + self.worst) / 2

    @cached_property
    def reversed(self) -> Floats:
        """``(P,)``: the mean rank if lower scores were better."""
        return self.lengths[self.user] + 1 - self.mean

    @cached_property
    def _keys(self) -> tuple[Ints, Ints]:
        keys = self.user * self.n_items + self.item
        order = np.argsort(keys, kind="stable")
        return keys[order], order

    def rows_of(self, users: Ints, items: Ints) -> Ints:
        """The row at which each user's list has the item; :data:`NOTHING` where it doesn't."""
        keys, order = self._keys
        if not len(keys):
            return np.full(len(users), NOTHING)
        wanted = users * self.n_items + items
        places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        there = (keys[places] == wanted) & (items >= 0) & (users >= 0)
        return np.where(there, order[places], NOTHING)

    def ranks_of(self, users: Ints, items: Ints, ranks: Floats | None = None) -> Floats:
        """The rank of each item in the user's list, infinite where it isn't there: mean ranks, or of ``ranks``."""
        rows = self.rows_of(users, items)
        values = self.mean if ranks is None else ranks
        return np.where(rows >= 0, values[np.maximum(rows, 0)], np.inf) if len(values) else np.full(len(rows), np.inf)


def _tied_ranks(user: Ints, score: Floats, offsets: Ints) -> tuple[Floats, Floats]:
    """The first and the last place of each row's tie within its list, from 1."""
    if not len(user):
        return np.zeros(0), np.zeros(0)
    new = np.concatenate([[True], (user[1:] != user[:-1]) | (score[1:] != score[:-1])])
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], len(user))
    group = np.cumsum(new) - 1
    return (starts[group] - offsets[user] + 1).astype(float), (ends[group] - offsets[user]).astype(float)


@dataclass(frozen=True, eq=False)
class Pair:
    """What is asked and what was answered.

    An example is a user with one or more targets; leave-one-out has one.

    Attributes:
        users: the user ids.
        items: the item ids.
        events: all interactions.
        history: the interactions that precede the targets.
        lists: the predictions, ranked.
        predicted: the predictions as they stand in the file.
        repeated: lines of predictions that repeat a user's item.
        train: what the model was trained on, or None.
        example_user: ``(C,)`` int64, ascending.
        example: ``(T,)`` int64, the example of each target.
        target: ``(T,)`` int64, items.
        target_line: ``(T,)`` int64, the targets' lines in the file that has them.
        held_out: whether the targets come from a file of their own, not from leave-one-out.
        ks: list lengths that metrics are reported at.
        places: how a line of each file is named in a finding.
    """

    users: Catalogue
    items: Catalogue
    events: Events
    history: Events
    lists: Lists
    predicted: Predicted
    repeated: Ints
    train: Events | None
    example_user: Ints
    example: Ints
    target: Ints
    target_line: Ints
    held_out: bool
    ks: tuple[int, ...]
    places: Mapping[str, Callable[[int], str]]

    @cached_property
    def target_user(self) -> Ints:
        """``(T,)``: the user of each target."""
        return self.example_user[self.example]

    @cached_property
    def ranks(self) -> Floats:
        """``(T,)``: the targets' mean ranks, infinite where a list lacks the target."""
        return self.lists.ranks_of(self.target_user, self.target)

    @cached_property
    def head(self) -> int:
        """The K at which effects are told."""
        return 10 if 10 in self.ks else max(self.ks)

    @cached_property
    def in_history(self) -> Bools:
        """``(T,)``: whether the user's own history holds the target."""
        return self.among_history(self.target_user, self.target)

    @cached_property
    def seen(self) -> Bools:
        """``(P,)``: whether a predicted item is in the user's history."""
        return self.among_history(self.lists.user, self.lists.item)

    @cached_property
    def in_target(self) -> Bools:
        """``(P,)``: whether a predicted item is a target of its user."""
        found = np.zeros(len(self.lists.user), dtype=bool)
        rows = self.lists.rows_of(self.target_user, self.target)
        found[rows[rows >= 0]] = True
        return found

    @cached_property
    def distinct(self) -> Ints:
        """``(users,)``: how many different items each user's history has."""
        return np.bincount(self._history_keys // len(self.items), minlength=len(self.users))

    @cached_property
    def _history_keys(self) -> Ints:
        return np.unique(self.history.user * len(self.items) + self.history.item)

    def among_history(self, users: Ints, items: Ints) -> Bools:
        """Whether each user's history holds the item."""
        keys, wanted = self._history_keys, users * len(self.items) + items
        if not len(keys):
            return np.zeros(len(wanted), dtype=bool)
        found: Bools = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
        return found

    def where(self, targets: Ints) -> Iterator[str]:
        """Names of targets, given by their places in :attr:`target`."""
        source = self.places["test" if self.held_out else "interactions"]
        for place in targets:
            user, item = self.users.names[self.target_user[place]], self.items.names[self.target[place]]
            yield f"user {user}, target {item}, {source(int(self.target_line[place]))}"

    def where_predicted(self, rows: Ints) -> Iterator[str]:
        """Names of predictions, given by their places in :attr:`predicted`."""
        for row in rows:
            user, item = self.users.names[self.predicted.user[row]], self.items.names[self.predicted.item[row]]
            yield f"user {user}, item {item}, {self.places['predictions'](int(self.predicted.line[row]))}"

    def where_event(self, rows: Ints) -> Iterator[str]:
        """Names of interactions, given by their places in :attr:`events`."""
        for row in rows:
            user, item = self.users.names[self.events.user[row]], self.items.names[self.events.item[row]]
            yield f"user {user}, item {item}, {self.places['interactions'](int(self.events.line[row]))}"

    def names(self, users: Ints) -> Iterator[str]:
        """Names of users."""
        return (f"user {self.users.names[user]}" for user in users)

    def figure(self, ranks: Floats, k: int | None = None) -> str:
        """The hit rate of ``ranks`` as text."""
        return f"HR@{k or self.head} {self.hits(ranks, k):.4f}"

    def hits(self, ranks: Floats, k: int | None = None) -> float:
        """The share of targets with a rank of at most ``k`` (:attr:`head` if not given)."""
        return float((ranks <= (k or self.head)).mean()) if len(ranks) else 0.0


def far_higher(other: Floats, base: Floats, factor: float = 1.5, sigmas: float = 4.0) -> bool:
    """Whether ranks ``other`` ``(T,)`` are so much better than ``base`` that chance is out of the question.

    Both are infinite where there is no hit. Compared is the mean reciprocal rank, whose paired difference must be
    ``sigmas`` standard errors above zero and at least ``factor`` times the base.
    """
    first, second = 1 / other, 1 / base
    difference = first - second
    mean, spread = difference.mean(), difference.std()
    # A handful of users can't prove anything: at least five must gain.
    significant = mean > sigmas * spread / np.sqrt(len(difference)) and (difference > 0).sum() >= 5
    return bool(significant and first.mean() > factor * second.mean())

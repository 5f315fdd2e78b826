"""A pair of files as a bundle in memory, evaluation examples and ranked lists, with line numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from deshi.arrays import Array, Bools, Floats, Ints
from deshi.auditing._pair_files import Table
from deshi.auditing._ranked_lists import NOTHING, RankedLists
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples
from deshi.types import ITEM, USER


@dataclass(frozen=True, eq=False)
class Pair:
    """What users did and what was recommended to them, in one numbering of users and items.

    An example is a user with one or more targets; leave-one-out has one.

    Attributes:
        bundle: each user's history, oldest first, followed by the targets; times are positions in their order.
        lines: ``(E,)`` int64, the line of each event in its file.
        examples: of the bundle.
        lists: the predictions, ranked.
        interactions: as in the file: ``user``, ``item``, ``line`` Int64, and ``time`` where there are times.
        predictions: as in the file: ``user``, ``item``, ``line`` Int64, ``score`` Float64 (higher is better; minus the
            rank where the file has no scores) and ``rank`` Float64 where the file has it.
        scored: whether the scores are the file's own.
        train: what the model was trained on, as ``interactions``, or None.
        n_known_users: users of the interactions; they have the smallest numbers.
        n_known_items: items of the interactions; they have the smallest numbers.
        tables: the files.
        ks: list lengths that metrics are reported at.
    """

    bundle: Bundle
    lines: Ints
    examples: Examples
    lists: RankedLists
    interactions: pl.DataFrame
    predictions: pl.DataFrame
    scored: bool
    train: pl.DataFrame | None
    n_known_users: int
    n_known_items: int
    tables: Mapping[str, Table]
    ks: tuple[int, ...]

    @property
    def held_out(self) -> bool:
        """Whether the targets come from a file of their own, not from leave-one-out."""
        return "test" in self.tables

    @property
    def timed(self) -> bool:
        """Whether the interactions have times."""
        return "time" in self.interactions.columns

    @cached_property
    def items(self) -> Ints:
        """``(E,)``: the item of each event."""
        return self.bundle.items.astype(np.int64)

    @cached_property
    def targets(self) -> Ints:
        """``(T,)``: the item of each target."""
        return self.items[self.examples.target_rows]

    @cached_property
    def target_users(self) -> Ints:
        """``(T,)``: the user of each target."""
        return self.examples.users[self.examples.owners]

    @cached_property
    def history(self) -> tuple[Ints, Ints]:
        """Users and items ``(H,)`` of all events but the targets."""
        kept = np.ones(len(self.items), dtype=bool)
        kept[self.examples.target_rows] = False
        users = np.repeat(np.arange(self.bundle.n_users), np.diff(self.bundle.offsets))
        return users[kept], self.items[kept]

    def before_target(self, distance: int) -> tuple[Ints, Ints]:
        """``(C,)`` rows and items of each example's event so many before the first target, :data:`NOTHING` if none."""
        rows = self.examples.ends - distance
        rows = np.where(rows >= self.examples.starts, rows, NOTHING)
        return rows, np.append(self.items, NOTHING)[rows]

    @cached_property
    def ranks(self) -> Floats:
        """``(T,)``: the targets' mean ranks, infinite where a list lacks the target."""
        return self.lists.ranks_of(self.target_users, self.targets)

    @cached_property
    def head(self) -> int:
        """The K at which effects are reported."""
        return 10 if 10 in self.ks else max(self.ks)

    @cached_property
    def in_history(self) -> Bools:
        """``(T,)``: whether the user's own history holds the target."""
        return self._among_history(self.target_users, self.targets)

    @cached_property
    def seen(self) -> Bools:
        """``(P,)``: whether a predicted item is in the user's history."""
        return self._among_history(self.lists.user, self.lists.item)

    @cached_property
    def seen_only(self) -> Bools:
        """``(P,)``: whether a predicted item is in the user's history and no target."""
        seen, rows = self.seen.copy(), self.lists.rows_of(self.target_users, self.targets)
        seen[rows[rows >= 0]] = False
        return seen

    @cached_property
    def distinct(self) -> Ints:
        """``(users,)``: how many different items each user's history has."""
        return np.bincount(self._history_keys // self.bundle.n_items, minlength=self.bundle.n_users)

    @cached_property
    def _history_keys(self) -> Ints:
        users, items = self.history
        return np.unique(users * self.bundle.n_items + items)

    def _among_history(self, users: Ints, items: Ints) -> Bools:
        return np.isin(users * self.bundle.n_items + items, self._history_keys)

    def user_id(self, user: int) -> str:
        """The id of a user's number."""
        return str(self.bundle.users[USER][int(user)])

    def item_id(self, item: int) -> str:
        """The id of an item's number."""
        return str(self.bundle.vocabulary[ITEM][int(item)])

    def users_named(self, users: Array) -> Iterator[str]:
        """Users, as a finding names them."""
        return (f"user {self.user_id(user)}" for user in users)

    def targets_at(self, targets: Array) -> Iterator[str]:
        """Targets ``0 .. T - 1``, as a finding names them."""
        key = "test" if self.held_out else "interactions"
        for target in targets:
            line = self.tables[key].location(int(self.lines[self.examples.target_rows[target]]))
            yield f"user {self.user_id(self.target_users[target])}, target {self.item_id(self.targets[target])}, {line}"

    def rows_at(self, key: str, rows: pl.DataFrame) -> Iterator[str]:
        """Rows of the file ``key`` with ``user``, ``item`` and ``line``, as a finding names them."""
        for user, item, line in rows.select("user", "item", "line").iter_rows():
            yield f"user {self.user_id(user)}, item {self.item_id(item)}, {self.tables[key].location(line)}"

    @property
    def several(self) -> bool:
        """Whether users have several targets, so that the share of targets in lists is no hit rate of users."""
        return len(self.targets) > len(self.examples)

    def measure(self, k: int | None = None) -> str:
        """The name of :meth:`hits` at ``k``: the hit rate, or the share of targets where users have several."""
        return f"{'share of targets hit' if self.several else 'HR'}@{k or self.head}"

    def figure(self, ranks: Floats) -> str:
        """The share of ``ranks`` up to :attr:`head`, each of a target, with its name."""
        return f"{self.measure()} {self.hits(ranks):.4f}"

    def user_figure(self, ranks: Floats) -> str:
        """The hit rate of users by ``ranks``, the best one of each user."""
        return f"HR@{self.head} {self.hits(ranks):.4f}"

    def hits(self, ranks: Floats, k: int | None = None) -> float:
        """The share of ranks of at most ``k`` (:attr:`head` if not given)."""
        return float((ranks <= (k or self.head)).mean()) if len(ranks) else 0.0


def sorted_events(events: pl.DataFrame) -> pl.DataFrame:
    """By user and time; equal times, or all events without times, stay in the file's order."""
    return events.sort([name for name in ("user", "time") if name in events.columns], maintain_order=True)


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

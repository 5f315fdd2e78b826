"""Tables in which a row is a history: lists of items as events."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from deshi.arrays import Ints, offsets_of
from deshi.tables import code_texts, ids
from deshi.tables.id_lists import NO_LIST, id_lists

Problem = tuple[int, str]
"""A row's number and why it is malformed."""

_LIST = re.compile(r"^\s*\[.*\]\s*$", re.DOTALL)


@dataclass(frozen=True, eq=False)
class Lists:
    """A list for each row. The list of row ``r`` is ``values[offsets[r]:offsets[r + 1]]``.

    Attributes:
        values: the entries of all lists.
        offsets: ``(rows + 1,)``.
        problems: rows whose text is no list.
    """

    values: pl.Series
    offsets: Ints
    problems: list[Problem]

    @property
    def lengths(self) -> Ints:
        """``(rows,)`` number of entries."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, column: pl.Series, separator: str) -> Lists:
        """The lists of a column of lists, or of texts: JSON, Python or numpy lists, or ids between separators.

        Raises:
            DeshiError: for a column of single values.
        """
        if isinstance(column.dtype, pl.Array):
            column = column.arr.to_list()
        if isinstance(column.dtype, pl.List):
            lengths = column.list.len().fill_null(0).to_numpy()
            return cls(column.explode(empty_as_null=False, keep_nulls=False), offsets_of(lengths), [])
        lists = id_lists(column, separator, keep_missing=True)
        problems = [(row, f"{column.name} is {NO_LIST}") for row in lists.malformed.arg_true().to_list()]
        return cls(lists.values, offsets_of(lists.lengths), problems)


def is_list_text(column: pl.Series) -> bool:
    """Whether most texts of a column (of texts, or their codes) look like lists, as in ``[926, 38]``."""
    if isinstance(column.dtype, pl.Categorical):
        is_list = code_texts(column).str.contains(_LIST.pattern)
        return bool(is_list.any()) and bool(is_list.gather(column.to_physical().drop_nulls()).mean() > 0.5)  # type: ignore[operator]
    texts = column.drop_nulls()
    return column.dtype == pl.String and len(texts) > 0 and bool(texts.str.contains(_LIST.pattern).mean() > 0.5)  # type: ignore[operator]


@dataclass(frozen=True, eq=False)
class Unfolded:
    """The events of a table of histories.

    Attributes:
        users: user ids of the events.
        items: item ids.
        rows: the row of each event.
        problems: rows that are no histories.
    """

    users: list[str]
    items: list[str]
    rows: list[int]
    problems: list[Problem]


def merge_histories(users: pl.Series, histories: Lists, targets: pl.Series | None) -> Unfolded:
    """The events of each user, users in the order of their first row.

    A user may have many rows. Files of training examples hold every beginning of a history with the item that came
    next, long ones cut to their latest items. Rows are taken by length, then in their order. The items of a row (its
    history and its target) must begin with all the user's items so far, repeat the row before, or, where the history
    has the greatest length in the file, be the latest items with one more. Any other row contradicts and is malformed.

    Args:
        users: ids.
        histories: item ids, oldest first.
        targets: the item that came next, or None.
    """
    items, offsets = ids(histories.values).to_list(), histories.offsets.tolist()
    names, nexts = users.to_list(), None if targets is None else targets.to_list()
    problems, is_damaged = list(histories.problems), {row for row, _ in histories.problems}
    longest = int(histories.lengths.max()) if len(names) else 0
    sequences: dict[str, _Sequence] = {name: _Sequence() for name in dict.fromkeys(names) if name is not None}
    for row in np.argsort(histories.lengths, kind="stable").tolist():
        events = items[offsets[row] : offsets[row + 1]] + ([] if nexts is None else [nexts[row]])
        if row in is_damaged:
            continue
        if names[row] is None:
            problems.append((row, "no user id"))
        elif not events or None in events:
            problems.append((row, "no item id" if events else "no items"))
        elif not sequences[names[row]].extend(events, row, is_cut=nexts is not None and len(events) == longest + 1):
            problems.append((row, f"the history contradicts another row of user {names[row]}"))
    return Unfolded(
        users=[name for name, sequence in sequences.items() for _ in sequence.items],
        items=[item for sequence in sequences.values() for item in sequence.items],
        rows=[row for sequence in sequences.values() for row in sequence.rows],
        problems=problems,
    )


class _Sequence:
    """A user's items so far, and the row of each."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.rows: list[int] = []
        self._before: list[str] = []

    def extend(self, events: list[str], row: int, is_cut: bool) -> bool:
        """Take the items of a row; False if they contradict those so far."""
        if events[: len(self.items)] == self.items:
            new = events[len(self.items) :]
        elif is_cut and self.items[-len(events) + 1 :] == events[:-1]:
            new = events[-1:]
        elif events == self._before:
            new = []
        else:
            return False
        self.items += new
        self.rows += [row] * len(new)
        self._before = events
        return True

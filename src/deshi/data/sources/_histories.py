"""Tables in which a row is a history: lists of items as events."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from deshi.arrays import Ints, offsets_of
from deshi.tables import id_text, ids
from deshi.types import DeshiError

Problem = tuple[int, str]
"""A row's number and why it is malformed."""

_ENTRY = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s,\[\]"']+)\s*,?""")
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
        if column.dtype not in (pl.String, pl.Null):
            raise DeshiError(
                f"The column {column.name!r} holds {column.dtype}, expected a list in each row: the history of a user."
            )
        lists: list[list[str | None]] = []
        problems: list[Problem] = []
        for row, text in enumerate(column.to_list()):
            try:
                lists.append(_entries(text or "", separator))
            except ValueError as error:
                lists.append([])
                problems.append((row, f"{column.name} is no list: {error}"))
        values = pl.Series(column.name, [entry for entries in lists for entry in entries], pl.String)
        return cls(values, offsets_of([len(entries) for entries in lists]), problems)


def is_list_text(column: pl.Series) -> bool:
    """Whether most texts of a column look like lists, as in ``[926, 38]``."""
    texts = column.drop_nulls()
    return column.dtype == pl.String and len(texts) > 0 and bool(texts.str.contains(_LIST.pattern).mean() > 0.5)  # type: ignore[operator]


def _entries(text: str, separator: str) -> list[str | None]:
    """The entries of a list that is written as text."""
    if not _LIST.match(text):
        return [id_text(entry) for entry in text.split(separator) if entry.strip()]
    try:
        return [id_text(entry) for entry in json.loads(text)]
    except (ValueError, RecursionError):
        return list(_python_entries(text.strip()[1:-1].strip()))
    except DeshiError as error:  # a list of lists
        raise ValueError(str(error)) from error


def _python_entries(inside: str) -> Iterator[str | None]:
    """The entries of a Python list, or of a printed array of numpy, which has no commas."""
    position = 0
    while position < len(inside):
        match = _ENTRY.match(inside, position)
        if match is None or match[1] == "...":
            raise ValueError(f"it can't be read from {inside[position : position + 20]!r} on")
        entry: Any = match[1]
        if entry[0] in "'\"":
            entry = ast.literal_eval(entry)
        elif re.fullmatch(r"-?\d+\.\d*", entry):
            entry = float(entry)
        elif entry in ("None", "null"):
            entry = None
        yield id_text(entry)
        position = match.end()


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

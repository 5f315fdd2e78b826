"""A source's columns as the columns of RawData, with a reason for each malformed row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from deshi.arrays import Ints, range_rows
from deshi.data.raw import FILTER, BadRowLog
from deshi.data.sources._histories import Lists, is_list_text, merge_histories
from deshi.data.sources._rows import SourceRows
from deshi.tables import Table, TableFormat, coded_ids, ids, numbers, read_table, require_columns, to_timestamps
from deshi.tables.times import check_unit, detect_unit
from deshi.types import ITEM, RATING, TIMESTAMP, USER, DeshiError

REASON = "__reason__"
SLICE = 1 << 21
"""Rows that are converted at a time, where each can be read without the others."""

ADVICE = "Set the column names in data.source."


@dataclass(frozen=True)
class Columns:
    """Which column of a source holds what.

    Attributes:
        user: column of user ids.
        item: column of item ids.
        time: column of timestamps or positions; None only with ``unit="row"``.
        rating: column of ratings, or None.
        unit: one of :data:`deshi.tables.times.UNITS`.
        time_format: of times that are texts or numbers such as 20231115, instead of the unit; or None.
        history: column of lists of item ids, oldest first; None: a row is one event. With it, ``item`` is the item
            that came next (None: the list is all), and ``time`` a list of the same length (None: the list is in order).
        separator: between the ids of a history that is a text.
        further: columns that only filters look at.
    """

    user: str
    item: str | None
    time: str | None
    rating: str | None = None
    unit: str = "s"
    time_format: str | None = None
    history: str | None = None
    separator: str = " "
    further: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_unit(self.unit)
        if self.item is None and self.history is None:
            raise DeshiError(
                "The item column is null, expected its name, or data.source.history for a column of lists."
            )
        if self.history is not None and (self.rating or (self.item and self.time)):
            raise DeshiError(
                f"data.source.history={self.history} makes a row a history, which has no rating (set rating=null), and "
                f"times only as a list of the same length with item=null. Else set timestamp=null time_unit=row."
            )
        if (self.time is None) != (self.unit == "row"):
            raise DeshiError(
                f"The time column is {self.time!r} with time_unit={self.unit!r}. Name a timestamp or position column, "
                f"or set time_unit=row without one to take the rows' order in the source."
            )
        if self.time_format is not None and self.unit in ("row", "position"):
            raise DeshiError(f"time_format and time_unit={self.unit} exclude each other. Leave one of them out.")

    @property
    def used(self) -> list[str]:
        """The names of the columns that are read, each once."""
        named = [self.user, self.history, self.item, self.time, self.rating, *self.further]
        return list(dict.fromkeys(name for name in named if name is not None))

    @property
    def numeric(self) -> list[str]:
        """The names of the columns of times and ratings, none of which holds lists."""
        if self.history is not None:
            return []
        texts = (self.user, self.item, self.history, *self.further)
        return [name for name in (self.time, self.rating) if name is not None and name not in texts]

    @property
    def coded(self) -> list[str]:
        """The names of the columns of ids and of filters that may be read as codes: none where a row is a history."""
        if self.history is not None:
            return []
        texts = (self.user, self.item, *self.further)
        return [name for name in dict.fromkeys(texts) if name is not None and name not in (self.time, self.rating)]

    def check(self, names: Sequence[str], label: str, advice: str = ADVICE) -> None:
        """Refuse a table without one of the columns; ``names`` are those that it has."""
        require_columns(names, self.used, label, advice)


def read_interactions(path: Path, label: str, form: TableFormat, columns: Columns, log: BadRowLog) -> pl.DataFrame:
    """The interactions of a file in RawData's columns, see :func:`deshi.tables.read_table`, :func:`interactions_of`."""
    return interactions_of([read_table(path, columns.used, form, label, columns.numeric, advice=ADVICE)], columns, log)


def convert(frame: pl.DataFrame, columns: Columns) -> Iterator[pl.DataFrame]:
    """``frame`` in RawData's columns plus ``__reason__``, null for a good row; rows and their order stay.

    Columns of ``frame`` may be text, codes of texts, or typed; a row is one event. Long frames come in slices, since
    numbers of millions of rows on their way to times and ratings take several times the memory of the frame.

    Raises:
        DeshiError: for columns that hold lists.
    """
    assert columns.item is not None
    for name in (columns.user, columns.item):
        _check_single(frame[name])
    names = {USER: columns.user, ITEM: columns.item} | {FILTER + name: name for name in columns.further}
    texts = pl.DataFrame([coded_ids(frame[name]).alias(column) for column, name in names.items()])
    unit, size = columns.unit, max(frame.height, 1)
    time = None if columns.time is None else frame[columns.time]
    if time is not None and unit == "auto" and time.dtype.is_numeric() and columns.time_format is None:
        unit = detect_unit(time)
    if _is_elementwise(frame, columns):
        size = min(size, SLICE)
    for begin in range(0, max(frame.height, 1), size):
        yield _convert(texts.slice(begin, size), frame.slice(begin, size), columns, unit, begin)


def _is_elementwise(frame: pl.DataFrame, columns: Columns) -> bool:
    """Whether a time's and a rating's reading doesn't depend on other rows, as that of texts may."""
    if columns.rating is not None and not frame[columns.rating].dtype.is_numeric():
        return False
    time = None if columns.time is None else frame[columns.time].dtype
    if time is None or time.is_temporal():
        return True
    return time.is_numeric() and columns.unit not in ("iso", "date") and columns.time_format is None


def _convert(texts: pl.DataFrame, frame: pl.DataFrame, columns: Columns, unit: str, begin: int) -> pl.DataFrame:
    """Rows of :func:`convert` from row ``begin`` on: ``texts`` are their ids and filters, ``frame`` has the numbers."""
    time = to_timestamps(frame[columns.time or columns.user], unit, columns.time_format)
    if unit == "row":
        time += begin
    converted = texts.select(USER, ITEM, time.alias(TIMESTAMP))
    # The first reason that applies is the one that is told.
    reason = (
        pl.when(pl.col(USER).is_null()).then(pl.lit("no user id"))
        .when(pl.col(ITEM).is_null()).then(pl.lit("no item id"))
        .when(pl.col(TIMESTAMP).is_null()).then(pl.lit(_no_time(columns)))
    )  # fmt: skip
    if columns.rating is not None:
        ratings = frame[columns.rating]
        converted = converted.with_columns(numbers(ratings).cast(pl.Float32).alias(RATING))
        is_empty = ratings.is_null() if ratings.dtype.is_numeric() else ratings.cast(pl.String).fill_null("") == ""
        wrong = pl.lit(~is_empty) & ~pl.col(RATING).is_finite().fill_null(False)
        reason = reason.when(wrong).then(pl.lit("rating is not a finite number"))
    converted = converted.with_columns(texts.drop(USER, ITEM).get_columns())
    return converted.with_columns(reason.otherwise(None).alias(REASON))


def _no_time(columns: Columns) -> str:
    """Why a row has no time."""
    if columns.unit == "position":
        return "no valid position: a whole number from 0 on"
    form = f"time_unit={columns.unit}" if columns.time_format is None else f"time_format={columns.time_format}"
    return f"no valid timestamp from 1970 to 2199 ({form})"


def _check_single(column: pl.Series) -> None:
    """Refuse lists where an id is expected."""
    if isinstance(column.dtype, pl.List | pl.Array) or is_list_text(column):
        example = column.drop_nulls()[0] if column.null_count() < len(column) else None
        example = example.to_list() if isinstance(example, pl.Series) else example
        raise DeshiError(
            f"The column {column.name!r} holds lists such as {str(example)[:60]}, expected one id a row. If a row is "
            f"a user's history, set data.source.history={column.name}, and data.source.item to the column of the item "
            f"that came next, or to null; without a list of times also timestamp=null time_unit=row."
        )


def interactions_of(tables: Sequence[Table], columns: Columns, log: BadRowLog) -> pl.DataFrame:
    """The interactions of tables in RawData's columns, in the tables' order; all other rows go to ``log``.

    Raises:
        DeshiError: for a malformed row that ``log`` refuses, and tables without rows.
    """
    rows = SourceRows.of(tables, [name for name in (columns.user, columns.item, *columns.further) if name])
    frame, origins = rows.frame, None
    problems: list[tuple[int, str]] = []
    if columns.history is not None:
        frame, columns, origins, problems = _unfolded(frame, columns)
    parts, begin, reasons = [], 0, dict(problems)
    for part in convert(frame, columns):
        for row in part[REASON].is_not_null().arg_true().to_list():
            reasons[begin + row if origins is None else int(origins[begin + row])] = part[REASON][row]
        parts.append((part.filter(pl.col(REASON).is_null()) if part[REASON].count() else part).drop(REASON))
        begin += part.height
    events = pl.concat(parts)
    contents = ((row, reason, ", ".join(map(str, rows.frame.row(row)))) for row, reason in sorted(reasons.items()))
    rows.log(contents, log)
    n_malformed = [len(table.malformed) for table in tables]
    log.count(
        read=rows.frame.height + sum(n_malformed), malformed=len(reasons) + sum(n_malformed), events=events.height,
        blank=sum(table.blank for table in tables), continued=sum(table.continued for table in tables),
    )  # fmt: skip
    if origins is not None:
        log.count(histories=rows.frame.height - len(reasons))
    return not_empty(events, tables[0].label)


def _unfolded(frame: pl.DataFrame, columns: Columns) -> tuple[pl.DataFrame, Columns, Ints, list[tuple[int, str]]]:
    """The events of histories: a row each, their columns, the history's row of each, and rows that are no histories."""
    histories = Lists.of(frame[str(columns.history)], columns.separator)
    if columns.item is None and columns.time is not None:
        return _parallel(frame, columns, histories)
    for name in (columns.user, columns.item):
        if name is not None:
            _check_single(frame[name])
    targets = None if columns.item is None else ids(frame[columns.item])
    events = merge_histories(ids(frame[columns.user]), histories, targets)
    origins = np.array(events.rows, dtype=np.int64)
    further = [frame[name].gather(origins) for name in columns.further]
    plain = pl.DataFrame({USER: events.users, ITEM: events.items}, schema={USER: pl.String, ITEM: pl.String})
    return plain.with_columns(further), replace(columns, user=USER, item=ITEM, history=None), origins, events.problems


def _parallel(
    frame: pl.DataFrame, columns: Columns, histories: Lists
) -> tuple[pl.DataFrame, Columns, Ints, list[tuple[int, str]]]:
    """The same where another column holds a time for each event, such as in sessions; further columns may be lists."""
    problems = dict(histories.problems) | {int(row): "no items" for row in np.flatnonzero(histories.lengths == 0)}
    lists = {ITEM: histories}
    for name in (str(columns.time), *columns.further):
        if name == columns.time or isinstance(frame[name].dtype, pl.List):
            lists[name] = Lists.of(frame[name], columns.separator)
            for row in np.flatnonzero(lists[name].lengths != histories.lengths).tolist():
                reason = f"{histories.lengths[row]} items, but {lists[name].lengths[row]} entries in {name}"
                problems.setdefault(row, reason)
    users = ids(frame[columns.user])
    problems |= {row: "no user id" for row in users.is_null().arg_true().to_list()}
    keep = ~np.isin(np.arange(frame.height), list(problems))
    starts = {name: entries.offsets[:-1][keep] for name, entries in lists.items()}
    origins = np.repeat(np.flatnonzero(keep), histories.lengths[keep])
    events = frame.select(columns.user, *(name for name in columns.further if name not in lists))[origins]
    taken = [
        entries.values.gather(range_rows(starts[name], starts[name] + entries.lengths[keep])).alias(name)
        for name, entries in lists.items()
    ]
    return events.with_columns(taken), replace(columns, item=ITEM, history=None), origins, list(problems.items())


def not_empty(frame: pl.DataFrame, label: str) -> pl.DataFrame:
    """``frame``, refused if it has no rows."""
    if frame.is_empty():
        raise DeshiError(f"{label} is empty: it has no rows. Check that it is the right file.")
    return frame

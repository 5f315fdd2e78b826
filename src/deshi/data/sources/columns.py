"""A source's columns as the columns of RawData, with a reason for each malformed row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from deshi.data.raw import BadRowLog
from deshi.tables import Table, TableFormat, ids, numbers, read_table, require_columns, to_timestamps
from deshi.tables.times import check_unit
from deshi.types import ITEM, RATING, TIMESTAMP, USER, DeshiError

REASON = "__reason__"


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
    """

    user: str
    item: str
    time: str | None
    rating: str | None = None
    unit: str = "s"
    time_format: str | None = None

    def __post_init__(self) -> None:
        check_unit(self.unit)
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
        named = [self.user, self.item, self.time, self.rating]
        return list(dict.fromkeys(name for name in named if name is not None))

    @property
    def numeric(self) -> list[str]:
        """The names of the columns of times and ratings."""
        return [name for name in (self.time, self.rating) if name is not None and name not in (self.user, self.item)]

    def check(self, names: Sequence[str], label: str, advice: str = "Set the column names in data.source.") -> None:
        """Refuse a table without one of the columns; ``names`` are those that it has."""
        require_columns(names, self.used, label, advice)


def read_interactions(path: Path, label: str, form: TableFormat, columns: Columns, log: BadRowLog) -> pl.DataFrame:
    """The interactions of a file in RawData's columns, see :func:`deshi.tables.read_table`, :func:`interactions_of`."""
    advice = "Set the column names in data.source."
    table = read_table(path, columns.used, form, label, columns.numeric, advice=advice)
    return interactions_of(table, columns, log)


def convert(frame: pl.DataFrame, columns: Columns) -> pl.DataFrame:
    """``frame`` in RawData's columns plus ``__reason__``, null for a good row; rows and their order stay.

    Columns of ``frame`` may be text or typed.
    """
    user, item = ids(frame[columns.user]), ids(frame[columns.item])
    time = to_timestamps(frame[columns.time] if columns.time else user, columns.unit, columns.time_format)
    converted = pl.DataFrame({USER: user, ITEM: item, TIMESTAMP: time})
    # The first reason that applies is the one that is told.
    reason = (
        pl.when(pl.col(USER).is_null()).then(pl.lit("no user id"))
        .when(pl.col(ITEM).is_null()).then(pl.lit("no item id"))
        .when(pl.col(TIMESTAMP).is_null()).then(pl.lit(_no_time(columns)))
    )  # fmt: skip
    if columns.rating is not None:
        ratings = frame[columns.rating]
        converted = converted.with_columns(numbers(ratings).cast(pl.Float32).alias(RATING))
        is_rated = pl.lit(ratings.is_not_null() & (ratings.cast(pl.String) != ""))
        wrong = is_rated & ~pl.col(RATING).is_finite().fill_null(False)
        reason = reason.when(wrong).then(pl.lit("rating is not a finite number"))
    return converted.with_columns(reason.otherwise(None).alias(REASON))


def _no_time(columns: Columns) -> str:
    """Why a row has no time."""
    if columns.unit == "position":
        return "no valid position: a whole number from 0 on"
    form = f"time_unit={columns.unit}" if columns.time_format is None else f"time_format={columns.time_format}"
    return f"no valid timestamp from 1970 to 2199 ({form})"


def interactions_of(table: Table, columns: Columns, log: BadRowLog) -> pl.DataFrame:
    """The interactions of a table in RawData's columns, in the table's order; all other rows go to ``log``.

    Raises:
        DeshiError: for a malformed row that ``log`` refuses, and a table without rows.
    """
    converted = convert(table.frame, columns)
    malformed = list(table.malformed)
    for row in converted[REASON].is_not_null().arg_true().to_list():
        content = ", ".join(str(value) for value in table.frame.row(row))
        malformed.append((table.lines[row], str(converted[REASON][row]), content))
    label = table.label if table.unit == "line" else f"{table.label} (row numbers)"
    for line, reason, content in sorted(malformed):
        log.add(label, line, reason, content)
    return not_empty(converted.filter(pl.col(REASON).is_null()).drop(REASON), table.label)


def not_empty(frame: pl.DataFrame, label: str) -> pl.DataFrame:
    """``frame``, refused if it has no rows."""
    if frame.is_empty():
        raise DeshiError(f"{label} is empty: it has no rows. Check that it is the right file.")
    return frame

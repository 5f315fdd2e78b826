"""A source's columns as the columns of RawData, with a reason for each malformed row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from deshi.data.raw import BadRowLog
from deshi.data.sources.times import check_unit, to_timestamps
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
        unit: one of :data:`deshi.data.sources.times.UNITS`.
    """

    user: str
    item: str
    time: str | None
    rating: str | None = None
    unit: str = "s"

    def __post_init__(self) -> None:
        check_unit(self.unit)
        if (self.time is None) != (self.unit == "row"):
            raise DeshiError(
                f"The time column is {self.time!r} with time_unit={self.unit!r}. Name a timestamp or position column, "
                f"or set time_unit=row without one to take the rows' order in the source."
            )

    @property
    def used(self) -> list[str]:
        """The names of the columns that are read, each once."""
        named = [self.user, self.item, self.time, self.rating]
        return list(dict.fromkeys(name for name in named if name is not None))

    def check(self, names: Sequence[str], label: str, advice: str = "Set the column names in data.source.") -> None:
        """Refuse a table without one of the columns; ``names`` are those that it has."""
        if missing := [name for name in self.used if name not in names]:
            raise DeshiError(f"{label} has no column {', '.join(missing)}; it has {', '.join(names)}. {advice}")


def convert(frame: pl.DataFrame, columns: Columns) -> pl.DataFrame:
    """``frame`` in RawData's columns plus ``__reason__``, null for a good row; rows and their order stay.

    Columns of ``frame`` may be text or typed.
    """
    user, item = ids(frame[columns.user]), ids(frame[columns.item])
    time = to_timestamps(frame[columns.time] if columns.time else user, columns.unit)
    converted = pl.DataFrame({USER: user, ITEM: item, TIMESTAMP: time})
    # The first reason that applies is the one that is told.
    reason = (
        pl.when(_blank(USER)).then(pl.lit("no user id"))
        .when(_blank(ITEM)).then(pl.lit("no item id"))
        .when(pl.col(TIMESTAMP).is_null()).then(pl.lit(f"no valid timestamp (time_unit={columns.unit})"))
    )  # fmt: skip
    if columns.rating is not None:
        ratings = frame[columns.rating]
        converted = converted.with_columns(_numbers(ratings).alias(RATING))
        is_rated = pl.lit(ratings.is_not_null() & (ratings.cast(pl.String) != ""))
        wrong = is_rated & ~pl.col(RATING).is_finite().fill_null(False)
        reason = reason.when(wrong).then(pl.lit("rating is not a finite number"))
    return converted.with_columns(reason.otherwise(None).alias(REASON))


def ids(column: pl.Series) -> pl.Series:
    """Ids as text; whole floats lose their ``.0``, NaN becomes null."""
    if column.dtype.is_float():
        column = column.set(~column.is_finite().fill_null(False), None)
        whole = column.cast(pl.Int64, strict=False)
        return whole.cast(pl.String) if (column == column.floor()).all() else column.cast(pl.String)
    return column.cast(pl.String)


def _blank(name: str) -> pl.Expr:
    text = pl.col(name)
    return text.is_null() | (text.str.strip_chars() == "") | text.is_in(["nan", "NaN"])


def _numbers(column: pl.Series) -> pl.Series:
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    return column.cast(pl.Float64, strict=False).cast(pl.Float32)


def good_rows(converted: pl.DataFrame) -> pl.DataFrame:
    """The rows without a reason against them, without that column."""
    return converted.filter(pl.col(REASON).is_null()).drop(REASON)


def take(converted: pl.DataFrame, original: pl.DataFrame, label: str, first_row: int, log: BadRowLog) -> pl.DataFrame:
    """Log the bad rows by their number in the source (``first_row`` for the first) and return the good ones."""
    for row in converted[REASON].is_not_null().arg_true().to_list():
        content = ", ".join(str(value) for value in original.row(row))
        log.add(label, first_row + row, converted[REASON][row], content)
    return good_rows(converted)


def not_empty(frame: pl.DataFrame, label: str) -> pl.DataFrame:
    """``frame``, refused if it has no rows."""
    if frame.is_empty():
        raise DeshiError(f"{label} is empty: it has no rows. Check that it is the right file.")
    return frame

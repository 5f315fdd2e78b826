"""Ids and numbers of foreign tables: the same text for the same id, whatever kind of file it came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from deshi.types import DeshiError

MISSING = ("nan", "NaN")
"""Texts that other programs write where an id is missing."""


def id_text(value: Any) -> str | None:
    """The id of a single value: whole numbers without a fraction, blanks around a text gone; None where it is missing.

    Raises:
        DeshiError: for bytes, lists and records.
    """
    if hasattr(value, "item") and not isinstance(value, str):  # a number or text of numpy
        value = value.item()
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, bytes | list | tuple | dict | set):
        raise DeshiError(f"{value!r} is a {type(value).__name__}, expected an id: a text or a number.")
    text = str(value).strip()
    return None if text in MISSING else text or None


def text_of(value: Any) -> str:
    """A metadata value as one line of text: nested lists joined, HTML and dictionaries left as they are."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join(text_of(entry) for entry in value if entry)
    return " ".join(str(value).split())


def ids(column: pl.Series) -> pl.Series:
    """Ids as texts: blanks around them are gone, whole numbers lose their fraction, missing ones are null.

    The same value gives the same text in every file: 3 and 3.0 of a parquet file, of JSON and of a data frame are "3".
    The text "3.0" of a csv file stays as it is: it may be a version.

    Raises:
        DeshiError: for lists, records and bytes.
    """
    check_scalars(column, "id")
    if column.dtype.is_float():
        texts = _float_ids(column)
    elif column.dtype.is_decimal():
        # A decimal keeps its zeros as text: 3.00 is 3, and 3.50 is 3.5.
        texts = column.cast(pl.String).str.replace(r"^([^.]*)\.0*$", "${1}").str.replace(r"^(.*\..*?)0+$", "${1}")
    else:
        texts = column.cast(pl.String)
    texts = texts.str.strip_chars()
    return texts.set((texts == "") | texts.is_in(MISSING), None)


def numbers(column: pl.Series) -> pl.Series:
    """Float64 numbers; null where the value is none. A comma is read as the decimal point where all numbers have it so.

    Raises:
        DeshiError: for lists, records and bytes.
    """
    check_scalars(column, "number", (pl.Date, pl.Datetime, pl.Time, pl.Duration))
    if column.dtype == pl.String:
        try:  # plain numbers need no further look
            return column.cast(pl.Float64)
        except pl.exceptions.InvalidOperationError:
            pass
    if column.dtype in (pl.String, pl.Categorical, pl.Enum):
        column = _decimal_points(column.cast(pl.String).str.strip_chars())
    return column.cast(pl.Float64, strict=False)


def check_scalars(column: pl.Series, meaning: str, refused: Sequence[type[pl.DataType]] = ()) -> None:
    """Refuse a column of lists, records, bytes or objects, or of one of the types ``refused``.

    Args:
        column: any column.
        meaning: what a value should be, for the message.
        refused: further types.

    Raises:
        DeshiError: names the column and its type.
    """
    if column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Object, *refused):
        raise DeshiError(
            f"The column {column.name!r} holds {column.dtype}, expected one {meaning} a row. "
            f"Write a row for each {meaning}, cast the column, or name another one."
        )


def _decimal_points(column: pl.Series) -> pl.Series:
    """Decimal commas as points, unless a point is used too or the commas may separate thousands."""
    commas = column.filter(column.str.contains(",", literal=True).fill_null(False))
    if commas.is_empty() or column.str.contains(".", literal=True).any():
        return column
    is_decimal = commas.str.contains(r"^[-+]?\d+,\d+$").all() and not commas.str.contains(r"^\D?\d{1,3},\d{3}$").all()
    return column.str.replace(",", ".", literal=True) if is_decimal else column


def _float_ids(column: pl.Series) -> pl.Series:
    column = column.cast(pl.Float64)
    is_whole = (column == column.floor()) & (column.abs() < 2**63)
    if is_whole.fill_null(True).all():
        return column.cast(pl.Int64, strict=False).cast(pl.String)
    return pl.Series(column.name, [None if value is None else _float_text(value) for value in column], pl.String)


def _float_text(value: float) -> str | None:
    if not math.isfinite(value):
        return None
    return str(int(value)) if value == math.floor(value) else repr(value)

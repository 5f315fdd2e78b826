"""Columns of ids as codes: each text is held once, in the categories of the column's type, and a row has 4 bytes."""

from __future__ import annotations

import polars as pl

from deshi.tables.values import ids


def new_codes() -> pl.Categorical:
    """A type with categories of its own. Columns of one such type share their codes."""
    return pl.Categorical(pl.Categories.random())


def coded_ids(column: pl.Series) -> pl.Series:
    """:func:`deshi.tables.ids` as a Categorical; the codes follow no order.

    Raises:
        DeshiError: for lists, records and bytes.
    """
    if not isinstance(column.dtype, pl.Categorical):
        return ids(column).cast(new_codes())
    texts = code_texts(column)
    cleaned = ids(texts)
    if cleaned.equals(texts):
        return column
    return cleaned.cast(new_codes()).gather(column.to_physical()).alias(column.name)


def code_texts(column: pl.Series) -> pl.Series:
    """The texts of a Categorical's codes, from code 0 to the largest one that it has."""
    codes = column.to_physical()
    size = int(codes.max()) + 1 if codes.count() else 0  # type: ignore[arg-type]
    every_code = pl.int_range(size, dtype=codes.dtype, eager=True)  # type: ignore[call-overload]
    return every_code.cat.to(column.dtype).cast(pl.String).alias(column.name)

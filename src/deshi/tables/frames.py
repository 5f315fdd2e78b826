"""Data frames of pandas, Polars and pyarrow as Polars frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl

from deshi.types import DeshiError

EXPECTED = "expected a data frame of pandas, Polars or pyarrow, or a dict of columns"


def to_polars(frame: Any, label: str) -> pl.DataFrame:
    """A data frame of any library as a Polars frame, its columns and rows in the same order.

    Polars and pyarrow frames, and all others with the Arrow PyCapsule interface, go through Polars' own constructor.
    pandas needs pyarrow for that; without it, its columns are read one by one.

    Args:
        frame: of pandas, Polars (lazy ones too) or pyarrow, or a dict or structured array of columns.
        label: what a message calls it.

    Raises:
        DeshiError: for another object, columns of unequal length, or two columns of one name.
    """
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, np.ndarray) and frame.dtype.names:
        frame = {name: frame[name] for name in frame.dtype.names}
    is_table = hasattr(frame, "__arrow_c_stream__") and hasattr(frame, "columns")
    if not (is_table or isinstance(frame, Mapping)):
        raise DeshiError(f"{label} is of type {type(frame).__name__}, {EXPECTED}.")
    _check_names(getattr(frame, "columns", ()), label)
    if isinstance(frame, Mapping):  # its columns may be of several libraries
        frame = {name: _column(str(name), column) for name, column in frame.items()}
    try:
        return pl.DataFrame(_pandas_columns(frame) if hasattr(frame, "iloc") else frame, strict=False)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise DeshiError(f"{label} can't be read as a table ({error}), {EXPECTED}.") from error


def _check_names(columns: Iterable[Any], label: str) -> None:
    names = [str(name) for name in columns if isinstance(name, str | int)]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DeshiError(f"{label} has several columns called {', '.join(repeated)}, expected one of each name.")


def _column(name: str, column: Any) -> Any:
    return _pandas_column(name, column) if hasattr(column, "iloc") else column


def _pandas_columns(frame: Any) -> dict[str, pl.Series]:
    return {str(name): _pandas_column(str(name), frame[name]) for name in frame.columns}


def _pandas_column(name: str, column: Any) -> pl.Series:
    """A pandas column; NaN, NaT and None become null, what isn't a number, time, text or list its text."""
    if getattr(column.dtype, "tz", None) is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iufbM":
        return pl.Series(name, column.to_numpy(), nan_to_null=True)
    # pandas' own types with missing values would become floats by numpy, which hold no integer above 2**53.
    values = column.astype(object).where(column.notna(), None).tolist()
    series = pl.Series(name, values, strict=False)
    if series.dtype == pl.Object:
        return pl.Series(name, [None if value is None else str(value) for value in values], dtype=pl.String)
    return series

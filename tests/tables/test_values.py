"""Ids and numbers: the same text for the same value of any type and any file."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from deshi.tables import id_text, ids, numbers, read_table
from deshi.types import DeshiError


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([3.0, 2.5, None], pl.Float64, ["3", "2.5", None]),
        ([3.0, 16777216.0], pl.Float32, ["3", "16777216"]),
        ([-0.0, 1e20, float("nan"), float("inf")], pl.Float64, ["0", "100000000000000000000", None, None]),
        ([2.0**53, 2.0**62], pl.Float64, [str(2**53), str(2**62)]),
        ([2**53 + 1, 2**63 - 1], pl.Int64, [str(2**53 + 1), str(2**63 - 1)]),
        ([2**64 - 1], pl.UInt64, [str(2**64 - 1)]),
        ([2**100], pl.Int128, [str(2**100)]),
        ([Decimal("0.00"), Decimal("3.50"), Decimal("100.00")], pl.Decimal(10, 2), ["0", "3.5", "100"]),
        (["a", "b"], pl.Categorical, ["a", "b"]),
        (["a", "b"], pl.Enum(["a", "b"]), ["a", "b"]),
        ([True, False], pl.Boolean, ["true", "false"]),
        ([None, None], pl.Null, [None, None]),
        ([datetime.date(2020, 1, 2)], pl.Date, ["2020-01-02"]),
        ([" x ", "", "3.0", "NaN", "0012"], pl.String, ["x", None, "3.0", None, "0012"]),
    ],
)
def test_ids_of_every_type(tmp_path: Path, values: list[Any], dtype: Any, expected: list[str | None]) -> None:
    """Whole floats and decimals lose their fraction, wide integers keep every digit; parquet changes nothing."""
    column = pl.Series("item_id", values, dtype)
    assert ids(column).to_list() == expected
    column.to_frame().write_parquet(tmp_path / "a.parquet")
    assert ids(read_table(tmp_path / "a.parquet").frame["item_id"]).to_list() == expected


@pytest.mark.parametrize("column", [pl.Series([[1]]), pl.Series([{"a": 1}]), pl.Series([b"x"]), pl.Series([object])])
def test_what_is_no_id_is_refused(column: pl.Series) -> None:
    """Nested and binary columns have no single text."""
    for read in (ids, numbers):
        with pytest.raises(DeshiError, match="expected one"):
            read(column.alias("c"))


@pytest.mark.parametrize(
    ("value", "text"),
    [(np.int64(3), "3"), (np.float32(3), "3"), (np.float64(2.5), "2.5"), (np.str_("x"), "x"), (3.0, "3"),
     (True, "true"),
     (float("nan"), None), (" ", None), (1e20, "100000000000000000000"), (-0.0, "0"), (2**63, str(2**63))],
)  # fmt: skip
def test_id_of_a_single_value(value: Any, text: str | None) -> None:
    """A value of Python, numpy or JSON has the id that its column would give."""
    assert id_text(value) == text


@pytest.mark.parametrize("value", [b"x", [1], {"a": 1}, (1,)])
def test_single_values_that_are_no_id(value: Any) -> None:
    """The text of a list would be an id that no other file has."""
    with pytest.raises(DeshiError, match="expected an id"):
        id_text(value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [(["1,5", "2"], [1.5, 2.0]), (["1,500", "2,250"], [None, None]), (["1.5", "2,5"], [1.5, None]),
     (["1,500", "2,5"], [1.5, 2.5]), (["x", " 3 "], [None, 3.0])],
)  # fmt: skip
def test_decimal_commas(values: list[str], expected: list[float | None]) -> None:
    """A comma is the decimal point where nothing else can be meant; thousands are never read as fractions."""
    assert numbers(pl.Series(values)).to_list() == expected


@pytest.mark.parametrize("cut", [4, 60, 200])
def test_truncated_parquet_is_refused(tmp_path: Path, cut: int) -> None:
    """A file that was cut off is one sentence, not a traceback."""
    path = tmp_path / "a.parquet"
    pl.DataFrame({"item_id": range(100)}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DeshiError, match="as parquet"):
        read_table(path)

"""Ids as codes: the same texts as `ids` gives, each held once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from deshi.tables import code_texts, coded_ids, ids, new_codes, open_table
from deshi.types import DeshiError


@pytest.mark.parametrize(
    "values",
    [["a", " a", "nan", "", None, "b "], [3.0, 2.5, None, float("nan")], [7, None, 7], [True, False], [], [None]],
)
def test_codes_stand_for_the_ids(values: list[Any]) -> None:
    """Blanks, fractions and missing values are as in every other table, also where texts were coded before."""
    column = pl.Series("id", values)
    assert coded_ids(column).cast(pl.String).to_list() == ids(column).to_list()
    if column.dtype == pl.String:
        assert coded_ids(column.cast(new_codes())).cast(pl.String).to_list() == ids(column).to_list()


def test_clean_codes_stay_as_they_are() -> None:
    """A hundred million codes aren't copied for nothing; texts come in the order of the codes."""
    column = pl.Series(["b", "a", None, "b"]).cast(new_codes())
    assert coded_ids(column).to_physical().to_list() == column.to_physical().to_list() == [0, 1, None, 0]
    assert code_texts(column).to_list() == ["b", "a"]


def test_lists_are_no_ids() -> None:
    """As by `ids`."""
    with pytest.raises(DeshiError, match="expected one id a row"):
        coded_ids(pl.Series("user", [["a"], ["b"]]))


def test_parquet_columns_of_one_type_share_their_codes(tmp_path: Path) -> None:
    """Parts of a table are put one below the other; numbers with a fraction are read as they are."""
    pl.DataFrame({"user": ["x", "y"], "item": [1, 2], "price": [0.5, 1.0]}).write_parquet(tmp_path / "a.parquet")
    codes = {"user": new_codes(), "item": new_codes(), "price": new_codes()}
    frames = [open_table(tmp_path / "a.parquet").read(["user", "item", "price"], codes=codes).frame for _ in range(2)]
    assert pl.concat(frames).rows() == [("x", "1", 0.5), ("y", "2", 1.0)] * 2
    assert [isinstance(dtype, pl.Categorical) for dtype in frames[0].dtypes] == [True, True, False]

"""Items of events and rows of the item table: how many fit, and what is said if none does."""

from __future__ import annotations

import polars as pl
import pytest

from deshi.data._item_rows import count_item_rows
from deshi.types import DeshiError


def table(*ids: str) -> pl.DataFrame:
    return pl.DataFrame({"item_id": ids, "title": ids})


def test_numbers_of_rows() -> None:
    """Both sides are counted: items without a row, and rows without an event."""
    assert count_item_rows(pl.Series(["a", "b", "c"]), table("c", "x", "y")) == {
        "with_row": 1, "rows_without_events": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ids", "hint"),
    [(["1.0", "2.0"], "the fraction .0"), (["001", "002"], "leading zeros"), (['"1"', '"2"'], "blanks and quotes"),
     (["A1", "A2"], ""), (["001.0"], "the fraction .0, leading zeros")],
)  # fmt: skip
def test_no_row_at_all(ids: list[str], hint: str) -> None:
    """Every title would be missing without a word; the first ids of both sides show why."""
    with pytest.raises(DeshiError, match=r"None of the 2 items has a row.*'1', '2'; of the item table") as error:
        count_item_rows(pl.Series(["1", "2"]), table(*ids))
    assert (f"match when {hint}" in str(error.value)) if hint else "match when" not in str(error.value)


def test_another_case() -> None:
    """Catalogues write SKUs in capitals."""
    with pytest.raises(DeshiError, match="1 items match when their case is ignored"):
        count_item_rows(pl.Series(["a1"]), table("A1"))

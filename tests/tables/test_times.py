"""Times of every unit and form as milliseconds, and as what orders events."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from deshi.tables import to_order, to_timestamps
from deshi.types import DeshiError

DAY = 1_700_006_400_000
"""2023-11-15, midnight."""


def series(values: list[Any], dtype: Any = None) -> pl.Series:
    return pl.Series("when", values, dtype=dtype, strict=False)


@pytest.mark.parametrize(
    ("number", "form", "milliseconds"),
    [(20231115, "%Y%m%d", DAY), (2023111501, "%Y%m%d%H", DAY + 3_600_000),
     (202311150120, "%Y%m%d%H%M", DAY + 4_800_000), (20231115012030, "%Y%m%d%H%M%S", DAY + 4_830_000),
     (231115012030, "%y%m%d%H%M%S", DAY + 4_830_000)],
)  # fmt: skip
def test_calendar_numbers_are_refused_and_read_by_their_format(number: int, form: str, milliseconds: int) -> None:
    """202311150120 lies among milliseconds of 1976: a guess would be silently wrong, and the sentence has the cure."""
    for values in ([number], [str(number)], [f"{number}.0", None], [float(number)]):
        with pytest.raises(DeshiError, match=f"dates of the calendar.*time_format={form},"):
            to_timestamps(series(values), "auto")
        assert to_timestamps(series(values), "auto", form)[0] == milliseconds


@pytest.mark.parametrize(
    "number", [1577934245, 2_000_000_000, 891_234_567_000, 1_700_000_000_000, 1_700_000_000_000_000]
)
def test_counts_are_no_calendar_numbers(number: int) -> None:
    """Seconds, milliseconds and microseconds of real data stay readable by their size."""
    assert to_timestamps(series([number, number + 1]), "auto").null_count() == 0


@pytest.mark.parametrize(
    "text",
    ["2023-11-15 01:20:30", "2023-11-15T01:20:30Z", "2023-11-15 01:20:30 UTC", "2023-11-15 03:20:30 +0200",
     "2023-11-15T03:20:30.000+02", "2023-11-15 1:20:30", "2023-11-14T16:20:30-09:00"],
)  # fmt: skip
def test_forms_of_iso_8601(text: str) -> None:
    """Databases and warehouses write zones in several ways; all are the same moment, in order too."""
    assert to_timestamps(series([text]), "auto").to_list() == to_order(series([text])).to_list() == [DAY + 4_830_000]


def test_zones_order_events() -> None:
    """Texts with zones sort by their moment, not letter by letter."""
    texts = ["2026-01-02T06:30:00+05:30", "2026-01-01T21:00:00-05:00", "2026-01-02T03:00:00+00:00"]
    assert to_order(series(texts)).arg_sort().to_list() == [0, 1, 2]
    assert to_order(series(["2026-1-2", "2025-12-31"])).arg_sort().to_list() == [1, 0]


@pytest.mark.parametrize(
    ("text", "form"),
    [("28.01.2026", "%d.%m.%Y"), ("9/30/2025 9:05 AM", "%m/%d/%Y %I:%M %p"), ("3 Feb 2025", "%d %b %Y"),
     ("2025-01-02T03:04:05.25", "%Y-%m-%dT%H:%M:%S.%f")],
)  # fmt: skip
def test_other_forms_need_their_format(text: str, form: str) -> None:
    """A day and a month that could be either are never guessed; the refusal shows the value and the forms."""
    if "T" not in text:
        for read in (lambda column: to_timestamps(column, "auto"), to_order):
            with pytest.raises(DeshiError, match=rf"'{text}' in 'when'.*expected 2026-01-28 and .*time_format="):
                read(series([text]))
    assert to_timestamps(series([text]), "s", form).null_count() == 0
    assert to_order(series([text]), form).null_count() == 0


@pytest.mark.parametrize(
    ("form", "reason"), [("%Q", "expected '%Q'"), ("%H%f", "%3f"), ("%Y %I", "can't be used"), ("%Y %Z", "%z")]
)
def test_formats_that_read_nothing(form: str, reason: str) -> None:
    """A format with a typo is an error that names it, never a column of missing times."""
    with pytest.raises(DeshiError, match=reason):
        to_timestamps(series(["2025"]), "auto", form)


@pytest.mark.parametrize(
    "column",
    [series([[1]]), series([b"1"]), series([{"a": 1}]), series([datetime.time(1)]), series([datetime.timedelta(1)]),
     series([True]), pl.Series("when", [object()])],
    ids=lambda column: str(column.dtype)[:8],
)  # fmt: skip
def test_columns_that_hold_no_times(column: pl.Series) -> None:
    """Nested, binary and other types are refused with the column's name, not by a traceback from Polars."""
    for read in (lambda column: to_timestamps(column, "auto"), lambda column: to_timestamps(column, "s"), to_order):
        with pytest.raises(DeshiError, match="'when' holds .*expected one time"):
            read(column)


@pytest.mark.parametrize(
    "column",
    [series(["1700006400,5"]), series(["1700006400,500"]), series([Decimal("1700006400.5")]),
     series(["1700006400.5"], pl.Categorical), series([1_700_006_400_500], pl.Int128), series(["1.7000064005e9"]),
     series([datetime.datetime(2023, 11, 15, 9, 0, 0, 500_000)]).dt.replace_time_zone("Asia/Tokyo")],
    ids=lambda column: str(column.dtype)[:8],
)  # fmt: skip
def test_the_same_moment_in_every_type(column: pl.Series) -> None:
    """Decimal commas, decimals, categories, wide integers and zones give the moment that is written."""
    assert to_timestamps(column, "auto").to_list() == [DAY + 500]
    assert to_order(column.append(column)).n_unique() == 1


def test_order_of_positions() -> None:
    """Small numbers are positions, with fractions and as text; ten follows nine."""
    assert to_order(series(["10", "9", None])).to_list() == [10, 9, None]
    assert to_order(series([2.5, 1, -1])).to_list() == [2.5, 1, -1]
    assert to_order(series(["1,5", "2,25"])).to_list() == [1.5, 2.25]
    assert to_order(series([1_700_000_000_000_000_002, 1_700_000_000_000_000_001])).arg_sort().to_list() == [1, 0]
    assert to_order(series([202311150120, 202311150119])).arg_sort().to_list() == [1, 0]


@pytest.mark.parametrize("values", [[1577934245, 1577934245000], [1, 1577934245]])
def test_mixed_units_have_no_order(values: list[int]) -> None:
    """Seconds before milliseconds of the same day would put new events first."""
    with pytest.raises(DeshiError, match="units of time are mixed"):
        to_order(series(values))


@pytest.mark.parametrize("values", [["2026-01-01", "soon"], ["1577934245", "2026-01-01"]])
def test_every_value_must_be_ordered(values: list[str]) -> None:
    """A value without an order would land anywhere: the refusal quotes it."""
    with pytest.raises(DeshiError, match=f"'{values[1]}' in 'when'"):
        to_order(series(values))

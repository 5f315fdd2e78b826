"""Times of any usual unit and form as milliseconds since 1970-01-01 UTC."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from deshi.tables.values import check_scalars, ids, numbers
from deshi.types import DeshiError

UNITS = ("auto", "s", "ms", "us", "ns", "iso", "date", "position", "row")
"""``row``: the row's number in the source is its position; ``position``: a column that only orders the events."""

LATEST_MS = 7_258_118_400_000
"""The year 2200: a later timestamp means a wrong unit."""

TEXT_FORMS = "2026-01-28 and 2026-01-28T09:05:00, with or without a fraction and a zone (Z, UTC, +09:00)"

_PER_MS = {"s": 1 / 1000, "ms": 1, "us": 1000, "ns": 1_000_000}
_BOUNDS = (("s", 1e8, 1e11), ("ms", 1e11, 1e14), ("us", 1e14, 1e17), ("ns", 1e17, 9.3e18))
_SIZES = "(seconds lie between 1e8 and 1e11, milliseconds below 1e14, microseconds below 1e17)"

_ISO = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M%#z")
_CALENDARS = {
    8: ("%Y%m%d",),
    10: ("%Y%m%d%H",),
    12: ("%Y%m%d%H%M", "%y%m%d%H%M%S"),
    14: ("%Y%m%d%H%M%S",),
    17: ("%Y%m%d%H%M%S%3f",),
}
"""Digits of a calendar's date and time in one number, and how they are read."""


def check_unit(unit: str) -> None:
    """Refuse a unit that doesn't exist."""
    if unit not in UNITS:
        raise DeshiError(f"time_unit is {unit!r}, expected one of {', '.join(UNITS)}.")


def manifest_unit(unit: str) -> str:
    """What ``RawData.time_unit`` says for a column of this unit."""
    return "position" if unit in ("position", "row") else "ms"


def to_timestamps(column: pl.Series, unit: str, time_format: str | None = None) -> pl.Series:
    """Int64 milliseconds (or positions); null where the value can't be read, negative or past the year 2200.

    Args:
        column: of numbers, texts, dates or times.
        unit: one of :data:`UNITS`; dates and times need none.
        time_format: of texts, or of numbers such as 20231115, instead of the unit: ``%Y%m%d``, ``%d.%m.%Y %H:%M``, as
            https://docs.rs/chrono/latest/chrono/format/strftime describes it. Without ``%z`` times are UTC.

    Raises:
        DeshiError: for a column of another type, texts of which none can be read, and, if ``unit`` is ``auto``,
            numbers that don't tell one unit or read as dates of the calendar.
    """
    if unit == "row":
        return pl.Series(column.name, range(len(column)), dtype=pl.Int64)
    column = _scalars(column)
    if column.dtype in (pl.Date, pl.Datetime):
        return _bounded(
            (column.cast(pl.Datetime("ms")) if column.dtype == pl.Date else column).dt.epoch("ms"), LATEST_MS
        )
    if time_format is not None:
        texts = ids(column).str.replace(r"^(\d{6,})\.0+$", "${1}")  # a whole number that was written as a float
        return _readable(_bounded(_by_format(texts, time_format), LATEST_MS), column, repr(time_format))
    if unit not in ("iso", "date"):
        column = _whole_numbers(column)
    if unit == "auto":
        unit = detect_unit(column)
    if unit in ("iso", "date"):
        times = _bounded(_from_text(column.cast(pl.String), unit), LATEST_MS)
        return _readable(times, column, TEXT_FORMS if unit == "iso" else "2026-01-28")
    whole, real = _numbers(column)
    if unit == "position":
        return _bounded(whole.set(~(real == real.floor()), None), None)
    return _scaled(whole, real, unit)


def to_order(column: pl.Series, time_format: str | None = None) -> pl.Series:
    """Numbers that order events as ``prepare`` does: numbers (fractions too) as they are, other times as milliseconds.

    Null where the value is missing.

    Raises:
        DeshiError: as :func:`to_timestamps`, and for any value that can't be read.
    """
    column = _scalars(column)
    if isinstance(column.dtype, pl.Datetime):  # not rounded to milliseconds either
        return column.to_physical().set(to_timestamps(column, "iso").is_null(), None)
    if column.dtype == pl.Date or time_format is not None or _is_text(column):
        return _readable(to_timestamps(column, "iso", time_format), column, time_format or TEXT_FORMS, every=True)
    whole, real = _numbers(column)
    low, high = float(real.min() or 0), float(real.max() or 0)  # type: ignore[arg-type]
    units = _units(low, high)
    if high < _BOUNDS[0][1] or _calendar_format(whole):
        order = whole if (real == real.floor()).all() else real
    elif len(units) == 1:  # numbers of one unit order events as they are, without rounding to milliseconds
        order = (whole if (real == real.floor()).all() else real).set(_scaled(whole, real, units[0]).is_null(), None)
    else:
        raise DeshiError(
            f"The values of {column.name!r} run from {low:.0f} to {high:.0f}: positions or units of time are mixed "
            f"{_SIZES}. Use one of them."
        )
    return _readable(order, column, "numbers, positive and before the year 2200 if they are times", every=True)


def _scalars(column: pl.Series) -> pl.Series:
    """Numbers, texts, dates or times; other types are refused."""
    check_scalars(column, "time or position", (pl.Time, pl.Duration, pl.Boolean))
    return column.cast(pl.String) if column.dtype in (pl.Categorical, pl.Enum) else column


def _whole_numbers(column: pl.Series) -> pl.Series:
    """A text column as integers if that is all it holds, which spares all further looks at its texts."""
    try:
        return column.cast(pl.Int64) if column.dtype == pl.String else column
    except pl.exceptions.InvalidOperationError:
        return column


def _readable(times: pl.Series, column: pl.Series, forms: str, every: bool = False) -> pl.Series:
    """``times``, refused if none of the column's values (with ``every``: not all) could be read."""
    if times.null_count() == len(times) or (every and times.has_nulls()):
        texts = ids(column)
        unread = texts.filter(times.is_null() & texts.is_not_null())
        if len(unread):
            raise DeshiError(
                f"{unread[0]!r} in {column.name!r} is no time that can be read, expected {forms}. "
                f"Name another form with time_format=, such as '%d.%m.%Y %H:%M' for 28.01.2026 09:05."
            )
    return times


def _by_format(texts: pl.Series, time_format: str) -> pl.Series:
    """Milliseconds of texts in a form that the user gives."""
    form = time_format.replace(".%f", "%.f")  # Python's sign for a fraction
    if re.search("%[fZ]", form):
        raise DeshiError(
            f"time_format is {time_format!r}; %f and %Z can't be read. Write %.f for a fraction with its point, %3f or "
            f"%6f for that many digits, %z for a zone such as +09:00, and a zone's name as it stands."
        )
    if re.search("%-?[HkIl]", form) and not re.search("%-?[MTRXcrs+]", form):
        texts, form = texts + " 00", form + " %M"  # an hour alone is refused by Polars
    zone = "UTC" if re.search("%[:#]?z|%[+]", form) else None
    try:
        return texts.str.to_datetime(form, time_unit="ms", time_zone=zone, strict=False).dt.epoch("ms")
    except pl.exceptions.PolarsError as error:
        reason = str(error).partition("\n")[0]
        raise DeshiError(
            f"time_format is {time_format!r}, which can't be used: {reason} Expected something like '%Y%m%d'."
        ) from error


def _numbers(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The column as exact integers (null where it has none) and as floats."""
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    real = numbers(column)
    real = real.set(~real.is_finite().fill_null(False), None)
    whole = column.cast(pl.Int64, strict=False)
    if whole.null_count() > real.null_count():
        whole = whole.zip_with(whole.is_not_null(), real.round().cast(pl.Int64, strict=False))
    return whole, real


def _scaled(whole: pl.Series, real: pl.Series, unit: str) -> pl.Series:
    per_ms = _PER_MS[unit]
    sane = (real >= 0) & (real / per_ms < LATEST_MS)
    whole = whole.set(~sane.fill_null(False), None)
    if unit != "s":
        return whole // int(per_ms)
    fractional = (real != real.floor()).fill_null(False)
    if fractional.any():
        return (
            (whole * 1000)
            .zip_with(~fractional, (real * 1000).round().cast(pl.Int64, strict=False))
            .set(whole.is_null(), None)
        )
    return whole * 1000


def _bounded(values: pl.Series, latest: int | None) -> pl.Series:
    bad = values < 0 if latest is None else (values < 0) | (values >= latest)
    return values.cast(pl.Int64).set(bad.fill_null(False), None)


def _from_text(column: pl.Series, unit: str) -> pl.Series:
    """Milliseconds of ISO 8601 texts; each form is tried on those that no form before could read."""
    text = column.str.strip_chars()
    if unit == "iso":
        text = text.str.replace(r"^(\d{4}-\d{1,2}-\d{1,2}) +", "${1}T").str.replace(r" *(?:UTC|GMT)$", "Z")
        text = text.str.replace(r" +([+-]\d{2}:?\d{2})$", "${1}")
    times = pl.Series(column.name, [None], dtype=pl.Int64).new_from_index(0, len(column))
    for form in _ISO if unit == "iso" else ("%Y-%m-%d",):
        rows = (times.is_null() & text.is_not_null()).arg_true()
        if len(rows):
            times = times.scatter(rows, _by_format(text.gather(rows), form))
    return times


def detect_unit(column: pl.Series) -> str:
    """The unit that the values' size tells: ``s``, ``ms``, ``us``, ``ns``, or ``iso`` for text.

    Raises:
        DeshiError: if the values lie in the ranges of two units, too near to zero to tell, or read as calendar dates.
    """
    if _is_text(column):
        return "iso"
    if column.dtype.is_integer():  # without copies of a long column, unless it has negative numbers
        values = whole = column if not column.has_nulls() and (column >= 0).all() else column.filter(column >= 0)
    else:
        whole, real = _numbers(column)
        values, whole = real.filter(real >= 0), whole.filter(real >= 0)
    if values.is_empty():
        return "s"
    low, high = float(values.min()), float(values.max())  # type: ignore[arg-type]
    if form := _calendar_format(whole):
        raise DeshiError(
            f"The numbers in {column.name!r}, from {low:.0f} to {high:.0f}, read as dates of the calendar, not as a "
            f"count since 1970. Set time_format={form}, or time_unit to s, ms, us or ns if they are counts."
        )
    units = _units(low, high)
    if len(units) != 1:
        raise DeshiError(
            f"The timestamps in {column.name!r} run from {low:.0f} to {high:.0f}; time_unit=auto can't tell one unit "
            f"{_SIZES}. Set data.source.time_unit to s, ms, us, ns, or to position if they only give the order, "
            f"and repair the file if it mixes units."
        )
    return units[0]


def _units(low: float, high: float) -> list[str]:
    """The units in whose ranges the values lie; none if some are smaller than all ranges."""
    return [unit for unit, start, end in _BOUNDS if low < end and high >= start] if low >= _BOUNDS[0][1] else []


def _is_text(column: pl.Series) -> bool:
    """Whether most of a text column's values are no numbers."""
    if column.dtype != pl.String:
        return False
    n_missing = ids(column).null_count()
    return 2 * (len(column) - numbers(column).drop_nans().drop_nulls().len()) > len(column) + n_missing


def _calendar_format(whole: pl.Series) -> str | None:
    """The ``time_format`` by which all whole numbers read as dates from 1900 on, such as 20231115 or 202311150120.

    Counts of seconds before 2030, and of milliseconds from 1977 on, are no such dates.
    """
    forms: Sequence[str] = ()
    for values in (whole.head(1000), whole):  # the first ones tell most columns apart
        texts = values.drop_nulls().cast(pl.String)
        lengths = texts.str.len_bytes()
        if texts.is_empty() or lengths.n_unique() != 1:
            return None
        forms = [form for form in _CALENDARS.get(int(lengths[0]), ()) if _reads_as(texts, form)]
        if not forms:
            return None
    return forms[0]


def _reads_as(texts: pl.Series, form: str) -> bool:
    """Whether all texts of digits read as times of the years 1900 to 2199."""
    if form.startswith("%Y") and not texts.str.contains("^(?:19|2[01])").all():
        return False
    return not _by_format(texts, form).has_nulls()

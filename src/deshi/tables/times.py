"""Timestamps of any usual unit as milliseconds since 1970-01-01 UTC."""

from __future__ import annotations

import polars as pl

from deshi.types import DeshiError

UNITS = ("auto", "s", "ms", "us", "ns", "iso", "date", "position", "row")
"""``row``: the row's number in the source is its position; ``position``: a column that only orders the events."""

LATEST_MS = 7_258_118_400_000
"""The year 2200: a later timestamp means a wrong unit."""

_PER_MS = {"s": 1 / 1000, "ms": 1, "us": 1000, "ns": 1_000_000}
_BOUNDS = (("s", 1e8, 1e11), ("ms", 1e11, 1e14), ("us", 1e14, 1e17), ("ns", 1e17, 9.3e18))
_ISO = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M")


def check_unit(unit: str) -> None:
    """Refuse a unit that doesn't exist."""
    if unit not in UNITS:
        raise DeshiError(f"time_unit is {unit!r}, expected one of {', '.join(UNITS)}.")


def manifest_unit(unit: str) -> str:
    """What ``RawData.time_unit`` says for a column of this unit."""
    return "position" if unit in ("position", "row") else "ms"


def to_timestamps(column: pl.Series, unit: str) -> pl.Series:
    """Int64 milliseconds (or positions); null where the value can't be read, negative or past the year 2200.

    Raises:
        DeshiError: if ``unit`` is ``auto`` and the values don't tell one unit.
    """
    if unit == "row":
        return pl.Series(column.name, range(len(column)), dtype=pl.Int64)
    if isinstance(column.dtype, pl.Datetime):
        return _bounded(column.dt.epoch("ms"), LATEST_MS)
    if column.dtype == pl.Date:
        return _bounded(column.cast(pl.Datetime("ms")).dt.epoch("ms"), LATEST_MS)
    if unit == "auto":
        unit = detect_unit(column)
    if unit in ("iso", "date"):
        return _bounded(_from_text(column.cast(pl.String), unit), LATEST_MS)
    whole, real = _numbers(column)
    if unit == "position":
        return _bounded(whole.set(~(real == real.floor()), None), None)
    return _scaled(whole, real, unit)


def _numbers(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The column as exact integers (null where it has none) and as floats."""
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    real = column.cast(pl.Float64, strict=False)
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
    text = column.str.strip_chars()
    dates = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("ms"))
    if unit == "date":
        return dates.dt.epoch("ms")
    text = text.str.replace(r"^(\d{4}-\d{2}-\d{2}) ", "${1}T").str.replace("Z$", "+00:00")
    text = text.str.replace(r"([+-]\d{2})$", "${1}:00") if text.str.contains(r"T.*[+-]\d{2}$").any() else text
    times = dates.dt.epoch("ms")
    for form in _ISO:
        naive = text.str.to_datetime(form, time_unit="ms", strict=False).dt.epoch("ms")
        zoned = text.str.to_datetime(form + "%z", time_unit="ms", time_zone="UTC", strict=False).dt.epoch("ms")
        times = times.zip_with(times.is_not_null(), naive)
        times = times.zip_with(times.is_not_null(), zoned)
    return times


def detect_unit(column: pl.Series) -> str:
    """The unit that the values' size tells: ``s``, ``ms``, ``us``, ``ns``, or ``iso`` for text.

    Raises:
        DeshiError: if the values lie in the ranges of two units, or too near to zero to tell.
    """
    values = column.cast(pl.Float64, strict=False).drop_nulls()
    values = values.filter(values.is_finite() & (values >= 0))
    if values.is_empty():
        return "iso"
    low, high = float(values.min()), float(values.max())  # type: ignore[arg-type]
    units = [unit for unit, start, end in _BOUNDS if low < end and high >= start]
    if low < _BOUNDS[0][1] or len(units) != 1:
        raise DeshiError(
            f"The timestamps in {column.name!r} run from {low:.0f} to {high:.0f}; time_unit=auto can't tell one unit "
            f"(seconds lie between 1e8 and 1e11, milliseconds below 1e14, microseconds below 1e17). "
            f"Set data.source.time_unit to s, ms, us, ns, or to position if they only give the order, "
            f"and repair the file if it mixes units."
        )
    return units[0]

"""Timestamps in more than one unit, told apart by their size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
SMALLEST = 1e8
"""Seconds since 1970 of a day in 1973; each unit's range reaches from there to a thousand times as much."""


@dataclass(frozen=True, eq=False)
class Mixed:
    """Timestamps of two units.

    Attributes:
        rows: of those in the rarer unit.
        unit: the rarer unit.
        main: the other.
        corrected: all timestamps in the main unit.
    """

    rows: NDArray[Any]
    unit: str
    main: str
    corrected: NDArray[Any]


def mixed_units(times: NDArray[Any]) -> Mixed | None:
    """Find timestamps that are in another unit than most.

    A moment since 1973 has a size that tells its unit: 1e9 is seconds, 1e12 milliseconds. Smaller numbers tell
    nothing (zero, a position, a broken date) and are left out. The rarer ones count only if in their own unit they
    lie in the years of the others, give or take half of that span and a year.
    """
    sizes = np.abs(np.asarray(times, dtype=np.float64))
    with np.errstate(divide="ignore"):
        unit = np.floor(np.log10(sizes / SMALLEST) / 3)
    readable = np.isfinite(unit) & (unit >= 0) & (unit < len(UNITS))
    units, counts = np.unique(unit[readable], return_counts=True)
    if len(units) < 2:
        return None
    main = units[counts.argmax()]
    seconds = sizes / 1000.0 ** np.where(readable, unit, 0)
    years = seconds[readable & (unit == main)]
    room = (years.max() - years.min()) / 2 + 366 * 86_400
    inside = (seconds >= years.min() - room) & (seconds <= years.max() + room)
    for rare in units[counts.argsort()[::-1]]:
        rows = np.flatnonzero(readable & (unit == rare) & inside)
        if rare != main and len(rows):
            corrected = np.array(times, dtype=np.float64)
            corrected[rows] *= 1000.0 ** (main - rare)
            return Mixed(rows, UNITS[int(rare)], UNITS[int(main)], corrected)
    return None

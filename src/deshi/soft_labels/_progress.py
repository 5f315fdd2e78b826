"""The progress of a long export: rows done, rows a second, seconds left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """A moment of an export.

    Attributes:
        done: rows on disk or written by now, those of earlier attempts too.
        total: rows requested.
        rate: rows a second in this attempt; 0 before the first.
        seconds: since this attempt began.
    """

    done: int
    total: int
    rate: float
    seconds: float

    @property
    def remaining(self) -> float:
        """Estimated seconds that are left; NaN before the first row."""
        return (self.total - self.done) / self.rate if self.rate > 0 else float("nan")

    def __str__(self) -> str:
        share = 100 * self.done / self.total if self.total else 100.0
        left = f", {clock(self.remaining)} left" if self.rate > 0 else ""
        return f"{self.done:,} of {self.total:,} rows ({share:.1f} %), {self.rate:,.1f} rows/s{left}"


class Meter:
    """Counts rows, tells a callback about every block, and writes a line into the log now and then.

    Args:
        total: rows requested.
        done: rows that an earlier attempt has written.
        callback: called with every :class:`Progress`; None for none.
        every: seconds between two lines of the log.
    """

    def __init__(
        self, total: int, done: int = 0, callback: Callable[[Progress], None] | None = None, every: float = 10.0
    ) -> None:
        self._total, self._before, self._done = total, done, done
        self._callback, self._every = callback, every
        self._begin = self._last = time.perf_counter()

    def add(self, rows: int) -> None:
        """Count ``rows`` more."""
        self._done += rows
        now = time.perf_counter()
        at = self.now()
        if self._callback is not None:
            self._callback(at)
        if now - self._last >= self._every or self._done == self._total:
            self._last = now
            log.info("%s", at)

    def now(self) -> Progress:
        """Where the export stands."""
        seconds = time.perf_counter() - self._begin
        rate = (self._done - self._before) / seconds if seconds > 0 else 0.0
        return Progress(self._done, self._total, rate, seconds)


def clock(seconds: float) -> str:
    """``3 h 05 min``, ``7 min 02 s`` or ``12 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"

"""The content of a source, unfiltered: interactions and items as they stood in its files, and its malformed rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import polars as pl

from deshi.types import ITEM, RATING, TIMESTAMP, TITLE, USER, DeshiError

FILTER = "filter:"
"""The beginning of the names of columns that only ``data.filters.keep`` looks at."""

MAX_EXAMPLES = 5
"""How many malformed rows a :class:`BadRowReport` quotes."""


@dataclass(frozen=True)
class FileRecord:
    """A file that was read.

    Attributes:
        name: the file's name, a member of an archive as ``archive.zip!member``.
        sha256: of the file as it was read (the archive, if it is one).
        origin: the address, package or local path that served it.
    """

    name: str
    sha256: str
    origin: str


@dataclass(frozen=True)
class BadRowReport:
    """What became of the rows of a source's files.

    Attributes:
        skipped: number of malformed rows, of all files.
        examples: the first few as ``file, line n: reason: content``.
        rows: of the interactions' files: ``read``, ``malformed``, ``events``; ``histories`` if a row is one; empty
            lines (``blank``), and lines inside quoted fields (``continued``). Empty if the source doesn't count them.
        notes: sentences on what else was left out or changed.
    """

    skipped: int = 0
    examples: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def check(self, n_events: int) -> None:
        """Compare the numbers of rows with that of events.

        Raises:
            DeshiError: if a row is neither an event (or a history) nor malformed: a fault of the reader.
        """
        if not self.rows:
            return
        kept = self.rows.get("histories", self.rows["events"])
        if self.rows["read"] != kept + self.rows["malformed"] or self.rows["events"] != n_events:
            raise DeshiError(
                f"The source read {self.rows}, and {n_events} events arrived; expected every row to be one of them. "
                f"This is a fault of deshi: please report it with the file's first lines."
            )


@dataclass(frozen=True)
class BadRows:
    """What to do with malformed rows.

    Attributes:
        on_bad_rows: ``error`` stops at the first one, ``skip`` counts it and goes on.
        limit: with ``skip``, the largest number of rows that may be skipped before it is an error after all.
    """

    on_bad_rows: str = "error"
    limit: int = 0

    def __post_init__(self) -> None:
        if self.on_bad_rows not in ("error", "skip"):
            raise DeshiError(f"on_bad_rows is {self.on_bad_rows!r}, expected 'error' or 'skip'.")
        if self.limit < 0:
            raise DeshiError(f"max_bad_rows is {self.limit}, expected 0 or more.")


class BadRowLog:
    """Collects malformed rows while a source reads, and stops the reading as :class:`BadRows` asks."""

    def __init__(self, bad_rows: BadRows, keys: str | None = "data.") -> None:
        """Start with no malformed row.

        Args:
            bad_rows: what to do with them.
            keys: what messages put before ``on_bad_rows``; None if there is no such setting.
        """
        self._rule, self._keys = bad_rows, keys
        self._skipped = 0
        self._examples: list[str] = []
        self._rows: dict[str, int] = {}
        self._notes: list[str] = []

    def count(self, **numbers: int) -> None:
        """Add to the numbers of rows, see :class:`BadRowReport`."""
        for name, number in numbers.items():
            self._rows[name] = self._rows.get(name, 0) + number

    def note(self, sentence: str) -> None:
        """Say what else was left out or changed."""
        self._notes.append(sentence)

    def add(self, file: str, line: int, reason: str, content: str) -> None:
        """Record one malformed row.

        Raises:
            DeshiError: at once under ``error``, past the limit under ``skip``; names file, line and content.
        """
        quoted = content if len(content) <= 200 else content[:200] + "..."
        where = f"{file}, line {line}: {reason}: {quoted!r}"
        if self._rule.on_bad_rows == "error":
            advice = "Repair it." if self._keys is None else f"Repair it, or set {self._keys}on_bad_rows=skip."
            raise DeshiError(f"Malformed row in {where}. {advice}")
        self._skipped += 1
        if len(self._examples) < MAX_EXAMPLES:
            self._examples.append(where)
        if self._skipped > self._rule.limit:
            raise DeshiError(
                f"More than {self._rule.limit} malformed rows; the latest is in {where}. "
                f"Check that the file has the expected format, or raise {self._keys}max_bad_rows."
            )

    def report(self) -> BadRowReport:
        """What was read and skipped so far."""
        return BadRowReport(self._skipped, list(self._examples), dict(self._rows), list(self._notes))


@dataclass(frozen=True)
class RawData:
    """The content of a source.

    Attributes:
        interactions: ``user_id``, ``item_id``, ``timestamp`` Int64, ``rating`` Float32 (may be null; the column is
            absent if the source has no ratings), in the order of the original file. Then a column ``filter:NAME`` for
            each further column that ``data.filters.keep`` names. Ids and filters are String, or Categorical, which
            holds each text once.
        items: ``item_id`` String (unique), ``title`` String (may be null), further text columns as String; or None.
        time_unit: ``ms`` (milliseconds since 1970-01-01 UTC) or ``position`` (only the order means something).
        files: what was read.
        bad_rows: what was skipped.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame | None
    time_unit: str
    files: list[FileRecord]
    bad_rows: BadRowReport

    def __post_init__(self) -> None:
        if self.time_unit not in ("ms", "position"):
            raise DeshiError(f"RawData.time_unit is {self.time_unit!r}, expected 'ms' or 'position'.")
        schema = self.interactions.schema
        expected: dict[str, pl.DataType] = {USER: pl.String(), ITEM: pl.String(), TIMESTAMP: pl.Int64()}
        if RATING in schema:
            expected[RATING] = pl.Float32()
        expected |= {name: pl.String() for name in schema if name.startswith(FILTER)}
        types = {name: pl.String() if isinstance(dtype, pl.Categorical) else dtype for name, dtype in schema.items()}
        if types != expected or list(schema) != list(expected):
            raise DeshiError(
                f"RawData.interactions has the columns {dict(schema)}, expected {expected}. "
                f"Cast and select them in the source."
            )
        if self.items is not None:
            _check_items(self.items)


def _check_items(items: pl.DataFrame) -> None:
    if items.columns[:2] != [ITEM, TITLE] or any(dtype != pl.String for dtype in items.dtypes):
        raise DeshiError(
            f"RawData.items has the columns {dict(items.schema)}, expected item_id and title first, all String. "
            f"Cast and select them in the source."
        )
    repeated = items.filter(pl.col(ITEM).is_duplicated() | pl.col(ITEM).is_null())
    if repeated.height:
        raise DeshiError(
            f"RawData.items names the item {repeated[ITEM][0]!r} more than once, expected unique item ids. "
            f"Keep one row per item in the source."
        )


class Source(Protocol):
    """Something that interactions can be loaded from; built from the config's ``source`` node.

    A source with an attribute ``columns`` (:class:`deshi.data.sources.columns.Columns`) reads its ``further`` columns
    for ``data.filters.keep``.
    """

    def load(self, cache: Path, bad_rows: BadRows) -> RawData:
        """Fetch what is missing into ``cache``, parse it and return it.

        Raises:
            DeshiError: if a file can't be had, is empty or damaged, or has a malformed row that ``bad_rows`` refuses.
        """
        ...

"""Rows of a damaged file, one by one, so that every malformed one has its line number."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import polars as pl

from deshi.data.raw import BadRowLog
from deshi.data.sources.columns import REASON, Columns, convert, good_rows

CHUNK = 200_000


class SlowReader:
    """Collects a file's rows as text, with line numbers, and sorts out the malformed ones at the end."""

    def __init__(self, columns: Columns, label: str, separator: str) -> None:
        """Start without rows; ``separator`` stands between the fields of a row that a message quotes."""
        self._columns, self._label, self._separator = columns, label, separator
        self._lines = array("q")
        self._pending: list[Sequence[str | None]] = []
        self._chunks: list[pl.DataFrame] = []
        self._bad: list[tuple[int, str, str]] = []

    def add(self, line: int, values: Sequence[str | None]) -> None:
        """Take a row: the text of each column in the order of ``Columns.used``."""
        self._lines.append(line)
        self._pending.append(values)
        if len(self._pending) == CHUNK:
            self._flush()

    def reject(self, line: int, reason: str, content: str) -> None:
        """Note a row that isn't even well-formed."""
        self._bad.append((line, reason, content))

    def _flush(self) -> None:
        schema = {name: pl.String() for name in self._columns.used}
        self._chunks.append(pl.DataFrame(self._pending, schema=schema, orient="row"))
        self._pending = []

    def finish(self, log: BadRowLog) -> pl.DataFrame:
        """The good rows in RawData's columns; all others go to ``log`` in the file's order."""
        self._flush()
        texts = pl.concat(self._chunks)
        converted = convert(texts, self._columns)
        for row in converted[REASON].is_not_null().arg_true().to_list():
            content = self._separator.join(str(value) for value in texts.row(row))
            self._bad.append((self._lines[row], str(converted[REASON][row]), content))
        for line, reason, content in sorted(self._bad):
            log.add(self._label, line, reason, content)
        return good_rows(converted)

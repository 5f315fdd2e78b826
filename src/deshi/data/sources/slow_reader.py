"""Rows of a damaged file, one by one, so that every malformed one has its line number."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import polars as pl

from deshi.data.raw import BadRowLog
from deshi.data.sources.columns import REASON, Columns, convert, good_rows

CHUNK = 200_000
LINE = "__line__"
"""The column of line numbers beside the columns of a file."""

Malformed = tuple[int, str, str]
"""Line number, reason and content of a malformed row."""


class SlowReader:
    """Collects a file's rows as text, with line numbers, and its malformed rows."""

    def __init__(self, names: Sequence[str], separator: str) -> None:
        """Start without rows of the columns ``names``; ``separator`` stands between the fields that are shown."""
        self._names, self._separator = names, separator
        self._lines = array("q")
        self._pending: list[Sequence[str | None]] = []
        self._chunks: list[pl.DataFrame] = []
        self.malformed: list[Malformed] = []

    def add(self, line: int, values: Sequence[str | None]) -> None:
        """Take a row: the text of each column."""
        self._lines.append(line)
        self._pending.append(values)
        if len(self._pending) == CHUNK:
            self._flush()

    def reject(self, line: int, reason: str, content: str) -> None:
        """Note a row that isn't even well-formed."""
        self.malformed.append((line, reason, content))

    def texts(self) -> pl.DataFrame:
        """The rows in their order: ``__line__`` Int64, and the columns as String."""
        self._flush()
        return pl.concat(self._chunks).insert_column(0, pl.Series(LINE, self._lines, dtype=pl.Int64))

    def _flush(self) -> None:
        schema = {name: pl.String() for name in self._names}
        self._chunks.append(pl.DataFrame(self._pending, schema=schema, orient="row"))
        self._pending = []

    def finish(self, columns: Columns, label: str, log: BadRowLog) -> pl.DataFrame:
        """The good rows in RawData's columns; all others go to ``log`` in the file's order."""
        texts = self.texts()
        converted = convert(texts, columns)
        malformed = list(self.malformed)
        for row in converted[REASON].is_not_null().arg_true().to_list():
            line, *values = texts.row(row)
            malformed.append((line, str(converted[REASON][row]), self._separator.join(map(str, values))))
        for line, reason, content in sorted(malformed):
            log.add(label, line, reason, content)
        return good_rows(converted)

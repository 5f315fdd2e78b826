"""Rows of one table, or of several tables of the same kind one below the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from deshi.arrays import offsets_of
from deshi.data.raw import BadRowLog
from deshi.tables import Malformed, Table, ids
from deshi.types import DeshiError


@dataclass(frozen=True, eq=False)
class SourceRows:
    """The rows of tables as one frame, each with its place in a file.

    Attributes:
        tables: in the order of their rows.
        frame: the rows.
    """

    tables: Sequence[Table]
    frame: pl.DataFrame

    @classmethod
    def of(cls, tables: Sequence[Table], id_columns: Sequence[str]) -> SourceRows:
        """Put tables one below the other; ids of different types become texts before, so that none is rounded.

        Raises:
            DeshiError: for a column that one table lacks, or whose types don't fit together.
        """
        if len(tables) == 1:
            return cls(tables, tables[0].frame)
        frames = [table.frame for table in tables]
        for name in id_columns:
            if all(name in frame.columns for frame in frames) and len({frame[name].dtype for frame in frames}) > 1:
                frames = [frame.with_columns(ids(frame[name])) for frame in frames]
        for table, frame in zip(tables, frames, strict=True):
            _check_columns(table, frame, tables[0], frames[0])
        return cls(tables, pl.concat([frame.select(frames[0].columns) for frame in frames], how="vertical_relaxed"))

    def log(self, problems: Iterable[Malformed], log: BadRowLog) -> None:
        """Report all malformed rows in the order of files and lines: those of the tables, and ``problems``.

        Args:
            problems: the row's number in the frame, why it is malformed, and its content.
            log: of malformed rows.
        """
        starts = offsets_of([table.frame.height for table in self.tables]).tolist()
        malformed = [(number, *row) for number, table in enumerate(self.tables) for row in table.malformed]
        for row, reason, content in problems:
            number = bisect_right(starts, row) - 1
            malformed.append((number, self.tables[number].lines[row - starts[number]], reason, content))
        for number, line, reason, content in sorted(malformed):
            table = self.tables[number]
            log.add(table.label if table.unit == "line" else f"{table.label} (row numbers)", line, reason, content)


def _check_columns(table: Table, frame: pl.DataFrame, first: Table, expected: pl.DataFrame) -> None:
    """Refuse a table whose columns differ from those of the first one."""
    for name in sorted({*frame.columns, *expected.columns}):
        if name not in frame.columns or name not in expected.columns:
            lacking, other = (table, first) if name not in frame.columns else (first, table)
            raise DeshiError(
                f"{lacking.label} has no column {name}, but {other.label} has. Files that are read together need the "
                f"same columns: write them alike, or choose some of them with data.source.pattern."
            )
        types = frame[name].dtype, expected[name].dtype
        try:
            if types.count(pl.String) == 1 and pl.Null not in types:
                raise pl.exceptions.SchemaError("text and no text")
            pl.concat([expected[name].clear().to_frame(), frame[name].clear().to_frame()], how="vertical_relaxed")
        except pl.exceptions.PolarsError as error:
            raise DeshiError(
                f"The column {name} holds {types[0]} in {table.label}, but {types[1]} in {first.label}. Write it alike."
            ) from error

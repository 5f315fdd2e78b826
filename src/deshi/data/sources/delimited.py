"""Text tables with a separator, read by Polars, or row by row where rows are malformed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from deshi.data.raw import BadRowLog
from deshi.data.sources._files import open_bytes
from deshi.data.sources.columns import REASON, Columns, convert, good_rows, not_empty
from deshi.data.sources.slow_reader import LINE, Malformed, SlowReader
from deshi.types import DeshiError


@dataclass(frozen=True)
class Layout:
    """How a text table is written.

    Attributes:
        separator: between fields, of any length.
        names: the columns in the file's order, or None if the first line names them.
        quoted: whether fields may stand in double quotes (then the separator must be one character).
        encoding: of the text.
    """

    separator: str
    names: tuple[str, ...] | None = None
    quoted: bool = False
    encoding: str = "utf-8"

    @property
    def is_utf8(self) -> bool:
        """Whether Polars can read the text without converting it."""
        return self.encoding.lower() in ("utf-8", "utf8", "ascii")

    def __post_init__(self) -> None:
        if not self.separator or (self.quoted and len(self.separator) != 1):
            raise DeshiError(f"The separator is {self.separator!r}, expected one character, or several without quotes.")


def read_interactions(path: Path, label: str, layout: Layout, columns: Columns, log: BadRowLog) -> pl.DataFrame:
    """The interactions of a text table in RawData's columns, in the file's order.

    Raises:
        DeshiError: for an unreadable file, a missing column, or a malformed row that ``log`` refuses.
    """
    header = read_header(path, label, layout)
    columns.check(header, label)
    frame = _read_fast(path, layout, header, columns.used)
    if frame is not None:
        converted = convert(frame, columns)
        if converted[REASON].null_count() == converted.height:
            return not_empty(good_rows(converted), label)
    reader = _read_slowly(path, layout, header, columns.used)
    return not_empty(reader.finish(columns, label, log), label)


def read_header(path: Path, label: str, layout: Layout) -> list[str]:
    """The names of the columns, from the layout or the first line."""
    if layout.names is not None:
        return list(layout.names)
    for _, fields in iterate_rows(path, layout):
        return [name.strip() for name in fields]
    raise DeshiError(f"{label} is empty: it has not even a first line with the columns' names.")


def _read_fast(path: Path, layout: Layout, header: list[str], used: list[str]) -> pl.DataFrame | None:
    """Line numbers and the used columns as text, or None if Polars can't read the file as it is."""
    source: Path | bytes = path
    separator = layout.separator
    if len(separator) > 1 or not layout.is_utf8:
        with open_bytes(path) as handle:
            source = handle.read()
        if len(separator) > 1:
            if b"\t" in source:
                return None
            source = source.replace(separator.encode(), b"\t")
            separator = "\t"
    try:
        if isinstance(source, bytes) and not layout.is_utf8:
            source = source.decode(layout.encoding).encode()
        frame = pl.read_csv(
            source, separator=separator, has_header=False, skip_rows=0 if layout.names else 1,
            quote_char='"' if layout.quoted else None, infer_schema=False, raise_if_empty=False, new_columns=header,
        )  # fmt: skip
    except (pl.exceptions.PolarsError, UnicodeDecodeError, OSError):
        return None
    if frame.columns != header:
        return None
    blank = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()  # blank lines are no rows
    first = 1 if layout.names else 2
    lines = pl.int_range(first, pl.len() + first, dtype=pl.Int64).alias(LINE)
    return frame.select(lines, *used).filter(~blank)


def iterate_rows(path: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Every row as its first line's number (from 1) and its fields; blank lines are left out."""
    encoding = "utf-8-sig" if layout.is_utf8 else layout.encoding
    with (
        open_bytes(path) as binary,
        io.TextIOWrapper(binary, encoding=encoding, errors="replace", newline="") as text,
    ):
        if not layout.quoted:
            for number, line in enumerate(text, start=1):
                if stripped := line.rstrip("\r\n"):
                    yield number, stripped.split(layout.separator)
            return
        reader = csv.reader(text, delimiter=layout.separator)
        while True:
            number = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                fields = [f"<{error}>"]
            if fields:
                yield number, fields


def read_texts(path: Path, label: str, layout: Layout, log: BadRowLog) -> tuple[pl.DataFrame, list[int]]:
    """All columns of a text table as text, and the line of each row; rows of another width are malformed."""
    header = read_header(path, label, layout)
    rows, lines = [], []
    for number, fields in iterate_rows(path, layout):
        if layout.names is None and number == 1:
            continue
        if len(fields) != len(header):
            log.add(label, number, f"{len(fields)} columns, expected {len(header)}", layout.separator.join(fields))
        else:
            rows.append(fields)
            lines.append(number)
    return pl.DataFrame(rows, schema={name: pl.String for name in header}, orient="row"), lines


def read_columns(
    path: Path, layout: Layout, header: list[str], used: list[str]
) -> tuple[pl.DataFrame, list[Malformed]]:
    """Some columns of a text table: ``__line__`` and ``used`` as String, and the malformed rows.

    Raises:
        OSError, EOFError: if the file can't be read.
    """
    frame = _read_fast(path, layout, header, used)
    if frame is not None:
        return frame, []
    reader = _read_slowly(path, layout, header, used)
    return reader.texts(), reader.malformed


def _read_slowly(path: Path, layout: Layout, header: list[str], used: list[str]) -> SlowReader:
    """The rows with their line numbers, and the malformed ones."""
    positions = [header.index(name) for name in used]
    needed = max(positions) + 1
    reader = SlowReader(used, layout.separator)
    for number, fields in iterate_rows(path, layout):
        if layout.names is None and number == 1:
            continue
        if not needed <= len(fields) <= len(header):
            reason = f"{len(fields)} columns, expected {len(header)}"
            reader.reject(number, reason, layout.separator.join(fields))
        elif any("\ufffd" in fields[position] for position in positions):
            reader.reject(number, f"not valid {layout.encoding} text", layout.separator.join(fields))
        else:
            reader.add(number, [fields[position] for position in positions])
    return reader

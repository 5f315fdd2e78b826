"""Text tables with a separator, read fast by Polars; only when that fails is the culprit's line hunted."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from deshi.data.raw import BadRowLog
from deshi.data.sources.columns import REASON, Columns, convert, good_rows
from deshi.data.sources.files import open_bytes
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
        done = convert(frame, columns)
        if done[REASON].null_count() == done.height:
            return not_empty(good_rows(done), label)
    return not_empty(_read_slowly(path, label, layout, header, columns, log), label)


def not_empty(frame: pl.DataFrame, label: str) -> pl.DataFrame:
    """``frame``, refused if it has no rows."""
    if frame.is_empty():
        raise DeshiError(f"{label} is empty: it has no rows. Check that it is the right file.")
    return frame


def read_header(path: Path, label: str, layout: Layout) -> list[str]:
    """The names of the columns, from the layout or the first line."""
    if layout.names is not None:
        return list(layout.names)
    for _, fields in iterate_rows(path, layout):
        return [name.strip().removeprefix("\ufeff") for name in fields]
    raise DeshiError(f"{label} is empty: it has not even a first line with the columns' names.")


def _read_fast(path: Path, layout: Layout, header: list[str], used: list[str]) -> pl.DataFrame | None:
    """The used columns as text, or None if Polars can't read the file as it is."""
    source: Path | bytes = path
    separator = layout.separator
    if len(separator) > 1 or layout.encoding.lower() not in ("utf-8", "utf8", "ascii"):
        with open_bytes(path) as handle:
            source = handle.read()
        if len(separator) > 1:
            if b"\t" in source:
                return None
            source = source.replace(separator.encode(), b"\t")
            separator = "\t"
    try:
        if isinstance(source, bytes) and layout.encoding.lower() not in ("utf-8", "utf8", "ascii"):
            source = source.decode(layout.encoding).encode()
        frame = pl.read_csv(
            source, separator=separator, has_header=False, skip_rows=0 if layout.names else 1,
            quote_char='"' if layout.quoted else None, infer_schema=False, raise_if_empty=False, truncate_ragged_lines=False,
            new_columns=header,
        )  # fmt: skip
    except (pl.exceptions.PolarsError, UnicodeDecodeError):
        return None
    return frame.select(used) if frame.columns == header else None


def iterate_rows(path: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Every row as its first line's number (from 1) and its fields; blank lines are left out."""
    with (
        open_bytes(path) as binary,
        io.TextIOWrapper(binary, encoding=layout.encoding, errors="replace", newline="") as text,
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


def _read_slowly(
    path: Path, label: str, layout: Layout, header: list[str], columns: Columns, log: BadRowLog
) -> pl.DataFrame:
    """Row by row with line numbers: malformed rows go to the log in the file's order, the good ones are returned."""
    places = [header.index(name) for name in columns.used]
    needed = max(places) + 1
    lines: list[int] = []
    values: list[list[str]] = [[] for _ in places]
    bad: list[tuple[int, str, str]] = []
    for number, fields in iterate_rows(path, layout):
        if layout.names is None and number == 1:
            continue
        if not needed <= len(fields) <= len(header):
            reason = f"{len(fields)} columns, expected {len(header)}"
        elif any("\ufffd" in fields[place] for place in places):
            reason = f"not valid {layout.encoding} text"
        else:
            lines.append(number)
            for column, place in zip(values, places, strict=True):
                column.append(fields[place])
            continue
        bad.append((number, reason, layout.separator.join(fields)))
    names = dict(zip(columns.used, values, strict=True))
    done = convert(pl.DataFrame(names, schema={name: pl.String for name in names}), columns)
    for row in done.select(pl.col(REASON).is_not_null().arg_true()).to_series().to_list():
        content = layout.separator.join(column[row] for column in values)
        bad.append((lines[row], str(done[REASON][row]), content))
    for number, reason, content in sorted(bad):
        log.add(label, number, reason, content)
    return good_rows(done)

"""Text tables with a separator: read by Polars where every line is a row, line by line elsewhere."""

from __future__ import annotations

import codecs
import re
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from deshi.tables._bytes import chunks, numbered_lines
from deshi.types import DeshiError

Malformed = tuple[int, str, str]
"""Line number, reason and content of a malformed row."""

BATCH = 200_000
MAX_LINES = 1000
"""A quoted field of more lines is taken for one whose quote was never closed."""

UNBALANCED = "a quote opens that isn't closed"


@dataclass
class Rows:
    """What a text holds: rows, and all other lines.

    Attributes:
        frame: the columns asked for, as text.
        lines: number of each row's first line.
        malformed: lines that are no rows.
        blank: number of empty lines.
        continued: number of lines inside quoted fields, the first of each field left out.
    """

    frame: pl.DataFrame
    lines: Sequence[int]
    malformed: list[Malformed] = field(default_factory=list)
    blank: int = 0
    continued: int = 0


@dataclass(frozen=True)
class Layout:
    """A text table's separator, its quote (None: there is none), and its columns in their order.

    Attributes:
        has_header: whether the first line names the columns and so is no row.
        single_line: columns that may not hold a line break.
    """

    separator: str
    quote: str | None
    names: tuple[str, ...]
    has_header: bool
    single_line: tuple[str, ...]


def read_rows(source: Path | bytes, layout: Layout, used: Sequence[str]) -> Rows:
    """The columns ``used`` of a text table, see :func:`deshi.tables.read_table`."""
    return _read_by_polars(source, layout, used) or _read_by_line(source, layout, used)


def _read_by_polars(source: Path | bytes, layout: Layout, used: Sequence[str]) -> Rows | None:
    """All rows at once; None unless every line is a row, empty or not, so that no line can be lost or merged."""
    survey = _survey(source, layout)
    if survey is None:
        return None
    separator = layout.separator
    if len(separator) > 1:
        # Polars takes one sign: a tab stands for the separator if the text has none.
        content = source if isinstance(source, bytes) else source.read_bytes()
        if b"\t" in content:
            return None
        source, separator = content.replace(separator.encode(), b"\t"), "\t"
    try:
        frame = pl.read_csv(
            source, separator=separator, has_header=False, skip_lines=int(layout.has_header),
            quote_char=layout.quote if survey.is_quoted else None, infer_schema=False, raise_if_empty=False,
            new_columns=list(layout.names), glob=False,
        )  # fmt: skip
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return None
    if tuple(frame.columns) != layout.names or frame.height + layout.has_header != survey.n_lines:
        return None
    if survey.is_quoted:
        frame = frame.with_columns(pl.when(pl.all() != "").then(pl.all()))
    first = 1 + layout.has_header
    lines: Sequence[int] = range(first, first + frame.height)
    blank = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
    # A row that is too short has no last field. Within quotes separators don't count, so any empty one is suspected.
    n_short = frame[layout.names[-1]].null_count() - int(blank.sum()) if survey.is_quoted else survey.n_missing
    if n_short:
        return None
    frame = frame.select(used)
    if n_blank := int(blank.sum()):
        lines = ((~blank).arg_true() + first).to_list()
        frame = frame.filter(~blank)
    return Rows(frame, lines, blank=n_blank)


@dataclass
class _Survey:
    """Number of lines, of separators that they lack to have every field, and whether there are quotes."""

    n_lines: int = 0
    n_missing: int = 0
    is_quoted: bool = False


def _survey(source: Path | bytes, layout: Layout) -> _Survey | None:
    """What the bytes hold; None for signs that Polars may read in another way than the reader by line."""
    quote, separator = (layout.quote or '"').encode(), layout.separator.encode()
    # A quote inside a field, or behind a backslash: only the reader by line says which row it spoils.
    plain = b"[^" + re.escape(separator + quote) + b"\n\r]"
    inside = re.compile(quote + b"(?=" + plain + b")(?<=" + plain + quote + b")")
    survey, n_quotes = _Survey(), 0
    for piece in chunks(source):
        if not survey.n_lines and piece.partition(b"\n")[2].startswith(codecs.BOM_UTF8):
            return None  # Polars takes it for the file's
        if b"\0" in piece or (b"\r" in piece and _LONE_RETURN.search(piece)):
            return None
        if layout.quote is not None and quote in piece:
            survey.is_quoted, n_quotes = True, n_quotes + piece.count(quote)
            if b"\\" + quote in piece or inside.search(piece):
                return None
        if piece.endswith(separator):  # Polars accepts one field too many there
            return None
        n_lines = piece.count(b"\n") + (not piece.endswith(b"\n"))
        n_missing = n_lines * (len(layout.names) - 1) - piece.count(separator)
        if n_missing:  # empty lines have no separators
            n_missing -= len(_EMPTY.findall(piece)) * (len(layout.names) - 1)
        survey.n_lines, survey.n_missing = survey.n_lines + n_lines, survey.n_missing + n_missing
    return None if n_quotes % 2 else survey


_EMPTY = re.compile(b"(?m)^\r?\n")
_LONE_RETURN = re.compile(b"\r(?!\n)")


def _read_by_line(source: Path | bytes, layout: Layout, used: Sequence[str]) -> Rows:
    """The rows one by one, each malformed line with its reason."""
    positions = [layout.names.index(name) for name in used]
    lines, values, batches = array("q"), [], []
    rows = Rows(pl.DataFrame(), lines)
    schema = {name: pl.String() for name in used}
    for number, fields in iterate_rows(source, layout, rows):
        lines.append(number)
        values.append([fields[position] or None for position in positions])
        if len(values) == BATCH:
            batches.append(pl.DataFrame(values, schema=schema, orient="row"))
            values = []
    rows.frame = pl.concat([*batches, pl.DataFrame(values, schema=schema, orient="row")])
    return rows


def iterate_rows(source: Path | bytes, layout: Layout, rows: Rows) -> Iterator[tuple[int, list[str]]]:
    """Every good row as its first line's number and its fields; all other lines are counted in ``rows``."""
    pending = _Lines(source, rows)
    if layout.has_header:
        next(pending)
    for number, line in pending:
        fields = split_fields(line, layout) or pending.continued(line, layout)
        reason = UNBALANCED if fields is None else _reason(fields, layout)
        if fields is None or (reason and any(fields)):
            rows.malformed.append((number, str(reason), line))
        elif any(fields):
            yield number, fields
        else:
            rows.blank += 1


def _reason(fields: list[str], layout: Layout) -> str | None:
    """Why the fields of a line are no row."""
    if len(fields) != len(layout.names):
        return f"{len(fields)} columns, expected {len(layout.names)}"
    for name in layout.single_line:
        position = layout.names.index(name)
        if "\n" in fields[position] or "\r" in fields[position]:
            return f"a line break inside {name}"
        if "\0" in fields[position]:
            return f"a NUL character inside {name}"
    return None


class _Lines:
    """The lines of a text as numbers and texts; those that aren't UTF-8 are counted as malformed and left out."""

    def __init__(self, source: Path | bytes, rows: Rows) -> None:
        self._lines = numbered_lines(source)
        self._returned: deque[tuple[int, bytes]] = deque()
        self._rows = rows

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return self

    def __next__(self) -> tuple[int, str]:
        while True:
            number, line = self._returned.popleft() if self._returned else next(self._lines)
            try:
                return number, line.decode()
            except UnicodeDecodeError:
                self._rows.malformed.append((number, "not valid text in its encoding", line.decode(errors="replace")))

    def continued(self, first: str, layout: Layout) -> list[str] | None:
        """The fields of a row whose quoted field goes on in the next lines; None if it is never closed.

        Without a row, the next lines are read again, each by itself, so that an unbalanced quote costs its line only.
        """
        assert layout.quote is not None
        taken: list[tuple[int, bytes]] = []
        text = first
        while len(taken) < MAX_LINES:
            following = self._returned.popleft() if self._returned else next(self._lines, None)
            if following is None:
                break
            taken.append(following)
            text += "\n" + following[1].decode(errors="replace")
            if layout.quote.encode() not in following[1]:
                continue
            fields = split_fields(text, layout)
            if fields is not None:
                if len(fields) != len(layout.names) or _are_rows(text.split("\n"), layout):
                    break
                self._rows.continued += len(taken)
                return fields
        self._returned.extendleft(reversed(taken))
        return None


def _are_rows(lines: Iterable[str], layout: Layout) -> bool:
    """Whether each line has the fields of a row by itself, which means that no quoted field joins them."""
    return all(line.count(layout.separator) == len(layout.names) - 1 for line in lines)


def split_fields(line: str, layout: Layout) -> list[str] | None:
    """The fields of a row; None if a quoted field isn't closed, or goes on after its closing quote."""
    quote = layout.quote
    if quote is None or quote not in line:
        return line.split(layout.separator)
    fields = _split_quoted(line, layout.separator, quote, f"(?:[^{quote}]|{quote}{quote})*", quote * 2)
    if fields is None and "\\" + quote in line:
        fields = _split_quoted(line, layout.separator, quote, rf"(?:[^{quote}\\]|\\.|{quote}{quote})*", "\\" + quote)
    return fields


def _split_quoted(line: str, separator: str, quote: str, inside: str, escaped: str) -> list[str] | None:
    pattern = re.compile(f"{quote}({inside}){quote}", re.DOTALL)
    fields, start = [], 0
    while True:
        if line.startswith(quote, start):
            match = pattern.match(line, start)
            if match is None or (match.end() < len(line) and not line.startswith(separator, match.end())):
                return None
            fields.append(match[1].replace(escaped, quote))
            start = match.end()
        else:
            end = line.find(separator, start)
            end = len(line) if end < 0 else end
            fields.append(line[start:end])
            start = end
        if start == len(line):
            return fields
        start += len(separator)


def first_fields(source: Path | bytes, layout: Layout, label: str) -> list[str]:
    """The fields of the first line, blanks around them gone.

    Raises:
        DeshiError: if there is none, or it isn't text.
    """
    for _, line in numbered_lines(source):
        try:
            fields = split_fields(line.decode(), layout)
        except UnicodeDecodeError as error:
            raise DeshiError(f"{label} is no valid text ({error}). Set its encoding, or convert it.") from error
        if fields is None:
            raise DeshiError(f"{label}, line 1: {UNBALANCED}: {line.decode()[:200]!r}. Repair it.")
        return [name.strip() for name in fields]
    raise DeshiError(f"{label} is empty: it has not even a first line with the columns' names.")

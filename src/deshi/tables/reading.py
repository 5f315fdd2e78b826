"""One reader for foreign tables: csv and its like, JSON records, parquet; every line is a row or is accounted for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

from deshi.configuration.targets import nearest
from deshi.tables import _delimited as delimited
from deshi.tables import _records as records
from deshi.tables._bytes import numbered_lines, utf8_source
from deshi.tables._delimited import Malformed
from deshi.types import DeshiError

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t", ".inter": "\t", ".item": "\t"}
PARQUET = (".parquet", ".pq")
JSON = (".jsonl", ".ndjson", ".json")
_NAMED = {"tab": "\t", "\\t": "\t"}


@dataclass(frozen=True)
class TableFormat:
    r"""How a text table is written. What is None goes by the file's name.

    Attributes:
        separator: between fields, of any length; ``tab`` and ``\t`` stand for the tab.
        encoding: of the text; a byte order mark in the file overrides it.
        quote: the sign around fields that hold separators or line breaks, None for none, or ``auto``: double quotes
            unless the separator is a tab or longer than one sign.
        columns: the columns in the file's order; None: the first line names them.
    """

    separator: str | None = None
    encoding: str = "utf-8"
    quote: str | None = "auto"
    columns: Sequence[str] | None = None

    def __post_init__(self) -> None:
        separator = None if self.separator is None else _NAMED.get(self.separator, self.separator)
        object.__setattr__(self, "separator", separator)
        if separator is not None and not separator:
            raise DeshiError("The separator is empty, expected the sign between two fields, such as ',' or tab.")
        if self.quote not in (None, "auto") and len(self.quote) != 1:
            raise DeshiError(f"quote is {self.quote!r}, expected one sign, null for none, or auto.")
        if self.quote not in (None, "auto") and separator is not None and len(separator) != 1:
            raise DeshiError(
                f"The separator is {separator!r} and the quote {self.quote!r}; quotes need a separator of one sign."
            )


@dataclass(frozen=True, eq=False)
class Table:
    """A table that was read.

    Attributes:
        label: the file, for messages.
        frame: the columns asked for, rows in the file's order: texts of text files and JSON, typed of parquet.
        lines: the line of each row (its row number in parquet), from 1.
        names: all columns of the file.
        malformed: lines that are no rows, in their order.
        blank: number of empty lines, with fields or without.
        continued: lines that continue a quoted field of the line before.
        unit: what ``lines`` count: ``line``, or ``row`` in parquet.
    """

    label: str
    frame: pl.DataFrame
    lines: Sequence[int]
    names: Sequence[str]
    malformed: Sequence[Malformed] = field(default_factory=list)
    blank: int = 0
    continued: int = 0
    unit: str = "line"


def read_table(
    path: Path,
    columns: Sequence[str] | None = None,
    form: TableFormat | None = None,
    label: str | None = None,
    numeric: Sequence[str] = (),
    single_line: Sequence[str] | None = None,
    advice: str = "",
) -> Table:
    """Read a .csv, .tsv, .txt, .jsonl, .ndjson or .json file, all of them also with .gz, or a .parquet file.

    No line is lost or merged: each is the first line, a row, malformed, empty, or continues a quoted field.

    Args:
        path: the file, read by this very name (brackets and stars are no pattern).
        columns: what to read; None reads all columns. ``a.b`` is the field ``b`` of the records in the list ``a``.
        form: how a text table is written; one with a separator is read as text whatever its ending.
        label: what messages call the file; None: its path.
        numeric: those of ``columns`` that hold numbers or times, which lets JSON be read faster.
        single_line: columns in which a line break makes a row malformed; None: all of ``columns``.
        advice: how a missing column can be named, for the message.

    Raises:
        DeshiError: for a file that is missing, empty, truncated or of another kind, and a missing column.
    """
    return open_table(path, form, label).read(columns, numeric, single_line, advice)


def column_names(path: Path, form: TableFormat | None = None, label: str | None = None) -> list[str]:
    """The names of a table's columns, see :attr:`TableFile.names`."""
    return open_table(path, form, label).names


def open_table(path: Path, form: TableFormat | None = None, label: str | None = None) -> TableFile:
    """A file whose columns are looked at before some of them are read; arguments as of :func:`read_table`.

    Raises:
        DeshiError: for a file that is missing, empty, truncated or of another kind.
    """
    form, label = form or TableFormat(), label or str(path)
    kind = _format(path, form, label)
    source = path if kind == "parquet" else utf8_source(path, label, form.encoding)
    return TableFile(path, form, label, kind, source)


@dataclass(frozen=True, eq=False)
class TableFile:
    """A table's file, unpacked and decoded once.

    Attributes:
        path: of the file.
        form: how a text table is written.
        label: what messages call the file.
        kind: ``parquet``, ``records`` or ``text``.
        source: the path of a file that can be read as it is, else its whole text as UTF-8.
    """

    path: Path
    form: TableFormat
    label: str
    kind: str
    source: Path | bytes

    @cached_property
    def names(self) -> list[str]:
        """The names of the columns: for records, those of the first 1,000.

        Raises:
            DeshiError: if they can't be read, and for two columns of one name.
        """
        if self.kind == "parquet":
            try:
                return list(pl.read_parquet_schema(self.path.open("rb")))
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
                raise DeshiError(f"{self.label} can't be read as parquet ({error}). Write it again.") from error
        if self.kind == "records":
            return records.field_names(self.source, self.label)
        first = delimited.first_fields(self.source, _layout(self.path, self.form, (), ()), self.label)
        return _checked_names(first, self.form, self.label)

    def read(
        self,
        columns: Sequence[str] | None = None,
        numeric: Sequence[str] = (),
        single_line: Sequence[str] | None = None,
        advice: str = "",
        codes: Mapping[str, pl.Categorical] | None = None,
    ) -> Table:
        """The rows, see :func:`read_table`.

        Args:
            columns: as there, like those that follow.
            numeric: see there.
            single_line: see there.
            advice: see there.
            codes: columns of ids with the type of their codes, as which those of texts and whole numbers in a parquet
                file are read, so that a text is held once.
        """
        names, label = self.names, self.label
        if columns is not None:
            outer = [name if name in names else name.partition(".")[0] for name in columns]
            require_columns(names, outer, label, advice)
        used = list(dict.fromkeys(names if columns is None else columns))
        if self.kind == "parquet":
            frame = _parquet(self.path, label, used, names, codes or {})
            return Table(label, frame, range(1, frame.height + 1), names, unit="row")
        if self.kind == "records":
            rows = records.read_rows(self.source, used, numeric, label, columns is None)
        else:
            single = tuple(columns or ()) if single_line is None else tuple(single_line)
            rows = delimited.read_rows(self.source, _layout(self.path, self.form, names, single), used)
        rows.malformed.sort()
        return Table(label, rows.frame, rows.lines, names, rows.malformed, rows.blank, rows.continued)


def _checked_names(first: list[str], form: TableFormat, label: str) -> list[str]:
    """The names that the user gives, or the fields of the first line."""
    if form.columns is None:
        names = first
    elif len(first) != len(names := list(form.columns)):
        raise DeshiError(
            f"{label} has {len(first)} columns in its first line, but columns names {len(names)}. Name each."
        )
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        hint = _seems_data(names)
        raise DeshiError(f"{label} has several columns called {', '.join(repeated)}, expected one of each name.{hint}")
    return names


def iterate_records(path: Path, label: str) -> Iterator[tuple[int, records.Record | Malformed]]:
    """Every line of a file of records with its number: the record, or why there is none; empty lines are left out.

    Raises:
        DeshiError: as :func:`read_table`.
    """
    rows = delimited.Rows(pl.DataFrame(), [])
    for number, record in records.iterate_records(utf8_source(path, label, "utf-8"), rows, label):
        yield from ((malformed[0], malformed) for malformed in rows.malformed)
        rows.malformed.clear()
        yield number, record
    yield from ((malformed[0], malformed) for malformed in rows.malformed)


def read_lines(path: Path, label: str | None = None, encoding: str = "utf-8") -> list[str]:
    """The lines of a text file, blanks around them gone; empty lines are left out, and a file may have none.

    Raises:
        DeshiError: for a missing or damaged file, and a line that isn't text in ``encoding``.
    """
    label = label or str(path)
    _check_exists(path, label)
    lines = []
    for number, line in numbered_lines(utf8_source(path, label, encoding)) if path.stat().st_size else ():
        try:
            lines.append(line.decode().strip())
        except UnicodeDecodeError as error:
            raise DeshiError(
                f"{label}, line {number} is no {encoding} text ({error}). Convert the file, or set its encoding."
            ) from error
    return [line for line in lines if line]


def _check_exists(path: Path, label: str) -> None:
    if not path.is_file():
        raise DeshiError(f"There is no file {label}.{sibling_hint(path)}")


def sibling_hint(path: Path) -> str:
    """The file beside ``path`` whose name is nearest, as a question; empty if none is near."""
    near = nearest(path.name, [file.name for file in path.parent.glob("*") if file.is_file()], 1)
    return f" Did you mean {path.parent / near[0]}?" if near else ""


def _format(path: Path, form: TableFormat, label: str) -> str:
    """``parquet``, ``records`` or ``text``."""
    _check_exists(path, label)
    kind = table_kind(path)
    if kind in PARQUET:
        return "parquet"
    if kind in JSON:
        return "records"
    if form.separator is None and kind not in SEPARATORS:
        raise DeshiError(
            f"The format of {label} can't be told from its name, expected .csv, .tsv, .txt, .parquet or .jsonl. "
            f"Rename it, or set data.source.separator of a text table."
        )
    return "text"


def _layout(path: Path, form: TableFormat, names: Sequence[str], single_line: tuple[str, ...]) -> delimited.Layout:
    separator = form.separator or SEPARATORS[table_kind(path)]
    quote = form.quote
    if quote == "auto":
        quote = '"' if len(separator) == 1 and separator != "\t" else None
    return delimited.Layout(separator, quote, tuple(names), form.columns is None, single_line)


def _parquet(
    path: Path, label: str, used: Sequence[str], names: Sequence[str], codes: Mapping[str, pl.Categorical]
) -> pl.DataFrame:
    """Columns of a parquet file; ``a.b`` is the list of the fields ``b`` of the records in ``a``."""
    outer = list(dict.fromkeys(name if name in names else name.partition(".")[0] for name in used))
    inner = [
        pl.col(name.partition(".")[0]).list.eval(pl.element().struct.field(name.partition(".")[2])).alias(name)
        for name in used
        if name not in names
    ]
    try:
        # Brackets and stars of a name are no pattern, and what the folders' names hold is read elsewhere.
        rows = pl.scan_parquet(path, glob=False, hive_partitioning=False).select(outer)
        types = rows.collect_schema()
        coded = [
            pl.col(name).cast(pl.String).cast(dtype)
            for name, dtype in codes.items()
            if name in types and (types[name] == pl.String or types[name].is_integer())
        ]
        # In a stream, the texts of a few row groups are held at a time.
        return rows.with_columns(coded).collect(engine="streaming").with_columns(inner).select(used)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DeshiError(f"{label} can't be read as parquet ({error}). Write it again.") from error


def table_kind(path: Path) -> str:
    """The ending that tells a file's format: in lower case, without ``.gz``."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def require_columns(names: Sequence[str], needed: Sequence[str], label: str, advice: str) -> None:
    """Refuse a table without one of the columns.

    Args:
        names: the columns that it has.
        needed: the columns that it must have.
        label: what messages call it.
        advice: how to name another column.

    Raises:
        DeshiError: with the nearest names, and what a first line of data or a single column hints at.
    """
    missing = [name for name in needed if name not in names]
    if not missing:
        return
    near = nearest(missing[0], names, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if data := _seems_data(names):
        hint += data
    elif len(names) == 1 and any(sign in names[0] for sign in ",;\t|"):
        hint += " The columns seem to be separated by another sign: set the separator."
    raise DeshiError(f"{label} has no column {', '.join(missing)}; it has {', '.join(names)}.{hint} {advice}")


def first_line_is_data(names: Sequence[str]) -> bool:
    """Whether what was read as names of columns seems to be a row."""
    return any(name.replace(".", "", 1).isdigit() for name in names)


def _seems_data(names: Sequence[str]) -> str:
    advice = " The first line seems to be data: then name the columns in their order (columns=[...])."
    return advice if first_line_is_data(names) else ""


FIELD_TYPES = ("token", "token_seq", "float", "float_seq")
"""What RecBole writes behind a column's name and a colon."""


def untyped(names: Sequence[str]) -> dict[str, str]:
    """The columns of RecBole's files by their names without types: ``user_id`` for ``user_id:token``."""
    return {name.rpartition(":")[0]: name for name in names if name.rpartition(":")[2] in FIELD_TYPES}

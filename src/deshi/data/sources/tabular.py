"""Any table of interactions: csv, tsv, parquet or jsonl (gzipped too), with a mapping of its columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from deshi.data.raw import BadRowLog, BadRows, RawData
from deshi.data.sources import delimited, records
from deshi.data.sources.columns import Columns, convert, ids, not_empty, take
from deshi.data.sources.delimited import Layout
from deshi.data.sources.files import Shelf, merge_records
from deshi.data.sources.times import manifest_unit
from deshi.types import ITEM, TITLE, DeshiError

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_JSON = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class ItemTable:
    """Where the item table is and which columns of it to read.

    Attributes:
        path: the file.
        item: column of item ids.
        title: column of titles, or None.
        texts: further columns to keep, as text.
    """

    path: Path
    item: str
    title: str | None
    texts: tuple[str, ...]


class Tabular:
    """A file of interactions and, if wanted, a file of items."""

    def __init__(
        self,
        path: str,
        user: str = "user_id",
        item: str = "item_id",
        timestamp: str | None = "timestamp",
        rating: str | None = None,
        time_unit: str = "auto",
        separator: str | None = None,
        encoding: str = "utf-8",
        items_path: str | None = None,
        items_id: str = "item_id",
        items_title: str | None = "title",
        items_text: list[str] | None = None,
    ) -> None:
        """Map the columns.

        Args:
            path: a .csv, .tsv, .parquet or .jsonl file, plain or (but for parquet) with .gz; or a zip holding just one.
            user: column of user ids; likewise ``item``.
            item: see ``user``.
            timestamp: column of timestamps, or of positions with ``time_unit=position``; null with ``time_unit=row``.
            rating: column of ratings, or null.
            time_unit: s, ms, us, ns, iso, date, position, row, or auto (by the values' size; mixed units are refused).
            separator: of a text table; null goes by the file's name.
            encoding: of a text table.
            items_path: item table in one of the same formats, or null.
            items_id: its column of item ids.
            items_title: its column of titles, or null.
            items_text: its further columns to keep; null keeps all.
        """
        self.path = Path(path).expanduser()
        self.columns = Columns(user, item, timestamp, rating, time_unit)
        self.separator, self.encoding = separator, encoding
        self.items_path = None if items_path is None else Path(items_path).expanduser()
        self.items_id, self.items_title = items_id, items_title
        self.items_text = None if items_text is None else tuple(items_text)

    def load(self, cache: Path, bad_rows: BadRows | None = None) -> RawData:
        """Parse the files; nothing is fetched.

        Raises:
            DeshiError: see :class:`deshi.data.raw.Source`.
        """
        log = BadRowLog(bad_rows or BadRows())
        shelves = [Shelf(self.path)]
        interactions = self._interactions(shelves[0], log)
        items = None
        if self.items_path is not None:
            shelves.append(Shelf(self.items_path))
            items = self._items(shelves[1], log)
        unit = manifest_unit(self.columns.unit)
        return RawData(interactions, items, unit, merge_records(shelves), log.report())

    def _interactions(self, shelf: Shelf, log: BadRowLog) -> pl.DataFrame:
        name = _only(shelf)
        kind, label = _kind(name), shelf.label(name)
        with shelf.local(name) as path:
            if kind == ".parquet":
                return _read_parquet(path, label, self.columns, log)
            if kind in _JSON:
                return records.read_interactions(path, label, self.columns, log)
            return delimited.read_interactions(path, label, self._layout(kind, name), self.columns, log)

    def _layout(self, kind: str, name: str) -> Layout:
        separator = self.separator or _SEPARATORS.get(kind)
        if separator is None:
            raise DeshiError(
                f"The format of {name} can't be told from its name, expected .csv, .tsv, .parquet or .jsonl. "
                f"Rename it, or set data.source.separator for a text table."
            )
        return Layout(separator, quoted=len(separator) == 1, encoding=self.encoding)

    def _items(self, shelf: Shelf, log: BadRowLog) -> pl.DataFrame:
        name = _only(shelf)
        label = shelf.label(name)
        with shelf.local(name) as path:
            frame, lines = self._item_rows(path, name, label, log)
        texts = self.items_text
        if texts is None:
            texts = tuple(column for column in frame.columns if column not in (self.items_id, self.items_title))
        wanted = [self.items_id, *([self.items_title] if self.items_title else []), *texts]
        if missing := [column for column in wanted if column not in frame.columns]:
            raise DeshiError(f"{label} has no column {', '.join(missing)}; it has {', '.join(frame.columns)}.")
        title = pl.col(self.items_title) if self.items_title else pl.lit(None, pl.String)
        items = frame.select(pl.col(self.items_id).alias(ITEM), title.alias(TITLE), *texts)
        return _unique(items, lines, label, log)

    def _item_rows(self, path: Path, name: str, label: str, log: BadRowLog) -> tuple[pl.DataFrame, list[int]]:
        """All columns of the item table as text, and each row's line or row number."""
        kind = _kind(name)
        if kind == ".parquet":
            frame = _parquet(path, label)
            texts = [ids(column) if column.name == self.items_id else _as_text(column) for column in frame]
            return pl.DataFrame(texts), list(range(1, frame.height + 1))
        lines: list[int] = []
        rows: list[dict[str, str]] = []
        if kind in _JSON:
            for number, record in records.iterate_records(path, label):
                if isinstance(record, str):
                    log.add(label, number, "not a JSON object or Python dictionary", record)
                else:
                    lines.append(number)
                    rows.append({key: records.text_of(value) for key, value in record.items()})
            names = list(dict.fromkeys(key for row in rows for key in row))
            return pl.DataFrame(rows, schema={key: pl.String for key in names}), lines
        layout = self._layout(kind, name)
        header = delimited.read_header(path, label, layout)
        for number, fields in delimited.iterate_rows(path, layout):
            if number == 1:
                continue
            if len(fields) != len(header):
                log.add(label, number, f"{len(fields)} columns, expected {len(header)}", layout.separator.join(fields))
                continue
            lines.append(number)
            rows.append(dict(zip(header, fields, strict=True)))
        return pl.DataFrame(rows, schema={key: pl.String for key in header}), lines


def _unique(items: pl.DataFrame, lines: list[int], label: str, log: BadRowLog) -> pl.DataFrame:
    """The rows with a new item id; the others are malformed. Empty texts become null."""
    blank = items[ITEM].is_null() | (items[ITEM].str.strip_chars() == "")
    again = ~items[ITEM].is_first_distinct() & ~blank
    for row in (blank | again).arg_true().to_list():
        reason = "no item id" if blank[row] else f"item id {items[ITEM][row]} was given before"
        log.add(label, lines[row], reason, ", ".join(str(value) for value in items.row(row)))
    texts = [pl.col(name).str.strip_chars() for name in items.columns[1:]]
    return items.filter(~(blank | again)).with_columns(pl.when(text != "").then(text) for text in texts)


def _only(shelf: Shelf) -> str:
    names = shelf.ending("")
    if len(names) != 1:
        raise DeshiError(f"{shelf.path} holds {len(names)} files, expected one table. Give data.source.path its path.")
    return names[0]


def _kind(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix


def _parquet(path: Path, label: str, columns: list[str] | None = None) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, columns=columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DeshiError(f"{label} can't be read as parquet ({error}). Write it again.") from error


def _read_parquet(path: Path, label: str, columns: Columns, log: BadRowLog) -> pl.DataFrame:
    """Typed columns; malformed rows are told by their row number, the first row being 1."""
    try:
        have = list(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DeshiError(f"{label} can't be read as parquet ({error}). Write it again.") from error
    columns.check(have, label)
    frame = _parquet(path, label, columns.used)
    return not_empty(take(convert(frame, columns), frame, f"{label} (row numbers)", 1, log), label)


def _as_text(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.List | pl.Struct | pl.Array):
        return pl.Series(column.name, [records.text_of(value) for value in column.to_list()], dtype=pl.String)
    return column.cast(pl.String)

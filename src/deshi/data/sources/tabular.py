"""Any table of interactions: csv, tsv, parquet or jsonl (gzipped too), with a mapping of its columns."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from deshi.data.raw import BadRowLog, BadRows, RawData
from deshi.data.sources import delimited, records
from deshi.data.sources._files import SourceFiles, merge_records
from deshi.data.sources._item_tables import item_table
from deshi.data.sources.columns import Columns, convert, not_empty, take
from deshi.data.sources.delimited import Layout
from deshi.data.sources.times import manifest_unit
from deshi.types import DeshiError

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_JSON = (".jsonl", ".ndjson", ".json")


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
        sources = [SourceFiles(self.path)]
        interactions = self._interactions(sources[0], log)
        items = None
        if self.items_path is not None:
            sources.append(SourceFiles(self.items_path))
            items = self._items(sources[1], log)
        unit = manifest_unit(self.columns.unit)
        return RawData(interactions, items, unit, merge_records(sources), log.report())

    def _interactions(self, files: SourceFiles, log: BadRowLog) -> pl.DataFrame:
        name = _only(files)
        kind, label = _kind(name), files.label(name)
        with files.local(name) as path:
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

    def _items(self, files: SourceFiles, log: BadRowLog) -> pl.DataFrame:
        name = _only(files)
        kind, label = _kind(name), files.label(name)
        with files.local(name) as path:
            if kind == ".parquet":
                table = _parquet(path, label)
                lines = list(range(1, table.height + 1))
            elif kind in _JSON:
                table, lines = records.read_texts(path, label, log)
            else:
                table, lines = delimited.read_texts(path, label, self._layout(kind, name), log)
        return item_table(table, lines, (self.items_id, self.items_title, self.items_text), label, log)


def _only(files: SourceFiles) -> str:
    names = files.ending("")
    if len(names) != 1:
        raise DeshiError(f"{files.path} holds {len(names)} files, expected one table. Give data.source.path its path.")
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

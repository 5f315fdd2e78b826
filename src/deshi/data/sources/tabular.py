"""Any table of interactions: csv, tsv, parquet or jsonl (gzipped too), with a mapping of its columns."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from deshi.data.raw import BadRowLog, BadRows, RawData
from deshi.data.sources._files import SourceFiles, merge_records
from deshi.data.sources._item_tables import item_table
from deshi.data.sources.columns import Columns, read_interactions
from deshi.tables import TableFormat, manifest_unit, read_table
from deshi.types import DeshiError


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
        time_format: str | None = None,
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
            time_format: of other times, ``%d.%m.%Y %H:%M`` or ``%Y%m%d``, see :func:`deshi.tables.to_timestamps`.
            separator: of a text table; null goes by the file's name.
            encoding: of a text table.
            items_path: item table in one of the same formats, or null.
            items_id: its column of item ids.
            items_title: its column of titles, or null.
            items_text: its further columns to keep; null keeps all.
        """
        self.path = Path(path).expanduser()
        self.columns = Columns(user, item, timestamp, rating, time_unit, time_format)
        self.form = TableFormat(separator, encoding)
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
        with files.local(name) as path:
            return read_interactions(path, files.label(name), self.form, self.columns, log)

    def _items(self, files: SourceFiles, log: BadRowLog) -> pl.DataFrame:
        name = _only(files)
        label = files.label(name)
        single_line = [column for column in (self.items_id, self.items_title) if column is not None]
        with files.local(name) as path:
            table = read_table(path, None, self.form, label, single_line=single_line)
        return item_table(table, (self.items_id, self.items_title, self.items_text), log)


def _only(files: SourceFiles) -> str:
    names = files.ending("")
    if len(names) != 1:
        raise DeshiError(f"{files.path} holds {len(names)} files, expected one table. Give data.source.path its path.")
    return names[0]

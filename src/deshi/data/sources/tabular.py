"""Any table of interactions: csv, tsv, parquet or jsonl (gzipped too), with a mapping of its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from deshi.configuration.targets import suggestion
from deshi.data.raw import BadRowLog, BadRows, RawData
from deshi.data.sources._files import SourceFiles, merge_records
from deshi.data.sources._item_tables import item_table
from deshi.data.sources._parts import read_parts
from deshi.data.sources.columns import ADVICE, Columns, interactions_of
from deshi.tables import Table, TableFormat, manifest_unit, new_codes, open_table, read_table
from deshi.types import DeshiError

_WHOLE_LINES = "\x1f"
"""A separator that no text holds, so that a line is one field."""


class Tabular:
    """A table of interactions and, if wanted, a table of items; each is a file, or files with the same columns."""

    def __init__(
        self,
        path: str | Sequence[str],
        user: str = "user_id",
        item: str | None = "item_id",
        timestamp: str | None = "timestamp",
        rating: str | None = None,
        time_unit: str = "auto",
        time_format: str | None = None,
        separator: str | None = None,
        encoding: str = "utf-8",
        quote: str | None = "auto",
        columns: Sequence[str] | None = None,
        pattern: str | None = None,
        history: str | None = None,
        history_separator: str = " ",
        items_path: str | Sequence[str] | None = None,
        items_id: str = "item_id",
        items_title: str | None = "title",
        items_text: Sequence[str] | None = None,
        items_format: Mapping[str, Any] | None = None,
    ) -> None:
        """Map the columns.

        Args:
            path: a .csv, .tsv, .parquet or .jsonl file, plain or (but for parquet) with .gz; a folder or zip archive
                of such files; an object, folder or pattern of a store (``s3://bucket/folder/*.parquet``); or a list.
            user: column of user ids; likewise ``item``.
            item: see ``user``. With ``history``, the item that came next, or null.
            timestamp: column of timestamps, or of positions with ``time_unit=position``; null with ``time_unit=row``.
            rating: column of ratings, or null.
            time_unit: s, ms, us, ns, iso, date, position, row, or auto (by the values' size; mixed units are refused).
            time_format: of other times, ``%d.%m.%Y %H:%M`` or ``%Y%m%d``, see :func:`deshi.tables.to_timestamps`.
            separator: of a text table, ``tab`` for the tab; null goes by the file's name.
            encoding: of a text table.
            quote: the sign around fields, null for none, auto for double quotes but in tables with tabs.
            columns: the columns in the file's order, if its first line is data; null: the first line has them.
            pattern: of the names of a folder's files to read, such as ``*.parquet``; null reads all.
            history: column of lists of item ids, where a row is a user's history; null: a row is one event.
            history_separator: between ids of a history that is a text.
            items_path: item table in one of the same formats, or null.
            items_id: its column of item ids.
            items_title: its column of titles, or null.
            items_text: its further columns to keep; null keeps all.
            items_format: its separator, encoding, quote and columns where they differ from those of the interactions.

        Raises:
            DeshiError: for settings that don't go together.
        """
        self.paths = _paths(path)
        between = str(TableFormat(history_separator).separator)
        self.columns = Columns(user, item, timestamp, rating, time_unit, time_format, history, between)
        self.form = TableFormat(separator, encoding, quote, None if columns is None else tuple(columns))
        self.pattern = pattern
        self.items_paths = [] if items_path is None else _paths(items_path)
        self.items_id, self.items_title = items_id, items_title
        self.items_text = None if items_text is None else tuple(items_text)
        self.items_form = _items_form(self.form, items_format or {})

    def load(self, cache: Path, bad_rows: BadRows | None = None) -> RawData:
        """Parse the files; nothing is fetched.

        Raises:
            DeshiError: see :class:`deshi.data.raw.Source`.
        """
        log = BadRowLog(bad_rows or BadRows())
        sources = [SourceFiles(path) for path in self.paths]
        read = partial(self._events, {name: new_codes() for name in self.columns.coded})
        interactions = interactions_of(read_parts(sources, self.pattern, read, log), self.columns, log)
        item_sources = [SourceFiles(path) for path in self.items_paths]
        items = None
        if item_sources:
            tables = read_parts(item_sources, None, self._items, log)
            items = item_table(tables, (self.items_id, self.items_title, self.items_text), log)
        unit = manifest_unit(self.columns.unit)
        return RawData(interactions, items, unit, merge_records([*sources, *item_sources]), log.report())

    def _events(self, codes: Mapping[str, pl.Categorical], path: Path, label: str, partition: Sequence[str]) -> Table:
        names = self.form.columns
        if names and names[-1] == self.columns.history and self.form.separator == self.columns.separator:
            return self._lines_of_items(path, label, names)
        used = self.columns.used
        file = open_table(path, self.form, label)
        if partition:
            used = [name for name in used if name in file.names or name not in partition]
        return file.read(used, self.columns.numeric, advice=ADVICE, codes=codes)

    def _lines_of_items(self, path: Path, label: str, names: Sequence[str]) -> Table:
        """Lines such as ``user item item item``, whose last column takes what is left of them."""
        table = read_table(path, None, TableFormat(_WHOLE_LINES, self.form.encoding, None, ("line",)), label)
        line = table.frame["line"].str.strip_chars()
        fields = line.str.splitn(str(self.form.separator), len(names)).struct.rename_fields(list(names)).struct.unnest()
        self.columns.check(fields.columns, label)
        return replace(table, frame=fields.select(self.columns.used), names=list(names))

    def _items(self, path: Path, label: str, partition: Sequence[str]) -> Table:
        single_line = [column for column in (self.items_id, self.items_title) if column is not None]
        return read_table(path, None, self.items_form, label, single_line=single_line)


def _paths(path: str | Sequence[str]) -> list[Path]:
    paths = [path] if isinstance(path, str) else list(path)
    if not paths:
        raise DeshiError("data.source.path is an empty list, expected at least one file.")
    return [Path(text).expanduser() for text in paths]


def _items_form(form: TableFormat, changes: Mapping[str, Any]) -> TableFormat:
    names = [field.name for field in fields(TableFormat)]
    for name in changes:
        if name not in names:
            raise DeshiError(f"data.source.items_format has no {name!r}. {suggestion(name, names, 'keys')}")
    return replace(form, **({"columns": None} | dict(changes)))

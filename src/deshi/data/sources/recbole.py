"""RecBole's atomic files: ``NAME.inter`` and, if there is one, ``NAME.item``, with ``field:type`` in the first line.

The format: https://recbole.io/docs/user_guide/data/atomic_files.html.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from deshi.data.raw import BadRowLog, BadRows, RawData
from deshi.data.sources._files import SourceFiles
from deshi.data.sources._item_tables import item_table
from deshi.data.sources.columns import ADVICE, Columns, interactions_of
from deshi.tables import FIELD_TYPES, Table, TableFormat, manifest_unit, open_table, read_table, untyped
from deshi.types import DeshiError

_TITLES = ("title", "movie_title", "name", "item_name")


class RecBole:
    """Interactions and items from a folder, zip archive or wheel with atomic files."""

    def __init__(
        self,
        path: str,
        name: str | Sequence[str] | None = None,
        user: str = "user_id",
        item: str | None = "item_id",
        timestamp: str | None = "timestamp",
        rating: str | None = "rating",
        time_unit: str = "s",
        time_format: str | None = None,
        title: str | None = None,
        separator: str = "tab",
        encoding: str = "utf-8",
        quote: str | None = "auto",
        history: str | None = None,
    ) -> None:
        """Say where the files are and which fields hold what.

        Args:
            path: folder, zip archive, or the ``.inter`` file itself.
            name: of the data set, needed if the folder holds several; or a list: ``[x.train, x.valid, x.test]``.
            user: field of the user id, without its type; likewise ``item``, ``timestamp`` and ``rating``.
            item: see ``user``.
            timestamp: null with ``time_unit=row`` takes the rows' order.
            rating: a field that isn't there is left out.
            time_unit: of the timestamps.
            time_format: of other times, ``%d.%m.%Y %H:%M`` or ``%Y%m%d``, see :func:`deshi.tables.to_timestamps`.
            title: field of the item's title; null takes the first of title, movie_title, name, item_name.
            separator: between fields; likewise ``encoding`` and ``quote``, as in
                :class:`deshi.data.sources.tabular.Tabular`.
            encoding: see ``separator``.
            quote: see ``separator``.
            history: field of the items before ``item``; null takes ``ITEM_list`` if its type is token_seq.
        """
        self.path = Path(path).expanduser()
        self.names = [None] if name is None else [name] if isinstance(name, str) else list(name)
        self.title = title
        self.form = TableFormat(separator, encoding, quote)
        rating = rating if history is None else None
        self.columns = Columns(user, item, timestamp, rating, time_unit, time_format, history)

    def load(self, cache: Path, bad_rows: BadRows | None = None) -> RawData:
        """Parse the files; nothing is fetched.

        Raises:
            DeshiError: see :class:`deshi.data.raw.Source`.
        """
        log = BadRowLog(bad_rows or BadRows())
        files = SourceFiles(self.path)
        tables, columns = [], self.columns
        for name in self.names:
            inter = self._find(files, name, ".inter")
            if inter is None:
                raise DeshiError(f"{self.path} holds no {name or 'NAME'}.inter file. Check data.source.path and name.")
            with files.local(inter) as path:
                table, columns = self._read(path, files.label(inter))
            tables.append(table)
        interactions = interactions_of(tables, columns, log)
        name = self.names[0]
        item = self._find(files, name, ".item") or self._find(files, name and name.rpartition(".")[0], ".item")
        items = None if item is None else self._items(files, item, log)
        return RawData(interactions, items, manifest_unit(columns.unit), files.records(), log.report())

    def _find(self, files: SourceFiles, name: str | None, suffix: str) -> str | None:
        if name is not None:
            return files.find(name + suffix)
        names = files.ending(suffix)
        if len(names) > 1:
            raise DeshiError(f"{self.path} holds several {suffix} files ({', '.join(names)}). Set data.source.name.")
        return names[0] if names else None

    def _items(self, files: SourceFiles, name: str, log: BadRowLog) -> pl.DataFrame:
        """The item table: the title, and every other field."""
        label = files.label(name)
        with files.local(name) as path:
            table = read_table(path, None, self.form, label)
        table = replace(table, frame=table.frame.rename(lambda field: field.rpartition(":")[0]))
        title = self.title or next((field for field in _TITLES if field in table.frame.columns), None)
        return item_table([table], (self.columns.item or "item_id", title, None), log)

    def _read(self, path: Path, label: str) -> tuple[Table, Columns]:
        """The fields that are read, under their names without types, and which of them holds what.

        Raises:
            DeshiError: if the first line isn't one of ``field:type``, or the item is a list.
        """
        file = open_table(path, self.form, label)
        header, fields = file.names, untyped(file.names)
        if any(field.rpartition(":")[2] not in FIELD_TYPES for field in header):
            signs = [sign for sign in ",;| \t" if len(header) == 1 and sign in header[0]]
            hint = f" Its fields seem to be separated by {signs[0]!r}: set data.source.separator." if signs else ""
            raise DeshiError(
                f"{label} begins with {header}, expected field:type with types {', '.join(FIELD_TYPES)}.{hint}"
            )
        columns = self._columns(fields, label)
        used, numeric = ([fields.get(name, name) for name in names] for names in (columns.used, columns.numeric))
        table = file.read(used, numeric, advice=ADVICE)
        names = {fields[name]: name for name in columns.used}
        return replace(table, frame=table.frame.rename(names), names=list(fields)), columns

    def _columns(self, fields: Mapping[str, str], label: str) -> Columns:
        """The columns, without a rating that the file lacks, and with the history that it has."""
        columns = self.columns
        item = str(columns.item)
        if fields.get(item, "").endswith(":token_seq"):
            raise DeshiError(
                f"{label}: {fields[item]} holds lists, expected one id a row. If a row is a user's history, set "
                f"data.source.history={item}, and data.source.item to the item that came next, or to null."
            )
        history = columns.history
        if history is None and fields.get(f"{item}_list", "").endswith(":token_seq"):
            history = f"{item}_list"
        rating = columns.rating if columns.rating in fields and history is None else None
        return replace(columns, rating=rating, history=history)

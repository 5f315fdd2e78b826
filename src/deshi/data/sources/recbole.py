"""RecBole's atomic files: ``NAME.inter`` and, if there is one, ``NAME.item``, with ``field:type`` in the first line.

The format: https://recbole.io/docs/user_guide/data/atomic_files.html.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from deshi.data.raw import BadRowLog, BadRows, RawData
from deshi.data.sources._files import SourceFiles
from deshi.data.sources._item_tables import item_table
from deshi.data.sources.columns import Columns, read_interactions
from deshi.tables import TableFormat, column_names, manifest_unit, read_table
from deshi.types import DeshiError

_FORM = TableFormat("\t")
_TYPES = ("token", "token_seq", "float", "float_seq")
_TITLES = ("title", "movie_title", "name", "item_name")


class RecBole:
    """Interactions and items from a folder, zip archive or wheel with atomic files."""

    def __init__(
        self,
        path: str,
        name: str | None = None,
        user: str = "user_id",
        item: str = "item_id",
        timestamp: str | None = "timestamp",
        rating: str | None = "rating",
        time_unit: str = "s",
        time_format: str | None = None,
        title: str | None = None,
    ) -> None:
        """Say where the files are and which fields hold what.

        Args:
            path: folder, zip archive, or the ``.inter`` file itself.
            name: of the data set, needed if the folder holds several.
            user: field of the user id, without its type; likewise ``item``, ``timestamp`` and ``rating``.
            item: see ``user``.
            timestamp: null with ``time_unit=row`` takes the rows' order.
            rating: a field that isn't there is left out.
            time_unit: of the timestamps.
            time_format: of other times, ``%d.%m.%Y %H:%M`` or ``%Y%m%d``, see :func:`deshi.tables.to_timestamps`.
            title: field of the item's title; null takes the first of title, movie_title, name, item_name.
        """
        self.path = Path(path).expanduser()
        self.name, self.title = name, title
        self.columns = Columns(user, item, timestamp, rating, time_unit, time_format)

    def load(self, cache: Path, bad_rows: BadRows | None = None) -> RawData:
        """Parse the files; nothing is fetched.

        Raises:
            DeshiError: see :class:`deshi.data.raw.Source`.
        """
        log = BadRowLog(bad_rows or BadRows())
        files = SourceFiles(self.path)
        inter = self._find(files, ".inter")
        if inter is None:
            raise DeshiError(f"{self.path} holds no {self.name or 'NAME'}.inter file. Check data.source.path and name.")
        with files.local(inter) as path:
            columns = _typed(self.columns, column_names(path, _FORM, files.label(inter)), files.label(inter))
            interactions = read_interactions(path, files.label(inter), _FORM, columns, log)
        item = self._find(files, ".item")
        items = None if item is None else self._items(files, item, log)
        return RawData(interactions, items, manifest_unit(columns.unit), files.records(), log.report())

    def _find(self, files: SourceFiles, suffix: str) -> str | None:
        if self.name is not None:
            return files.find(self.name + suffix)
        names = files.ending(suffix)
        if len(names) > 1:
            raise DeshiError(f"{self.path} holds several {suffix} files ({', '.join(names)}). Set data.source.name.")
        return names[0] if names else None

    def _items(self, files: SourceFiles, name: str, log: BadRowLog) -> pl.DataFrame:
        """The item table: the title, and every other field."""
        label = files.label(name)
        with files.local(name) as path:
            table = read_table(path, None, _FORM, label)
        table = replace(table, frame=table.frame.rename(lambda field: field.rpartition(":")[0]))
        title = self.title or next((field for field in _TITLES if field in table.frame.columns), None)
        return item_table(table, (self.columns.item, title, None), log)


def _typed(columns: Columns, header: list[str], label: str) -> Columns:
    """The columns under their names with types, as the file has them.

    Raises:
        DeshiError: if the first line isn't one of ``field:type``.
    """
    types = dict((field.rpartition(":")[0], field) for field in header)
    if any(field.rpartition(":")[2] not in _TYPES for field in header):
        raise DeshiError(f"{label} begins with {header}, expected field:type with types {', '.join(_TYPES)}.")
    rating = types.get(columns.rating) if columns.rating is not None else None
    time = None if columns.time is None else types.get(columns.time, columns.time)
    user, item = (types.get(name, name) for name in (columns.user, columns.item))
    return replace(columns, user=user, item=item, time=time, rating=rating)

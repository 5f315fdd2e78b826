"""RecBole's atomic files: ``NAME.inter`` and, if there is one, ``NAME.item``, with ``field:type`` in the first line.

The format: https://recbole.io/docs/user_guide/data/atomic_files.html.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from deshi.data.raw import BadRowLog, BadRows, RawData
from deshi.data.sources.columns import Columns, item_frame
from deshi.data.sources.delimited import Layout, iterate_rows, read_header, read_interactions
from deshi.data.sources.files import Shelf
from deshi.data.sources.times import manifest_unit
from deshi.types import DeshiError

_LAYOUT = Layout("\t")
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
            title: field of the item's title; null takes the first of title, movie_title, name, item_name.
        """
        self.path = Path(path).expanduser()
        self.name, self.title = name, title
        self.columns = Columns(user, item, timestamp, rating, time_unit)

    def load(self, cache: Path, bad_rows: BadRows | None = None) -> RawData:
        """Parse the files; nothing is fetched.

        Raises:
            DeshiError: see :class:`deshi.data.raw.Source`.
        """
        log = BadRowLog(bad_rows or BadRows())
        shelf = Shelf(self.path)
        inter = self._find(shelf, ".inter")
        if inter is None:
            raise DeshiError(f"{self.path} holds no {self.name or 'NAME'}.inter file. Check data.source.path and name.")
        with shelf.local(inter) as path:
            columns = _typed(self.columns, read_header(path, shelf.label(inter), _LAYOUT), shelf.label(inter))
            interactions = read_interactions(path, shelf.label(inter), _LAYOUT, columns, log)
        item = self._find(shelf, ".item")
        items = None if item is None else self._items(shelf, item, log)
        return RawData(interactions, items, manifest_unit(columns.unit), shelf.records(), log.report())

    def _find(self, shelf: Shelf, suffix: str) -> str | None:
        if self.name is not None:
            return shelf.find(self.name + suffix)
        found = shelf.ending(suffix)
        if len(found) > 1:
            raise DeshiError(f"{self.path} holds several {suffix} files ({', '.join(found)}). Set data.source.name.")
        return found[0] if found else None

    def _items(self, shelf: Shelf, name: str, log: BadRowLog) -> pl.DataFrame | None:
        """The item table: the title, and every other field that holds words."""
        with shelf.local(name) as path:
            header = read_header(path, shelf.label(name), _LAYOUT)
            fields = [field.rpartition(":")[0] for field in header]
            if self.columns.item not in fields:
                raise DeshiError(f"{shelf.label(name)} has no field {self.columns.item}; it has {', '.join(fields)}.")
            key = fields.index(self.columns.item)
            wanted = [self.title] if self.title is not None else list(_TITLES)
            title = next((fields.index(field) for field in wanted if field in fields), None)
            if self.title is not None and title is None:
                raise DeshiError(f"{shelf.label(name)} has no field {self.title}; it has {', '.join(fields)}.")
            others = [place for place in range(len(fields)) if place not in (key, title)]
            rows = self._item_rows(path, shelf.label(name), header, (key, title, others), log)
        return item_frame(rows, [fields[place] for place in others])

    def _item_rows(
        self, path: Path, label: str, header: list[str], places: tuple[int, int | None, list[int]], log: BadRowLog
    ) -> list[tuple[str | None, ...]]:
        key, title, others = places
        rows: dict[str, tuple[str | None, ...]] = {}
        for number, fields in iterate_rows(path, _LAYOUT):
            if number == 1:
                continue
            reason = None
            if len(fields) != len(header):
                reason = f"{len(fields)} columns, expected {len(header)}"
            elif not fields[key].strip():
                reason = "no item id"
            elif fields[key] in rows:
                reason = f"item id {fields[key]} was given before"
            if reason is not None:
                log.add(label, number, reason, "\t".join(fields))
                continue
            name = None if title is None else fields[title]
            rows[fields[key]] = (fields[key], name, *(fields[place] for place in others))
        return list(rows.values())


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
    return Columns(
        types.get(columns.user, columns.user), types.get(columns.item, columns.item), time, rating, columns.unit
    )

"""A data set made of data frames, which every stage takes where it takes a data set's name."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from deshi.artifacts import atomic_file
from deshi.configuration.targets import TARGET
from deshi.data.raw import BadRowLog, BadRows
from deshi.data.sources.columns import Columns, interactions_of
from deshi.tables import Table, to_polars
from deshi.types import DeshiError

SNAPSHOTS = ".frames"
"""The folder, beside the bundles, of the frames as parquet files."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Interactions and items as frames, with a name.

    Attributes:
        name: of the data set; its bundle is the folder of that name under ``paths.data``.
        events: the columns of the interactions that are read.
        items: the item table, or None.
        columns: which column of ``events`` holds what.
        title: the column of titles in ``items``, or None.
        filters: values of ``data.filters``.
        bad_rows: what is done with malformed rows.
    """

    name: str
    events: pl.DataFrame = field(repr=False)
    items: pl.DataFrame | None = field(repr=False)
    columns: Columns
    title: str | None
    filters: dict[str, Any]
    bad_rows: BadRows

    @classmethod
    def from_frames(
        cls,
        events: Any,
        items: Any = None,
        name: str = "frames",
        user: str = "user_id",
        item: str = "item_id",
        timestamp: str | None = "timestamp",
        rating: str | None = None,
        time_unit: str = "auto",
        time_format: str | None = None,
        title: str | None = "title",
        filters: Mapping[str, Any] | None = None,
        on_bad_rows: str = "error",
        max_bad_rows: int = 100,
    ) -> Dataset:
        """Take frames of pandas, Polars or pyarrow by the rules of :class:`deshi.data.sources.tabular.Tabular`.

        Args:
            events: a row for each interaction; a frame, or a dict of columns.
            items: a row for each item, with the column ``item``, perhaps titles and further texts; or None.
            name: of the data set.
            user: column of user ids.
            item: column of item ids, in both frames.
            timestamp: column of times, or of positions with ``time_unit="position"``; None takes the rows' order.
            rating: column of ratings, or None.
            time_unit: s, ms, us, ns, iso, date, position, or auto (by the values' type and size).
            time_format: of other times, such as ``%d.%m.%Y %H:%M`` or ``%Y%m%d``.
            title: column of titles in ``items``, or None.
            filters: values of ``data.filters``, such as ``{"min_rating": 4}``; ``min_history`` is 3 if it isn't given.
            on_bad_rows: ``error`` refuses a malformed row, ``skip`` counts it.
            max_bad_rows: with ``skip``, the largest number of malformed rows.

        Raises:
            DeshiError: for objects that aren't frames, missing columns, no rows, or malformed rows.
        """
        columns = Columns(user, item, timestamp, rating, "row" if timestamp is None else time_unit, time_format)
        bad_rows = BadRows(on_bad_rows, max_bad_rows)
        frame = _events(to_polars(events, "events"), columns, bad_rows)
        table = None if items is None else _items(to_polars(items, "items"), item, title)
        return cls(name, frame, table, columns, title, {"min_history": 3, **(filters or {})}, bad_rows)

    def data_config(self, folder: Path | str) -> dict[str, Any]:
        """The values of the group ``data`` with which any stage reads this data set, from Python or the command line.

        The frames are kept as parquet files whose names are made of their content: the same frames give the same
        values, and commands with them work again later.

        Args:
            folder: of the bundles, ``paths.data``.
        """
        columns = self.columns
        source = {
            TARGET: "deshi.data.sources.tabular.Tabular",
            "path": str(_snapshot(self.events, Path(folder), f"{self.name}-events")),
            "user": columns.user,
            "item": columns.item,
            "timestamp": columns.time,
            "rating": columns.rating,
            "time_unit": columns.unit,
            "time_format": columns.time_format,
        }
        if self.items is not None:
            path = str(_snapshot(self.items, Path(folder), f"{self.name}-items"))
            source |= {"items_path": path, "items_id": columns.item, "items_title": self.title}
        rules = {"on_bad_rows": self.bad_rows.on_bad_rows, "max_bad_rows": self.bad_rows.limit}
        return {"name": self.name, "source": source, "filters": self.filters, **rules}


def _events(frame: pl.DataFrame, columns: Columns, bad_rows: BadRows) -> pl.DataFrame:
    """The columns that are read, checked as the preparation will check them."""
    columns.check(frame.columns, "events", "Name yours with user=, item=, timestamp=, rating=.")
    if frame.is_empty():
        raise DeshiError("events has no rows, expected one for each interaction.")
    frame = frame.select(columns.used)
    table = Table("events", frame, range(1, frame.height + 1), frame.columns, unit="row")
    interactions_of([table], columns, BadRowLog(bad_rows))
    return frame


def _items(frame: pl.DataFrame, item: str, title: str | None) -> pl.DataFrame:
    if missing := [name for name in (item, title) if name is not None and name not in frame.columns]:
        raise DeshiError(
            f"items has no column {', '.join(missing)}; it has {', '.join(frame.columns)}. "
            "Name yours with item= and title=; title=None is none."
        )
    return frame


def _snapshot(frame: pl.DataFrame, folder: Path, name: str) -> Path:
    """The frame as a parquet file with the first digits of the content's sha256 in its name."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    content = buffer.getvalue()
    path = folder / SNAPSHOTS / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}.parquet"
    if not path.is_file():
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)
    return path

"""Histories that are to be continued: of a table of events or of lists, as flat arrays of item indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.arrays import Ints, offsets_of
from deshi.configuration.targets import suggestion
from deshi.tables import ids, to_polars
from deshi.types import ITEM, TIMESTAMP, USER, DeshiError, as_list

ITEMS = "items"
"""The column of lists of item ids, in a table with a row for each history."""

ORDERS = (TIMESTAMP, "position")
"""Columns that order events, if none is named."""


@dataclass(frozen=True, eq=False)
class Histories:
    """Histories of users. History ``h`` is ``items[offsets[h]:offsets[h + 1]]``, oldest first.

    Attributes:
        users: ``(H,)`` ids as texts, in the table's order (of each user's first row).
        items: ``(E,)`` int32 indices of the known items.
        offsets: ``(H + 1,)`` int64.
        events: number of events, unknown items included.
        unknown_items: distinct item ids that the vocabulary doesn't know.
    """

    users: pl.Series
    items: NDArray[np.int32]
    offsets: Ints
    events: int
    unknown_items: int

    def __len__(self) -> int:
        """Number of histories."""
        return len(self.users)

    def history(self, number: int) -> Ints:
        """The item indices of one history."""
        return self.items[self.offsets[number] : self.offsets[number + 1]].astype(np.int64)


@dataclass(frozen=True)
class HistoryColumns:
    """Which column of a table of histories holds what.

    Attributes:
        user: user ids. A user's events needn't stand together; every row with a list is a history.
        item: item ids, of events. Where it is empty, the user has no event in that row.
        items: lists of item ids, oldest first; in a text ``separator`` stands between them.
        order: what orders a user's events, numbers or ISO 8601 times; None looks for one of :data:`ORDERS` and else
            takes the rows' order. Equal ones keep the rows' order.
        separator: see ``items``.
    """

    user: str = USER
    item: str = ITEM
    items: str = ITEMS
    order: str | None = None
    separator: str = " "


def histories_of(histories: Any, item_ids: pl.Series) -> Histories:
    """Histories in memory: a frame with a row for each event, or with a row for each list, or a dict of lists.

    Args:
        histories: a frame of pandas, Polars or pyarrow, or a dict of columns, with those of :class:`HistoryColumns`;
            or a dict from user ids to lists, arrays or Series of item ids, oldest first.
        item_ids: of the vocabulary, in index order.

    Raises:
        DeshiError: for anything else, a missing column, or rows without a user or a time.
    """
    is_table = isinstance(histories, Mapping) and USER in histories and (ITEM in histories or ITEMS in histories)
    if isinstance(histories, Mapping) and not is_table:
        lists = [_texts(as_list(items)) for items in histories.values()]
        columns = {USER: _texts(list(histories)), ITEMS: lists}
        frame = pl.DataFrame(columns, schema={USER: pl.String, ITEMS: pl.List(pl.String)})
    else:
        frame = to_polars(histories, "histories")
        frame = frame.with_columns(ids(frame[name]) for name in (USER, ITEM) if name in frame.columns)
    return collect_histories(frame.lazy(), "histories", item_ids, HistoryColumns(), "Rename yours.")


def _texts(values: list[Any]) -> list[str | None]:
    """Ids of any type as texts, each by its own type, as in a column of ids."""
    if len({type(value) for value in values}) <= 1:
        return ids(pl.Series(values, strict=False)).to_list()
    return [None if value is None else ids(pl.Series([value]))[0] for value in values]


def collect_histories(
    table: pl.LazyFrame, label: str | Path, item_ids: pl.Series, columns: HistoryColumns, advice: str
) -> Histories:
    """The histories of a table: with a column ``columns.items`` a row is a history, otherwise an event.

    Args:
        table: of histories or events.
        label: what messages call it.
        item_ids: of the vocabulary, in index order.
        columns: which column holds what.
        advice: what to do about a missing column.

    Raises:
        DeshiError: for a missing column, or rows without a user or an order.
    """
    names = table.collect_schema().names()
    needed = [columns.user, *([columns.order] if columns.order else [])]
    if columns.items not in names:
        needed.append(columns.item)
    for name in needed:
        if name not in names:
            raise DeshiError(f"{label} has no column {name!r}. {suggestion(name, names, 'columns')} {advice}")
    if columns.items in names:
        lists = _lists(table, columns)
    else:
        order = columns.order or next((name for name in ORDERS if name in names), None)
        lists = _grouped(table, columns, None if order is None else _comparable(label, table, order))
    return _encode(label, lists, item_ids)


def _lists(table: pl.LazyFrame, columns: HistoryColumns) -> pl.DataFrame:
    """``user`` and ``items``, a list of texts, for each row of a table of lists."""
    items = pl.col(columns.items)
    if table.collect_schema()[columns.items] == pl.String:
        items = items.str.split(columns.separator).list.eval(pl.element().filter(pl.element() != ""))
    else:
        items = items.cast(pl.List(pl.String)).list.drop_nulls()
    users = pl.col(columns.user).cast(pl.String)
    return table.select(users.alias("user"), items.alias("items")).collect(engine="streaming")


def _grouped(table: pl.LazyFrame, columns: HistoryColumns, order: pl.Expr | None) -> pl.DataFrame:
    """``user`` and ``items`` of a table of events, users in the order of their first row."""
    row = pl.col("row")
    events = table.select(
        pl.col(columns.user).cast(pl.String).alias("user"),
        pl.col(columns.item).cast(pl.String).alias("item"),
        *([order.alias("order")] if order is not None else []),
    ).with_row_index("row")
    keys = [row] if order is None else [pl.col("order"), row]
    items = pl.col("item").sort_by(keys).drop_nulls().alias("items")
    grouped = events.group_by("user").agg(row.min(), items).sort("row")
    return grouped.select("user", "items").collect(engine="streaming")


def _comparable(label: str | Path, table: pl.LazyFrame, name: str) -> pl.Expr:
    """An expression that sorts as the column is meant: by number where all are numbers, else by text (ISO 8601)."""
    column = pl.col(name)
    if table.collect_schema()[name] != pl.String:
        whole = column
        counts = table.select(missing=column.is_null().sum(), words=pl.lit(0), fractions=pl.lit(0), rows=pl.len())
    else:
        number, whole = column.cast(pl.Float64, strict=False), column.cast(pl.Int64, strict=False)
        counts = table.select(
            missing=column.is_null().sum(), words=number.is_null().sum(), fractions=whole.is_null().sum(), rows=pl.len()
        )
    count = counts.collect(engine="streaming").row(0, named=True)
    if count["missing"]:
        raise DeshiError(f"{label}: {count['missing']} of {count['rows']} rows have no {name}, expected one in each.")
    if 0 < count["words"] < count["rows"]:
        raise DeshiError(
            f"{label}: {count['words']} of {count['rows']} values of {name} are no numbers and the others are; "
            "expected numbers alone, or ISO 8601 times alone."
        )
    if count["words"]:
        return column
    return column.cast(pl.Float64) if count["fractions"] else whole


def _encode(label: str | Path, histories: pl.DataFrame, item_ids: pl.Series) -> Histories:
    """Lists of item ids as indices; what the vocabulary doesn't know is left out and counted."""
    if without_id := histories["user"].null_count():
        raise DeshiError(f"{label}: {without_id} users have no id, expected one in every row.")
    lists = histories["items"].fill_null([])
    flat = lists.explode(empty_as_null=False)
    # An Enum finds an id's index in one look-up, and unknown ones become null.
    indices = flat.cast(pl.Enum(item_ids), strict=False).to_physical().cast(pl.Int32)
    in_vocabulary = indices.is_not_null()
    owners = np.repeat(np.arange(histories.height), lists.list.len().to_numpy())
    counts = np.bincount(owners[in_vocabulary.to_numpy()], minlength=histories.height)
    return Histories(
        users=histories["user"],
        items=indices.filter(in_vocabulary).to_numpy(),
        offsets=offsets_of(counts),
        events=len(flat),
        unknown_items=flat.filter(~in_vocabulary).n_unique(),
    )

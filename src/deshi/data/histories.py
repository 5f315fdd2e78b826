"""Histories that are to be continued: of a table of events or of lists, as flat arrays of item indices."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.arrays import Ints, offsets_of
from deshi.data.raw import BadRowLog, BadRowReport, BadRows
from deshi.tables import Table, id_lists, ids, require_columns, to_order, to_polars, untyped
from deshi.tables.id_lists import NO_LIST
from deshi.types import ITEM, TIMESTAMP, USER, DeshiError, as_list

log = logging.getLogger(__name__)

HISTORY_NAMES = ("items", "item_id_list", "history_item_id")
"""Columns of lists of item ids, if none is named: deshi's, RecBole's and MiniOneRec's."""

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
        unknown_examples: the first few of them.
        rows: of the table, malformed ones included.
        bad_rows: the malformed rows, which were left out.
    """

    users: pl.Series
    items: NDArray[np.int32]
    offsets: Ints
    events: int
    unknown_items: int
    unknown_examples: Sequence[str]
    rows: int
    bad_rows: BadRowReport

    def __len__(self) -> int:
        """Number of histories."""
        return len(self.users)

    def history(self, number: int) -> Ints:
        """The item indices of one history."""
        return self.items[self.offsets[number] : self.offsets[number + 1]].astype(np.int64)


@dataclass(frozen=True)
class HistoryColumns:
    """Which column of a table of histories holds what. RecBole's types of names (``user_id:token``) may be left out.

    Attributes:
        user: user ids. A user's events needn't stand together; every row with a list is a history.
        item: item ids, of events. Where it is empty, the user has no event in that row.
        history: lists of item ids, oldest first; None looks for one of :data:`HISTORY_NAMES`, and without one every row
            is an event.
        timestamp: times or positions of events; None looks for one of :data:`ORDERS` and else takes the rows' order.
            Equal ones keep the rows' order.
        time_format: of the times, see :func:`deshi.tables.to_order`.
        history_separator: see :func:`deshi.tables.id_lists`.
    """

    user: str = USER
    item: str = ITEM
    history: str | None = None
    timestamp: str | None = None
    time_format: str | None = None
    history_separator: str | None = None

    def among(self, names: Sequence[str]) -> HistoryColumns:
        """The columns by their names in a table with the columns ``names``; None is what isn't there or not needed."""
        typed = untyped(names)

        def actual(name: str) -> str:
            return name if name in names else typed.get(name, name)

        def first(choices: Sequence[str]) -> str | None:
            return next((actual(name) for name in choices if actual(name) in names), None)

        history = actual(self.history) if self.history else first(HISTORY_NAMES)
        timestamp = actual(self.timestamp) if self.timestamp else None if history else first(ORDERS)
        return replace(self, user=actual(self.user), item=actual(self.item), history=history, timestamp=timestamp)

    @property
    def used(self) -> list[str]:
        """The names of the columns that are read, each once."""
        named = [self.user, self.history or self.item, self.timestamp]
        return list(dict.fromkeys(name for name in named if name is not None))


def histories_of(histories: Any, item_ids: pl.Series) -> Histories:
    """Histories in memory: a frame with a row for each event, or with a row for each list, or a dict of lists.

    Args:
        histories: a frame of pandas, Polars or pyarrow, or a dict of columns, with those of :class:`HistoryColumns`;
            or a dict from user ids to lists, arrays or Series of item ids, oldest first.
        item_ids: of the vocabulary, in index order.

    Raises:
        DeshiError: for anything else, a missing column, rows without a user or a time, and items that are all unknown.
    """
    is_table = isinstance(histories, Mapping) and USER in histories and not {ITEM, *HISTORY_NAMES}.isdisjoint(histories)
    if isinstance(histories, Mapping) and not is_table:
        lists = [_texts(as_list(items)) for items in histories.values()]
        columns = {USER: _texts(list(histories)), HISTORY_NAMES[0]: lists}
        frame = pl.DataFrame(columns, schema={USER: pl.String, HISTORY_NAMES[0]: pl.List(pl.String)})
    else:
        frame = to_polars(histories, "histories")
    names = HistoryColumns().among(frame.columns)
    require_columns(frame.columns, names.used, "histories", "Rename yours.")
    table = Table("histories", frame, range(1, frame.height + 1), frame.columns, unit="row")
    collected = collect_histories(table, names, item_ids, BadRowLog(BadRows(), keys=None))
    if unknown := collected.events - len(collected.items):
        log.warning(
            "%s of %s events are left out: their items are unknown, such as %r",
            f"{unknown:,}", f"{collected.events:,}", collected.unknown_examples[0],
        )  # fmt: skip
    return collected


def _texts(values: Any) -> list[str | None]:
    """Ids of any type as texts, each by its own type, as in a column of ids."""
    if not isinstance(values, list):
        raise DeshiError(f"A history is {values!r}, expected a list of item ids, oldest first.")
    if len({type(value) for value in values}) <= 1:
        return ids(pl.Series(values, strict=False)).to_list()
    return [None if value is None else ids(pl.Series([value]))[0] for value in values]


def collect_histories(table: Table, columns: HistoryColumns, item_ids: pl.Series, bad_rows: BadRowLog) -> Histories:
    """The histories of a table: with ``columns.history`` a row is a history, otherwise an event.

    Args:
        table: of histories or events.
        columns: which column holds what, all of them in the table: see :meth:`HistoryColumns.among`.
        item_ids: of the vocabulary, in index order.
        bad_rows: takes the malformed rows.

    Raises:
        DeshiError: for times that can't be read, malformed rows that ``bad_rows`` refuses, and where the
            vocabulary knows none of the items.
    """
    try:
        return (_collect_events if columns.history is None else _collect_lists)(table, columns, item_ids, bad_rows)
    except DeshiError as error:
        if table.label in str(error):
            raise
        raise DeshiError(f"{table.label}: {error}") from error


def _collect_lists(table: Table, columns: HistoryColumns, item_ids: pl.Series, bad_rows: BadRowLog) -> Histories:
    users = ids(table.frame[columns.user])
    lists = id_lists(table.frame[str(columns.history)], columns.history_separator)
    good = _good_rows(table, [("no user id", users.is_null()), (NO_LIST, lists.malformed)], bad_rows)
    rows = np.repeat(np.arange(len(users)), lists.lengths)  # of each event
    kept = good.to_numpy()[rows]
    items, indices = _encode(table, lists.values.filter(pl.Series(kept)), item_ids)
    counts = np.bincount(rows[kept][indices.is_not_null().to_numpy()], minlength=len(users))
    return _histories(table, (users.filter(good), items, indices), counts[good.to_numpy()], bad_rows)


def _collect_events(table: Table, columns: HistoryColumns, item_ids: pl.Series, bad_rows: BadRowLog) -> Histories:
    events = pl.DataFrame({"user": ids(table.frame[columns.user]), "item": ids(table.frame[columns.item])})
    problems = [("no user id", events["user"].is_null())]
    keys = [pl.col("row")]
    if columns.timestamp is not None:
        order = to_order(table.frame[columns.timestamp], columns.time_format)
        events = events.with_columns(order.alias("order"))
        problems.append((f"no {columns.timestamp}", order.is_null() & events["item"].is_not_null()))
        keys.insert(0, pl.col("order"))
    events = events.filter(_good_rows(table, problems, bad_rows))
    items, indices = _encode(table, events["item"], item_ids)
    known = pl.col("item").sort_by(keys).drop_nulls().alias("items")
    grouped = events.with_columns(indices.alias("item")).lazy().with_row_index("row").group_by("user")
    lists = grouped.agg(pl.col("row").min(), known).sort("row").collect(engine="streaming")
    indices, counts = lists["items"].explode(empty_as_null=False), lists["items"].list.len().to_numpy()
    return _histories(table, (lists["user"], items, indices), counts, bad_rows)


def _good_rows(table: Table, problems: Sequence[tuple[str, pl.Series]], bad_rows: BadRowLog) -> pl.Series:
    """Which rows have no problem; all others, and the table's malformed lines, go to ``bad_rows`` in their order."""
    malformed = list(table.malformed)
    good = pl.repeat(True, table.frame.height, dtype=pl.Boolean, eager=True)
    for reason, is_bad in problems:
        for row in (good & is_bad).arg_true().to_list():
            malformed.append((table.lines[row], reason, ", ".join(str(value) for value in table.frame.row(row))))
        good &= ~is_bad
    for line, reason, content in sorted(malformed):
        bad_rows.add(table.label, line, reason, content)
    return good


def _encode(table: Table, items: pl.Series, item_ids: pl.Series) -> tuple[_Items, pl.Series]:
    """The counts of item ids, and each one's index; null for missing and unknown ones.

    Raises:
        DeshiError: where none of them is known.
    """
    # An Enum finds an id's index in one look-up, and unknown ones become null.
    indices = items.cast(pl.Enum(item_ids), strict=False).to_physical().cast(pl.Int32)
    unknown = items.filter(indices.is_null() & items.is_not_null()).unique(maintain_order=True)
    if len(unknown) and indices.null_count() == len(indices):
        raise DeshiError(
            f"{table.label}: none of the {len(unknown):,} items is known. They are {first_ids(unknown)}; the known ids "
            f"are {first_ids(item_ids)}. Check that the column of item ids and the data set are the right ones."
        )
    return _Items(items.count(), unknown), indices


@dataclass(frozen=True)
class _Items:
    """The number of events, and the distinct ids of unknown items."""

    events: int
    unknown: pl.Series


def _histories(
    table: Table, parts: tuple[pl.Series, _Items, pl.Series], counts: np.ndarray, bad_rows: BadRowLog
) -> Histories:
    """Histories from users, counts of all items and the items' indices; ``counts`` are each user's known items."""
    users, items, indices = parts
    return Histories(
        users=users,
        items=indices.drop_nulls().to_numpy(),
        offsets=offsets_of(counts),
        events=items.events,
        unknown_items=len(items.unknown),
        unknown_examples=items.unknown.head(3).to_list(),
        rows=table.frame.height + len(table.malformed),
        bad_rows=bad_rows.report(),
    )


def first_ids(texts: pl.Series) -> str:
    """The first few ids, quoted, for a message."""
    return ", ".join(repr(text) for text in texts.head(3)) + (", ..." if len(texts) > 3 else "")

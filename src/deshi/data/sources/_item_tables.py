"""Item tables of sources: an id, a title and further texts for each item; empty texts are null."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from deshi.data.raw import BadRowLog
from deshi.tables import Table, ids, require_columns, text_of
from deshi.types import ITEM, TITLE


def item_table(table: Table, columns: tuple[str, str | None, Sequence[str] | None], log: BadRowLog) -> pl.DataFrame:
    """``item_id``, ``title`` and further texts of a table; rows without an id, or with an earlier one, are malformed.

    Args:
        table: a row for each item, its columns texts or typed.
        columns: those of ids, of titles (None: there are none), and further ones to keep (None: all).
        log: of malformed rows.

    Raises:
        DeshiError: for a missing column, or a malformed row that ``log`` refuses.
    """
    item, title, further = columns
    frame = table.frame
    if further is None:
        further = [name for name in frame.columns if name not in (item, title)]
    needed = [item, *([title] if title is not None else []), *further]
    require_columns(frame.columns, needed, table.label, "Set items_id, items_title (null: none) or items_text.")
    titles = pl.lit(None, pl.String) if title is None else _texts(frame[title])
    texts = [titles.alias(TITLE), *(_texts(frame[name]) for name in further)]
    items = frame.select(ids(frame[item]).alias(ITEM)).with_columns(texts)
    malformed = list(table.malformed)
    repeated = ~items[ITEM].is_first_distinct() & items[ITEM].is_not_null()
    for row in (items[ITEM].is_null() | repeated).arg_true().to_list():
        reason = f"item id {items[ITEM][row]} was given before" if repeated[row] else "no item id"
        malformed.append((table.lines[row], reason, ", ".join(str(value) for value in items.row(row))))
    for line, reason, content in sorted(malformed):
        log.add(table.label, line, reason, content)
    return _without_empty_texts(items.filter(items[ITEM].is_not_null() & ~repeated))


def first_items(rows: Sequence[tuple[str | None, ...]], names: Sequence[str]) -> pl.DataFrame:
    """The same from rows of ``item_id``, ``title`` and the texts ``names``, silently the first row of every id."""
    schema = {name: pl.String() for name in (ITEM, TITLE, *names)}
    items = pl.DataFrame(rows, schema=schema, orient="row").filter(pl.col(ITEM) != "")
    return _without_empty_texts(items.unique(subset=[ITEM], keep="first", maintain_order=True))


def _texts(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.List | pl.Struct | pl.Array):
        return pl.Series(column.name, [text_of(value) for value in column.to_list()], dtype=pl.String)
    return column.cast(pl.String)


def _without_empty_texts(items: pl.DataFrame) -> pl.DataFrame:
    texts = [pl.col(name).str.strip_chars() for name in items.columns[1:]]
    return items.with_columns(pl.when(text != "").then(text) for text in texts)

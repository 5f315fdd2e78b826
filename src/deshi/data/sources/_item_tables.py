"""Item tables of sources: an id, a title and further texts for each item; empty texts are null."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from deshi.data.raw import BadRowLog
from deshi.data.sources.columns import ids
from deshi.data.sources.records import text_of
from deshi.types import ITEM, TITLE, DeshiError


def item_table(
    table: pl.DataFrame,
    lines: Sequence[int],
    columns: tuple[str, str | None, Sequence[str] | None],
    label: str,
    log: BadRowLog,
) -> pl.DataFrame:
    """``item_id``, ``title`` and further texts of a table; rows without an id, or with an earlier one, are malformed.

    Args:
        table: a row for each item, its columns texts or typed.
        lines: the line or row number of each row.
        columns: those of ids, of titles (None: there are none), and further ones to keep (None: all).
        label: what messages call the table.
        log: of malformed rows.

    Raises:
        DeshiError: for a missing column, or a malformed row that ``log`` refuses.
    """
    item, title, further = columns
    if further is None:
        further = [name for name in table.columns if name not in (item, title)]
    needed = [item, *([title] if title is not None else []), *further]
    if missing := [name for name in needed if name not in table.columns]:
        raise DeshiError(f"{label} has no column {', '.join(missing)}; it has {', '.join(table.columns)}.")
    titles = pl.lit(None, pl.String) if title is None else _texts(table[title])
    texts = [titles.alias(TITLE), *(_texts(table[name]) for name in further)]
    items = table.select(ids(table[item]).alias(ITEM)).with_columns(texts)
    blank = items[ITEM].is_null() | (items[ITEM].str.strip_chars() == "")
    repeated = ~items[ITEM].is_first_distinct() & ~blank
    for row in (blank | repeated).arg_true().to_list():
        reason = "no item id" if blank[row] else f"item id {items[ITEM][row]} was given before"
        log.add(label, lines[row], reason, ", ".join(str(value) for value in items.row(row)))
    return _without_empty_texts(items.filter(~(blank | repeated)))


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

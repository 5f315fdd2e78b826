"""Item tables of sources: an id, a title and further texts for each item; empty texts are null."""

from __future__ import annotations

import html
from collections.abc import Sequence

import polars as pl

from deshi.data.raw import BadRowLog
from deshi.data.sources._rows import SourceRows
from deshi.tables import Table, ids, require_columns, text_of
from deshi.types import ITEM, TITLE, DeshiError


def item_table(
    tables: Sequence[Table], columns: tuple[str, str | None, Sequence[str] | None], log: BadRowLog
) -> pl.DataFrame:
    """``item_id``, ``title`` and further texts of tables; rows without an id, or with an earlier one, are malformed.

    Args:
        tables: a row for each item, their columns texts or typed.
        columns: those of ids, of titles (None: there are none), and further ones to keep (None: all).
        log: of malformed rows.

    Raises:
        DeshiError: for a missing column, or a malformed row that ``log`` refuses.
    """
    item, title, further = columns
    rows = SourceRows.of(tables, [item])
    frame = rows.frame
    if further is None:
        further = [name for name in frame.columns if name not in (item, title)]
        if binary := [name for name in further if frame[name].dtype in (pl.Binary, pl.Object)]:
            log.note(f"{tables[0].label}: {', '.join(binary)} left out, since the column holds no texts.")
            further = [name for name in further if name not in binary]
    needed = [item, *([title] if title is not None else []), *further]
    require_columns(frame.columns, needed, tables[0].label, "Set items_id, items_title (null: none) or items_text.")
    titles = pl.lit(None, pl.String) if title is None else _texts(frame[title])
    texts = [titles.alias(TITLE), *(_texts(frame[name]) for name in further)]
    items = frame.select(ids(frame[item]).alias(ITEM)).with_columns(texts)
    repeated = ~items[ITEM].is_first_distinct() & items[ITEM].is_not_null()
    problems = []
    for row in (items[ITEM].is_null() | repeated).arg_true().to_list():
        reason = f"item id {items[ITEM][row]} was given before" if repeated[row] else "no item id"
        problems.append((row, reason, ", ".join(str(value) for value in items.row(row))))
    rows.log(problems, log)
    return _tidy(items.filter(items[ITEM].is_not_null() & ~repeated), tables[0].label, log)


def first_items(
    rows: Sequence[tuple[str | None, ...]], names: Sequence[str], label: str, log: BadRowLog
) -> pl.DataFrame:
    """The same from rows of ``item_id``, ``title`` and the texts ``names``, silently the first row of every id."""
    schema = {name: pl.String() for name in (ITEM, TITLE, *names)}
    items = pl.DataFrame(rows, schema=schema, orient="row").filter(pl.col(ITEM) != "")
    return _tidy(items.unique(subset=[ITEM], keep="first", maintain_order=True), label, log)


def _texts(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.List | pl.Struct | pl.Array):
        return pl.Series(column.name, [text_of(value) for value in column.to_list()], dtype=pl.String)
    if column.dtype in (pl.Binary, pl.Object):
        raise DeshiError(f"The column {column.name!r} holds {column.dtype}, expected texts. Cast it, or leave it out.")
    return column.cast(pl.String)


def _tidy(items: pl.DataFrame, label: str, log: BadRowLog) -> pl.DataFrame:
    """Texts without blanks around them, HTML entities as the signs that they stand for, empty ones null."""
    entities = r"&(#\d+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);"
    names = items.columns[1:]
    escaped = {name: items[name].str.contains(entities).fill_null(False) for name in names}
    for name, rows in escaped.items():
        if rows.any():
            texts = [html.unescape(text) for text in items[name].filter(rows)]
            items = items.with_columns(items[name].scatter(rows.arg_true(), texts))
    if n_items := int(pl.DataFrame(escaped).select(pl.any_horizontal(pl.all())).to_series().sum()) if names else 0:
        log.note(f"{label}: HTML entities such as &amp; were decoded in the texts of {n_items:,} items.")
    stripped = [pl.col(name).str.strip_chars() for name in names]
    return items.with_columns(pl.when(text != "").then(text) for text in stripped)

"""How many items of the events have a row in the item table, and why none may."""

from __future__ import annotations

import polars as pl

from deshi.types import ITEM, DeshiError

_SPELLINGS = {
    "the fraction .0": pl.element().str.replace(r"\.0+$", ""),
    "leading zeros": pl.element().str.replace(r"^0+(.)", "${1}"),
    "upper and lower case": pl.element().str.to_lowercase(),
    "quotes and blanks around ids": pl.element().str.strip_chars("\"' \t\u00a0\u3000\ufeff"),
    "the fraction .0, leading zeros, case, quotes and blanks": pl.element()
    .str.strip_chars("\"' \t\u00a0\u3000\ufeff").str.replace(r"\.0+$", "").str.replace(r"^0+(.)", "${1}")
    .str.to_lowercase(),
}  # fmt: skip
"""Ways in which two programs write the same id."""


def count_item_rows(item_ids: pl.Series, items: pl.DataFrame) -> dict[str, int]:
    """``with_row``: items that have a row in the item table; ``rows_without_events``: rows of no item.

    Raises:
        DeshiError: if no item has a row, with the first ids of both sides.
    """
    n_items = int(item_ids.is_in(items[ITEM].implode()).sum())
    if n_items == 0:
        raise DeshiError(
            f"None of the {item_ids.len():,} items has a row in the item table. Items of the events: {_first(item_ids)}; "
            f"of the item table ({items.height:,} rows): {_first(items[ITEM])}.{_hint(item_ids, items[ITEM])} Check "
            f"the item columns of both in data.source, or read without the item table."
        )
    return {"with_row": n_items, "rows_without_events": items.height - n_items}


def _first(ids: pl.Series) -> str:
    return ", ".join(map(repr, sorted(ids.head(10_000).to_list())[:3])) or "none"


def _hint(item_ids: pl.Series, row_ids: pl.Series) -> str:
    """Which difference in spelling keeps the two sides apart."""
    for name, spelling in _SPELLINGS.items():
        sides = [ids.to_frame("id").select(pl.col("id").implode().list.eval(spelling).explode()) for ids in (item_ids, row_ids)]
        n_matches = sides[0].to_series().is_in(sides[1].to_series().implode()).sum()
        if n_matches:
            return f" {n_matches:,} items match without {name}: write the ids alike."
    return ""

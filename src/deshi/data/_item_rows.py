"""How many items of the events have a row in the item table, and why none may."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from deshi.types import ITEM, DeshiError

_QUOTES = "\"' \t\u00a0\u3000\ufeff"
_SPELLINGS: dict[str, Callable[[pl.Series], pl.Series]] = {
    "the fraction .0": lambda ids: ids.str.replace(r"\.0+$", ""),
    "leading zeros": lambda ids: ids.str.replace(r"^0+(.)", "${1}"),
    "their case": lambda ids: ids.str.to_lowercase(),
    "blanks and quotes around them": lambda ids: ids.str.strip_chars(_QUOTES),
    "the fraction .0, leading zeros, case, blanks and quotes": lambda ids: (
        ids.str.strip_chars(_QUOTES).str.replace(r"\.0+$", "").str.replace(r"^0+(.)", "${1}").str.to_lowercase()
    ),
}
"""Ways in which two programs write the same id."""


def count_item_rows(item_ids: pl.Series, items: pl.DataFrame) -> dict[str, int]:
    """``with_row``: items that have a row in the item table; ``rows_without_events``: rows of no item.

    Raises:
        DeshiError: if no item has a row, with the first ids of both sides.
    """
    n_items = int(item_ids.is_in(items[ITEM].implode()).sum())
    if n_items == 0:
        raise DeshiError(
            f"None of the {item_ids.len():,} items has a row in the item table. Items of the events: "
            f"{_first(item_ids)}; of the item table ({items.height:,} rows): {_first(items[ITEM])}."
            f"{_hint(item_ids, items[ITEM])} Check the item columns of both in data.source, or read no item table."
        )
    return {"with_row": n_items, "rows_without_events": items.height - n_items}


def _first(ids: pl.Series) -> str:
    return ", ".join(map(repr, sorted(ids.head(10_000).to_list())[:3])) or "none"


def _hint(item_ids: pl.Series, row_ids: pl.Series) -> str:
    """Which difference in spelling keeps the two sides apart."""
    for name, spelling in _SPELLINGS.items():
        if n_matches := int(spelling(item_ids).is_in(spelling(row_ids).implode()).sum()):
            return f" {n_matches:,} items match when {name} is ignored: write the ids alike in both."
    return ""

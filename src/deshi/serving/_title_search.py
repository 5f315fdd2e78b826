"""Search of items by their titles."""

from __future__ import annotations

import unicodedata

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.serving.bundle import COUNT
from deshi.types import ITEM, TITLE


class TitleIndex:
    """The titles of a bundle, made comparable once.

    Args:
        items: ``index``, ``item_id``, ``title`` and ``count`` in index order.
    """

    def __init__(self, items: pl.DataFrame) -> None:
        titles = [plain(title or "") for title in items[TITLE].to_list()]
        self._table = items.select("index", ITEM, COUNT, pl.Series(TITLE, titles, dtype=pl.String))

    def find(self, text: str, limit: int) -> NDArray[np.int64]:
        """Indices of at most ``limit`` items: see :meth:`deshi.serving.engine.Engine.search_items`."""
        query, title = plain(text), pl.col(TITLE)
        words = [title.str.contains(word, literal=True) for word in query.split()]
        inside = pl.all_horizontal(words) if words else pl.lit(False)  # an id may be all signs, and no word
        word_begins = (pl.lit(" ") + title).str.contains(f" {query}", literal=True)
        order = (
            pl.when(pl.col(ITEM) == text.strip()).then(0).when(title == query).then(1)
            .when(title.str.starts_with(query)).then(2).when(word_begins).then(3).otherwise(4)
        )  # fmt: skip
        matches = self._table.filter(inside | (pl.col(ITEM) == text.strip()))
        return matches.sort(order, -pl.col(COUNT), "index").head(limit)["index"].to_numpy().astype(np.int64)


def plain(text: str) -> str:
    """Lower case, no accents, words of letters and digits with one space between them."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    words = "".join(letter if letter.isalnum() else " " for letter in letters if not unicodedata.combining(letter))
    return " ".join(words.split())

"""Steam reviews (version 2): 7.8 million reviews of 32 thousand games, with a date each and no rating.

W.-C. Kang and J. McAuley, Self-attentive sequential recommendation, https://arxiv.org/abs/1808.09781. Users are told
apart by name, as in that paper. Reviews of one day keep the file's order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from deshi.data.raw import BadRowLog, BadRows, RawData
from deshi.data.sources._files import SourceFiles, merge_records
from deshi.data.sources._item_tables import first_items
from deshi.data.sources.columns import Columns, read_interactions
from deshi.data.sources.fetch import Address, fetch
from deshi.tables import TableFormat, id_text, iterate_records, text_of

TEXTS = ("category", "tags", "brand")
_COLUMNS = Columns("username", "product_id", "date", None, "date")
_ADDRESSES = (
    "https://cseweb.ucsd.edu/~wckang/",
    "https://mcauleylab.ucsd.edu/public_datasets/data/steam/",
)


class Steam:
    """Reviews as interactions; games with title, genres as ``category``, tags, and developer as ``brand``."""

    def __init__(self, path: str | None = None, metadata: bool = True) -> None:
        """Choose a local folder or zip archive with the original files, and whether to read the games."""
        self.path = None if path is None else Path(path).expanduser()
        self.metadata = metadata
        self.columns = _COLUMNS

    def load(self, cache: Path, bad_rows: BadRows | None = None) -> RawData:
        """Fetch what is missing and parse it; the reviews are Python literals, which takes minutes.

        Raises:
            DeshiError: see :class:`deshi.data.raw.Source`.
        """
        log = BadRowLog(bad_rows or BadRows())
        files = self._files("steam_reviews.json.gz", cache)
        sources = [files]
        name = files.need("steam_reviews.json.gz", "steam_reviews.json", "steam_new.json.gz", "steam_new.json")
        with files.local(name) as path:
            interactions = read_interactions(path, files.label(name), TableFormat(), self.columns, log)
        items = None
        if self.metadata:
            sources.append(self._files("steam_games.json.gz", cache))
            items = _items(sources[-1], log)
        return RawData(interactions, items, "ms", merge_records(sources), log.report())

    def _files(self, name: str, cache: Path) -> SourceFiles:
        if self.path is not None:
            return SourceFiles(self.path)
        fetched = fetch("Steam", [Address(address + name, f"steam/{name}") for address in _ADDRESSES], cache)
        return SourceFiles(fetched.path, fetched.record)


def _items(files: SourceFiles, log: BadRowLog) -> pl.DataFrame:
    name = files.need("steam_games.json.gz", "steam_games.json")
    with files.local(name) as path:
        return first_items(list(_item_rows(path, files.label(name), log)), TEXTS, files.label(name), log)


def _item_rows(path: Path, label: str, log: BadRowLog) -> Iterator[tuple[str, ...]]:
    """Games without an id are no items: the original file has two such lines."""
    for _, record in iterate_records(path, label):
        if isinstance(record, tuple):
            log.add(label, *record)
        elif item := id_text(record.get("id")):
            title = record.get("title") or record.get("app_name")
            genres, tags = (", ".join(map(str, record.get(name) or ())) for name in ("genres", "tags"))
            yield item, text_of(title), genres, tags, text_of(record.get("developer"))

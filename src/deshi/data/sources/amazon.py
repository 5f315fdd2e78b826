"""Amazon Reviews 2014, 2018 and 2023 by category, from the original files.

2014: J. McAuley et al., https://doi.org/10.1145/2766462.2767755. 2018: J. Ni et al.,
https://doi.org/10.18653/v1/D19-1018. 2023: Y. Hou et al., https://arxiv.org/abs/2403.03952.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from deshi.data.raw import BadRowLog, BadRows, RawData
from deshi.data.sources._files import SourceFiles, merge_records
from deshi.data.sources._item_tables import first_items
from deshi.data.sources.columns import Columns, read_interactions
from deshi.data.sources.fetch import Address, Location, fetch
from deshi.tables import TableFormat, id_text, iterate_records, text_of
from deshi.types import DeshiError

TEXTS = ("category", "brand", "description")
_LAB = "https://mcauleylab.ucsd.edu/public_datasets/data/"
_SNAP = "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
_OLD_JSON = Columns("reviewerID", "asin", "unixReviewTime", "overall", "s")
_NEW_JSON = Columns("user_id", "parent_asin", "timestamp", "rating", "ms")
_RATINGS = Columns("user_id", "item_id", "timestamp", "rating", "s")
_USER_FIRST = TableFormat(",", columns=("user_id", "item_id", "rating", "timestamp"))
_ITEM_FIRST = TableFormat(",", columns=("item_id", "user_id", "rating", "timestamp"))


@dataclass(frozen=True)
class _File:
    """A file of a release: its address by category, its columns, and how it is written if it is a csv file."""

    addresses: tuple[str, ...]
    columns: Columns
    form: TableFormat | None = None


@dataclass(frozen=True)
class _Release:
    variants: dict[str, _File]
    metadata: tuple[str, ...]


RELEASES = {
    2014: _Release(
        {
            "5core": _File((_SNAP + "reviews_{}_5.json.gz",), _OLD_JSON),
            "reviews": _File((_SNAP + "reviews_{}.json.gz",), _OLD_JSON),
            "ratings": _File((_SNAP + "ratings_{}.csv",), _RATINGS, _USER_FIRST),
        },
        (_SNAP + "meta_{}.json.gz", _LAB + "amazon/categoryFiles/meta_{}.json.gz"),
    ),
    2018: _Release(
        {
            "5core": _File(
                (
                    _LAB + "amazon_v2/categoryFilesSmall/{}_5.json.gz",
                    "https://jmcauley.ucsd.edu/data/amazon_v2/categoryFilesSmall/{}_5.json.gz",
                ),
                _OLD_JSON,
            ),
            "reviews": _File((_LAB + "amazon_v2/categoryFiles/{}.json.gz",), _OLD_JSON),
            "ratings": _File((_LAB + "amazon_v2/categoryFilesSmall/{}.csv",), _RATINGS, _ITEM_FIRST),
        },
        (_LAB + "amazon_v2/metaFiles2/meta_{}.json.gz",),
    ),
    2023: _Release(
        {
            "5core": _File((_LAB + "amazon_2023/benchmark/5core/rating_only/{}.csv.gz",), _NEW_JSON, TableFormat(",")),
            "0core": _File((_LAB + "amazon_2023/benchmark/0core/rating_only/{}.csv.gz",), _NEW_JSON, TableFormat(",")),
            "reviews": _File((_LAB + "amazon_2023/raw/review_categories/{}.jsonl.gz",), _NEW_JSON),
        },
        (_LAB + "amazon_2023/raw/meta_categories/meta_{}.jsonl.gz",),
    ),
}


class Amazon:
    """Product reviews with a timestamp of one day (2014, 2018) or one millisecond (2023).

    Inside one day the order of the older files says nothing about the order of the purchases.
    Items are ``asin`` (2014, 2018) or ``parent_asin`` (2023), with title, category path, brand and description.
    """

    def __init__(
        self, year: int, category: str, variant: str = "5core", metadata: bool = True, path: str | None = None
    ) -> None:
        """Choose the release, the category as its file is named, and the file.

        Args:
            year: 2014, 2018 or 2023.
            category: for example ``Beauty`` (2014) or ``All_Beauty`` (2018, 2023).
            variant: ``5core``; ``reviews`` (all, with text); ``ratings`` (2014, 2018) or ``0core`` (2023): all, as csv.
            metadata: whether to read the items' metadata; without it there is no item table.
            path: a local folder or zip archive with the original files, or the reviews file alone.

        Raises:
            DeshiError: for a release or variant that doesn't exist.
        """
        if year not in RELEASES:
            raise DeshiError(f"Amazon year is {year}, expected one of {', '.join(map(str, RELEASES))}.")
        variants = RELEASES[year].variants
        if variant not in variants:
            raise DeshiError(f"Amazon {year} has no variant {variant!r}, expected one of {', '.join(variants)}.")
        self.year, self.category, self.variant, self.metadata = year, category, variant, metadata
        self.columns = variants[variant].columns
        self.path = None if path is None else Path(path).expanduser()

    def load(self, cache: Path, bad_rows: BadRows | None = None) -> RawData:
        """Fetch what is missing and parse it.

        Raises:
            DeshiError: see :class:`deshi.data.raw.Source`.
        """
        log = BadRowLog(bad_rows or BadRows())
        file = RELEASES[self.year].variants[self.variant]
        reviews = self._files(file.addresses, cache)
        interactions = self._interactions(reviews, file, log)
        sources = [reviews]
        items = None
        if self.metadata and not (self.path is not None and self.path.is_file() and not reviews.is_archive):
            sources.append(self._files(RELEASES[self.year].metadata, cache))
            items = self._items(sources[-1], log)
        return RawData(interactions, items, "ms", merge_records(sources), log.report())

    def _files(self, addresses: tuple[str, ...], cache: Path) -> SourceFiles:
        if self.path is not None:
            return SourceFiles(self.path)
        folder = f"amazon-{self.year}/{self.variant if addresses != RELEASES[self.year].metadata else 'metadata'}"
        locations: list[Location] = [
            Address(url, f"{folder}/{url.rsplit('/', 1)[1]}")
            for url in (address.format(self.category) for address in addresses)
        ]
        fetched = fetch(f"Amazon {self.year} {self.category}", locations, cache)
        return SourceFiles(fetched.path, fetched.record)

    def _names(self, addresses: tuple[str, ...]) -> list[str]:
        """The file's names, packed and unpacked."""
        name = addresses[0].format(self.category).rsplit("/", 1)[1]
        return [name, name.removesuffix(".gz")]

    def _interactions(self, files: SourceFiles, file: _File, log: BadRowLog) -> pl.DataFrame:
        alone = self.path is not None and self.path.is_file() and not files.is_archive
        name = files.path.name if alone else files.need(*self._names(file.addresses))
        with files.local(name) as path:
            return read_interactions(path, files.label(name), file.form or TableFormat(), self.columns, log)

    def _items(self, files: SourceFiles, log: BadRowLog) -> pl.DataFrame:
        name = files.need(*self._names(RELEASES[self.year].metadata))
        with files.local(name) as path:
            rows = list(_item_rows(path, files.label(name), log))
        return first_items(rows, TEXTS, files.label(name), log)


def _item_rows(path: Path, label: str, log: BadRowLog) -> Iterator[tuple[str, ...]]:
    for number, record in iterate_records(path, label):
        if isinstance(record, tuple):
            log.add(label, *record)
        elif not (item := id_text(record.get("parent_asin") or record.get("asin"))):
            log.add(label, number, "no item id", str(record))
        else:
            brand = record.get("brand") or record.get("store")
            texts = (record.get("title"), _category(record), brand, record.get("description"))
            yield item, *(text_of(text) for text in texts)


def _category(record: dict[str, Any]) -> str:
    """The category path: 2014 has a list of paths (the first is taken), 2018 and 2023 one path."""
    path = record.get("categories") or record.get("category") or []
    if path and isinstance(path[0], list):
        path = path[0]
    if isinstance(path, str):
        return path
    return " > ".join(text_of(step) for step in path) or text_of(record.get("main_category"))

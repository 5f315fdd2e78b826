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
from deshi.data.sources.columns import Columns, read_interactions
from deshi.data.sources.fetch import Address, Location, Package, fetch
from deshi.tables import Table, TableFormat, read_table
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
_U_ITEM = ("item_id", "title", "date", "video_date", "link", *_GENRES)
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


def _ratings(files: SourceFiles, name: str, form: TableFormat, columns: Columns, log: BadRowLog) -> pl.DataFrame:
    with files.local(name) as path:
        return read_interactions(path, files.label(name), form, columns, log)


def _items(files: SourceFiles, name: str, form: TableFormat, log: BadRowLog) -> pl.DataFrame:
    """Item id, title and genres of an item file, whatever the version."""
    label = files.label(name)
    with files.local(name) as path:
        table = read_table(path, None, form, label)
    rows, lines, malformed = [], [], []
    for line, row in zip(table.lines, table.frame.rows(), strict=True):
        rows.append(_parse_item([field or "" for field in row], str(form.separator)))
        lines.append(line)
    for line, reason, content in table.malformed:
        fields = content.split("::")
        if form.separator == "::" and len(fields) > 3:  # a title may hold the separator
            rows.append((fields[0], "::".join(fields[1:-1]), _genres(fields[-1])))
            lines.append(line)
        else:
            malformed.append((line, reason, content))
    items = pl.DataFrame(rows, schema={name: pl.String for name in (ITEM, TITLE, "category")}, orient="row")
    return item_table([Table(label, items, lines, items.columns, malformed)], (ITEM, TITLE, None), log)


def _read_u(files: SourceFiles, encoding: str, log: BadRowLog) -> Tables:
    """100K: ``u.data`` with tabs, ``u.item`` with bars and one column of 0 or 1 a genre."""
    interactions = _ratings(files, files.need("u.data"), TableFormat("\t", columns=_NAMES), _COLUMNS, log)
    items_file = files.find("u.item")
    return interactions, None if items_file is None else _items(
        files, items_file, TableFormat("|", encoding, None, _U_ITEM), log
    )


def _read_dat(files: SourceFiles, encoding: str, log: BadRowLog) -> Tables:
    """1M and 10M: ``ratings.dat`` and ``movies.dat`` with double colons."""
    interactions = _ratings(files, files.need("ratings.dat"), TableFormat("::", columns=_NAMES), _COLUMNS, log)
    items_file = files.find("movies.dat")
    return interactions, None if items_file is None else _items(
        files, items_file, TableFormat("::", encoding, None, ("item_id", "title", "genres")), log
    )


def _read_csv(files: SourceFiles, encoding: str, log: BadRowLog) -> Tables:
    """20M and later: ``ratings.csv`` and ``movies.csv``, titles in quotes."""
    interactions = _ratings(files, files.need("ratings.csv"), TableFormat(","), _CSV, log)
    items_file = files.find("movies.csv")
    return interactions, None if items_file is None else _items(files, items_file, TableFormat(",", encoding), log)


def _read_atomic(files: SourceFiles, log: BadRowLog) -> Tables:
    """100K as RecBole's wheel ships it: its ``.inter`` is ``u.data`` byte for byte below a header line."""
    interactions = _ratings(files, files.need("ml-100k.inter", "u.data"), TableFormat("\t"), _ATOMIC, log)
    items_file = files.find("ml-100k.item")
    return interactions, None if items_file is None else _items(files, items_file, TableFormat("\t"), log)


def _parse_item(fields: list[str], separator: str) -> tuple[str, str, str]:
    """The item of a row."""
    if separator == "|":
        genres = [genre for genre, flag in zip(_GENRES, fields[5:], strict=True) if flag == "1"]
        return fields[0], fields[1], ", ".join(genres)
    if separator == "\t":
        return fields[0], _title_with_year(fields[1], fields[2]), ", ".join(fields[3].split())
    return fields[0], fields[1], _genres(fields[2])


def _genres(text: str) -> str:
    return ", ".join([] if text == "(no genres listed)" else text.split("|"))


def _title_with_year(title: str, year: str) -> str:
    """Undo RecBole's split of 100K's titles: ``Toy Story`` and ``1995`` were ``Toy Story (1995)``."""
    return "unknown" if title == "unkonwn" else f"{title} ({year})"

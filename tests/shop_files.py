"""One clean history of a shop in the file formats of every source."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

DAY = 86_400
FIRST_DAY = 16_000
Row = tuple[str, str, int]
"""User, item, seconds since 1970."""


def events(repeats: bool, whole_days: bool) -> list[Row]:
    """80 users who walk through 30 items over one year, in the order of time.

    Args:
        repeats: a user comes back to an item now and then, on another day.
        whole_days: times have the resolution of a day.
    """
    random = np.random.default_rng(11)
    rows: list[Row] = []
    for user in range(80):
        item, day = int(random.integers(30)), FIRST_DAY + int(random.integers(250))
        seen: list[int] = []
        for _ in range(9 + user % 5):
            if repeats and len(seen) > 3 and random.random() < 0.15:
                item = seen[-3]
            elif not repeats:
                while item in seen:
                    item = (item + 1) % 30
            seconds = 0 if whole_days else int(random.integers(DAY))
            rows.append((f"{user + 1}", f"{item + 1}", day * DAY + seconds))
            seen.append(item)
            item = (item + 1) % 30 if random.random() < 0.8 else int(random.integers(30))
            day += int(random.integers(1, 12))
    return sorted(rows, key=lambda row: row[2])


def movielens(folder: Path) -> list[str]:
    """MovieLens 100K: tab-separated, seconds."""
    rows = events(repeats=False, whole_days=False)
    (folder / "u.data").write_text("".join(f"{u}\t{i}\t4\t{t}\n" for u, i, t in rows))
    flags = "|0" * 18
    films = "".join(f"{i}|Film {i} (1990)|01-Jan-1990||http://example.org|1{flags}\n" for i in range(1, 31))
    (folder / "u.item").write_text(films, "latin-1")
    return ["data=ml-100k", f"data.source.path={folder}"]


def amazon(folder: Path) -> list[str]:
    """Amazon Reviews 2014: JSON lines, whole days."""
    rows = events(repeats=True, whole_days=True)
    lines = [
        json.dumps({"reviewerID": f"A{u}", "asin": f"B{i}", "overall": 5.0, "unixReviewTime": t}) for u, i, t in rows
    ]
    items = [f"{{'asin': 'B{i}', 'title': 'Cream {i}'}}" for i in range(1, 31)]
    for name, content in (("reviews_Beauty_5.json.gz", lines), ("meta_Beauty.json.gz", items)):
        (folder / name).write_bytes(gzip.compress(("\n".join(content) + "\n").encode()))
    return ["data=amazon-2014", "data.source.category=Beauty", f"data.source.path={folder}"]


def steam(folder: Path) -> list[str]:
    """Steam: Python literals, dates."""
    lines = [
        f"{{u'username': u'p{u}', u'product_id': u'{i}', u'date': u'{_date(t)}', u'text': u''}}"
        for u, i, t in events(repeats=True, whole_days=True)
    ]
    games = [f"{{u'id': u'{i}', u'title': u'Game {i}'}}" for i in range(1, 31)]
    for name, content in (("steam_reviews.json.gz", lines), ("steam_games.json.gz", games)):
        (folder / name).write_bytes(gzip.compress(("\n".join(content) + "\n").encode()))
    return ["data=steam", f"data.source.path={folder}"]


def recbole(folder: Path) -> list[str]:
    """RecBole: atomic files with typed headers."""
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    rows = "".join(f"{u}\t{i}\t4\t{t}\n" for u, i, t in events(repeats=True, whole_days=False))
    (folder / "shop.inter").write_text(header + rows)
    return ["data=recbole", f"data.source.path={folder}", "data.name=recbole"]


def positions(folder: Path) -> list[str]:
    """A table of one's own with places in the history instead of times."""
    counts: dict[str, int] = {}
    lines = ["who,what,place"]
    for user, item, _ in events(repeats=True, whole_days=False):
        counts[user] = counts.get(user, 0) + 1
        lines.append(f"{user},{item},{counts[user]}")
    (folder / "events.csv").write_text("\n".join(lines) + "\n")
    columns = ["user=who", "item=what", "timestamp=place", "time_unit=position"]
    return ["data=tabular", f"data.source.path={folder / 'events.csv'}", *(f"data.source.{text}" for text in columns)]


def table(folder: Path) -> list[str]:
    """A table of one's own with ISO times."""
    lines = ["user_id,item_id,timestamp"]
    lines += [f"{u},{i},{datetime.fromtimestamp(t, timezone.utc):%Y-%m-%dT%H:%M:%S}" for u, i, t in events(True, False)]
    (folder / "events.csv").write_text("\n".join(lines) + "\n")
    return ["data=tabular", f"data.source.path={folder / 'events.csv'}", "data.name=table"]


def sql(folder: Path) -> list[str]:
    """SQLite."""
    with sqlite3.connect(folder / "shop.db") as base:
        base.execute("CREATE TABLE events (user_id TEXT, item_id TEXT, timestamp INTEGER)")
        base.executemany("INSERT INTO events VALUES (?, ?, ?)", events(repeats=True, whole_days=False))
    base.close()
    query = "SELECT user_id, item_id, timestamp FROM events ORDER BY timestamp"
    return ["data=sql", f"data.source.query='{query}'", f"data.source.dsn=sqlite:///{folder / 'shop.db'}"]


def _date(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d}"


@dataclass(frozen=True)
class Format:
    """A source and how to write the shop for it.

    Attributes:
        write: writes files into a folder and returns the arguments of ``deshi prepare``.
        timed: whether the bundle has times, so that a split by time is possible.
    """

    write: Callable[[Path], list[str]]
    timed: bool = True


SOURCES = {
    "movielens": Format(movielens),
    "amazon": Format(amazon),
    "steam": Format(steam),
    "recbole": Format(recbole),
    "positions": Format(positions, timed=False),
    "table": Format(table),
    "sql": Format(sql),
}

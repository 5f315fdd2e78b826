"""Steam: Python literals, dates, no ratings."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from deshi.data.sources.steam import Steam
from deshi.tables._records import parse_record
from deshi.testing.sources import DAY, SourceContract

ROWS = [("Chaos Syren", "725280", 17_517 * DAY, None), ("nan", "328100", 17_518 * DAY, None)]
LINES = [
    "{u'username': u'Chaos Syren', u'hours': 0.1, u'product_id': u'725280', u'date': u'2017-12-17', "
    "u'text': u\"it's {u'date': u'1999-01-01'}\", u'early_access': False, u'compensation': None}",
    "{u'username': u'\\u672a\\'s', u'product_id': u'328100', u'date': u'2017-12-18', u'text': u'', u'page': 1}",
]


class TestSteam(SourceContract):
    expected = [ROWS[0], ("\u672a's", *ROWS[1][1:])]
    titles = {"725280": "Real Farm", "328100": "Old Name"}
    broken = ("{u'username': u'a', u'product_id': u'1', u'date': u'soon'}", 3, "soon")
    file = "steam_reviews.json.gz"

    def write(self, folder: Path, broken: str | None = None) -> None:
        body = "\n".join([*LINES, *([broken] if broken else [])]) + "\n"
        (folder / self.file).write_bytes(gzip.compress(body.encode()))
        games = (
            "{u'id': u'725280', u'title': u'Real Farm', u'genres': [u'Casual', u'Indie'], u'tags': [u'Farm'], "
            "u'developer': u'D'}\n{u'app_name': u'Old Name', u'id': u'328100'}\n{u'url': u'no id'}\n"
        )
        (folder / "steam_games.json.gz").write_bytes(gzip.compress(games.encode()))

    def source(self, path: Path) -> Steam:
        return Steam(str(path))

    def test_texts(self, tmp_path: Path) -> None:
        """Genres, tags and developer come along."""
        self.write(tmp_path)
        items = self.load(tmp_path).items
        assert items is not None and items.row(0) == ("725280", "Real Farm", "Casual, Indie", "Farm", "D")

    def test_no_rating_column(self, tmp_path: Path) -> None:
        """Steam has no ratings, which is not the same as null ratings."""
        self.write(tmp_path)
        assert "rating" not in self.load(tmp_path).interactions.columns


@pytest.mark.parametrize(
    "line", [*LINES, "{'a': 1, 'b': -2.5e3, 'c': None, 'd': ''}", "{}", "{'a': 1,}", "{u'a': [1]}"]
)
def test_fast_literals_equal_pythons(line: str) -> None:
    """The quick reader of flat dictionaries must never differ from Python's own."""
    assert parse_record(line, flat=True) == parse_record(line)


@pytest.mark.parametrize("line", ["{'a': 1", "{'a': x}", "{'a': 1}}", "{'a': 1} {'b': 2}", "{'a': 'b', 1}"])
def test_broken_literals_are_no_records(line: str) -> None:
    """What Python refuses is returned as text."""
    assert parse_record(line, flat=True) == line

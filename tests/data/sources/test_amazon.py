"""Amazon Reviews in the formats of its three releases."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from deshi.data.raw import BadRows
from deshi.data.sources.amazon import RELEASES, Amazon
from deshi.testing.sources import DAY, SourceContract
from deshi.types import DeshiError

ROWS = [("A2", "B01", 16_000 * DAY, 5.0), ("A1", "B02", 15_000 * DAY, 4.0), ("A2", "B02", 16_000 * DAY, 1.0)]


def packed(path: Path, lines: list[str]) -> None:
    """Write ``lines`` gzipped."""
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))


def old_review(user: str, item: str, time: int, rating: float | None) -> str:
    """A review as 2014 and 2018 write it."""
    return json.dumps(
        {"reviewerID": user, "asin": item, "reviewText": "it's {fine}", "overall": rating,
         "unixReviewTime": time // 1000, "style": {"Size:": " 1"}}
    )  # fmt: skip


class Test2014(SourceContract):
    expected, file = ROWS, "reviews_Beauty_5.json.gz"
    titles = {"B01": "Lipstick, it's red", "B02": None}
    broken = ('{"reviewerID": "A1", "asin": ', 4, "A1")

    def write(self, folder: Path, broken: str | None = None) -> None:
        packed(folder / self.file, [old_review(*row) for row in ROWS] + ([broken] if broken else []))
        metadata = [
            "{'asin': 'B01', 'title': \"Lipstick, it's red\", 'categories': [['Beauty', 'Lips'], ['X']], 'brand': 'Q'}",
            "{'asin': 'B02', 'imUrl': 'http://x', 'categories': [['Beauty']], 'description': 'two\\nlines'}",
            "{'asin': 'B01', 'title': 'again'}",
        ]
        packed(folder / "meta_Beauty.json.gz", metadata)

    def source(self, path: Path) -> Amazon:
        return Amazon(2014, "Beauty", "5core", True, str(path))

    def test_texts(self, tmp_path: Path) -> None:
        """The first category path, the brand and the description come along as text."""
        self.write(tmp_path)
        items = self.load(tmp_path).items
        assert items is not None
        assert items.rows() == [
            ("B01", "Lipstick, it's red", "Beauty > Lips", "Q", None),
            ("B02", None, "Beauty", None, "two lines"),
        ]

    @pytest.mark.parametrize(
        "line",
        ['{"reviewerID": "A1", "asin": "B01", "overall": 5.0}', '{"asin": "B01", "overall": 5.0, "unixReviewTime": 9}',
         '{"reviewerID": "A1", "asin": "", "overall": 5.0, "unixReviewTime": 9}', "[1, 2]", "null",
         '{"reviewerID": "A1", "asin": "B1", "overall": "much", "unixReviewTime": 9}',
         "{'reviewerID': __import__('os').getcwd(), 'asin': 'B1', 'unixReviewTime': 9}"],
    )  # fmt: skip
    def test_kinds_of_malformed_rows(self, tmp_path: Path, line: str) -> None:
        """Missing fields, values of the wrong type, lines that are no record; code is never run."""
        self.write(tmp_path, line)
        assert self.load(tmp_path, BadRows("skip", 1)).bad_rows.skipped == 1

    def test_literals_are_read_as_json_is(self, tmp_path: Path) -> None:
        """Full review files of 2014 are Python literals in some categories."""
        self.write(tmp_path)
        literal = [repr(json.loads(old_review(*row))) for row in ROWS]
        packed(tmp_path / self.file, literal)
        assert self.load(tmp_path).interactions.rows() == ROWS

    def test_damaged_metadata_is_named(self, tmp_path: Path) -> None:
        """A cut-off archive is an error of that file."""
        self.write(tmp_path)
        whole = (tmp_path / "meta_Beauty.json.gz").read_bytes()
        (tmp_path / "meta_Beauty.json.gz").write_bytes(whole[:-20])
        with pytest.raises(DeshiError, match="meta_Beauty.json.gz is damaged or truncated"):
            self.load(tmp_path)

    def test_without_metadata(self, tmp_path: Path) -> None:
        """Metadata is many times larger than the ratings, so one may do without."""
        self.write(tmp_path)
        assert Amazon(2014, "Beauty", "5core", False, str(tmp_path)).load(tmp_path).items is None
        assert self.load(tmp_path / self.file).items is None


class Test2014Ratings(Test2014):
    file, broken = "ratings_Beauty.csv", ("A1,B01,5.0", 4, "A1,B01,5.0")
    test_kinds_of_malformed_rows = test_literals_are_read_as_json_is = test_without_metadata = None  # type: ignore

    def write(self, folder: Path, broken: str | None = None) -> None:
        super().write(folder)
        rows = [f"{u},{i},{r},{t // 1000}" for u, i, t, r in ROWS] + ([broken] if broken else [])
        (folder / self.file).write_text("\n".join(rows) + "\n")

    def source(self, path: Path) -> Amazon:
        return Amazon(2014, "Beauty", "ratings", True, str(path))


class Test2018Ratings(SourceContract):
    """The columns' order differs from 2014: the item comes first."""

    expected, file, titles = ROWS, "All_Beauty.csv", {"B01": "Soap", "B02": "Salt"}
    broken = ("B01,A1,nan,5", 4, "nan")

    def write(self, folder: Path, broken: str | None = None) -> None:
        rows = [f"{i},{u},{r},{t // 1000}" for u, i, t, r in ROWS] + ([broken] if broken else [])
        (folder / self.file).write_text("\n".join(rows) + "\n")
        metadata = [{"asin": "B01", "title": "Soap", "category": ["Beauty", "Bath"], "description": ["a", "b"]},
                    {"asin": "B02", "title": "Salt", "category": [], "main_cat": "x"}]  # fmt: skip
        packed(folder / "meta_All_Beauty.json.gz", [json.dumps(record) for record in metadata])

    def source(self, path: Path) -> Amazon:
        return Amazon(2018, "All_Beauty", "ratings", True, str(path))


METADATA_2023 = [
    {"parent_asin": "B01", "title": "Soap", "main_category": "All Beauty", "categories": [], "store": "Q",
     "description": ["Good.", "Clean."], "details": {"a": 1}},
    {"parent_asin": "B02", "title": "Salt", "main_category": None, "categories": ["Beauty", "Bath"]},
]  # fmt: skip


class Test2023(SourceContract):
    expected, file = ROWS, "All_Beauty.csv.gz"
    titles = {"B01": "Soap", "B02": "Salt"}
    broken = ("A1,B01,5.0,soon", 5, "soon")

    def write(self, folder: Path, broken: str | None = None) -> None:
        rows = ["user_id,parent_asin,rating,timestamp"] + [f"{u},{i},{r},{t}" for u, i, t, r in ROWS]
        packed(folder / self.file, rows + ([broken] if broken else []))
        packed(folder / "meta_All_Beauty.jsonl.gz", [json.dumps(record) for record in METADATA_2023])

    def source(self, path: Path) -> Amazon:
        return Amazon(2023, "All_Beauty", "5core", True, str(path))

    def test_texts(self, tmp_path: Path) -> None:
        """The main category stands in for a missing path, the store for the brand."""
        self.write(tmp_path)
        items = self.load(tmp_path).items
        assert items is not None and items.rows() == [
            ("B01", "Soap", "All Beauty", "Q", "Good. Clean."),
            ("B02", "Salt", "Beauty > Bath", None, None),
        ]


class Test2023Reviews(Test2023):
    file = "All_Beauty.jsonl.gz"
    broken = ('{"user_id": "A1", "parent_asin": "B01", "rating": 5.0, "timestamp": -1}', 4, "A1")

    def write(self, folder: Path, broken: str | None = None) -> None:
        packed(folder / "meta_All_Beauty.jsonl.gz", [json.dumps(record) for record in METADATA_2023])
        records = [
            {"rating": r, "title": "t", "text": "x", "images": [], "asin": "B99", "parent_asin": i, "user_id": u,
             "timestamp": t, "helpful_vote": 0, "verified_purchase": True}
            for u, i, t, r in ROWS
        ]  # fmt: skip
        packed(folder / self.file, [json.dumps(record) for record in records] + ([broken] if broken else []))

    def source(self, path: Path) -> Amazon:
        return Amazon(2023, "All_Beauty", "reviews", True, str(path))


def test_unknown_release_and_variant() -> None:
    """A typo lists what there is."""
    with pytest.raises(DeshiError, match="expected one of 2014, 2018, 2023"):
        Amazon(2019, "Beauty")
    with pytest.raises(DeshiError, match="expected one of 5core, reviews, ratings"):
        Amazon(2018, "All_Beauty", "0core")


def test_no_network_says_which_file_goes_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Amazon has no second mirror, so the error must be enough to act on."""

    def refuse(*arguments: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("deshi.data.sources.fetch._download_address", refuse)
    for year, variant in [(year, variant) for year, release in RELEASES.items() for variant in release.variants]:
        with pytest.raises(DeshiError) as error:
            Amazon(year, "Books", variant).load(tmp_path)
        assert "no route to host" in str(error.value) and "Books" in str(error.value)
        assert str(tmp_path / f"amazon-{year}" / variant) in str(error.value)

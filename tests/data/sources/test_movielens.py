"""MovieLens in its four formats, and its two mirrors."""

from __future__ import annotations

from pathlib import Path

import pytest

from deshi.data.raw import BadRows
from deshi.data.sources.movielens import RELEASES, MovieLens
from deshi.testing.sources import SourceContract
from deshi.types import DeshiError

SECOND = 1000
ROWS = [
    ("196", "242", 881250949 * SECOND, 3.0),
    ("186", "302", 891717742 * SECOND, 3.0),
    ("22", "242", 5 * SECOND, 1.0),
]
FLAGS = "|0" * 18
U_ITEM = (
    f"242|Kolya (1996)|24-Jan-1997||http://a|0{FLAGS[:-2]}|1\n"
    f"302|Les Mis\xe9rables (1995) |01-Jan-1997||http://b|0|1{FLAGS[:-2]}\n"
    f"9|unknown||||1{FLAGS}\n"
)
ATOMIC_ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "242\tKolya\t1996\tWestern\n302\tLes Mis\xe9rables\t1995\tAction\n9\tunkonwn\tunkonwn\tunknown\n"
)
TITLES = {"242": "Kolya (1996)", "302": "Les Mis\xe9rables (1995)", "9": "unknown"}


def plain(number: float) -> str:
    """A rating as the files write it."""
    return f"{number:g}"


class Test100K(SourceContract):
    expected, titles, file = ROWS, TITLES, "u.data"
    broken = ("1\t2\t3", 4, "1\\t2\\t3")

    def write(self, folder: Path, broken: str | None = None) -> None:
        lines = [f"{u}\t{i}\t{plain(r)}\t{t // SECOND}" for u, i, t, r in ROWS]
        (folder / "ml-100k").mkdir()
        (folder / "ml-100k" / "u.data").write_text("\n".join([*lines, *([broken] if broken else [])]) + "\n")
        (folder / "ml-100k" / "u.item").write_bytes(U_ITEM.encode("latin-1"))

    def source(self, path: Path) -> MovieLens:
        return MovieLens("100k", str(path))

    def test_both_mirrors_give_the_same(self, tmp_path: Path) -> None:
        """Which place served must not change the data: the wheel's split titles are put together again."""
        (tmp_path / "official").mkdir()
        self.write(tmp_path / "official")
        official = self.load(tmp_path / "official")
        folder = tmp_path / "wheel" / "recbole" / "dataset_example" / "ml-100k"
        folder.mkdir(parents=True)
        body = (tmp_path / "official" / "ml-100k" / "u.data").read_text()
        header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        (folder / "ml-100k.inter").write_text(header + body)
        (folder / "ml-100k.item").write_text(ATOMIC_ITEM, encoding="utf-8")
        wheel = self.load(tmp_path / "wheel")
        assert wheel.interactions.rows() == official.interactions.rows()
        assert wheel.items is not None and official.items is not None and wheel.items.equals(official.items)

    @pytest.mark.parametrize(
        "line",
        ["\t242\t3\t88", "nan\t242\t3\t88", "1\t\t3\t88", "1\t2\tinf\t88", "1\t2\tx\t88",
         "1\t2\t3\t-5", "1\t2\t3\tnoon", "1\t2\t3\t", "1\t2\t3\t4\t5", "1\t2\t3\t881250949000000"],
    )  # fmt: skip
    def test_kinds_of_malformed_rows(self, tmp_path: Path, line: str) -> None:
        """Empty and NaN ids, ratings and times that are no numbers, negative and absurd times, wrong column counts."""
        self.write(tmp_path, line)
        assert self.load(tmp_path, BadRows("skip", 1)).bad_rows.skipped == 1

    def test_malformed_item_row_is_named(self, tmp_path: Path) -> None:
        """Item files are held to the same rule as ratings."""
        self.write(tmp_path)
        with (tmp_path / "ml-100k" / "u.item").open("a") as handle:
            handle.write("7|Seven\n")
        with pytest.raises(DeshiError, match=r"u\.item, line 4: 2 columns, expected 24"):
            self.load(tmp_path)

    def test_repeated_item_is_named(self, tmp_path: Path) -> None:
        """An id twice is a damaged file."""
        self.write(tmp_path)
        (tmp_path / "ml-100k" / "u.item").write_bytes((U_ITEM + U_ITEM.splitlines()[0] + "\n").encode("latin-1"))
        with pytest.raises(DeshiError, match="line 4: item id 242 was given before"):
            self.load(tmp_path)

    def test_blank_lines_are_no_rows(self, tmp_path: Path) -> None:
        """A blank last line is common and harmless."""
        self.write(tmp_path)
        with (tmp_path / "ml-100k" / "u.data").open("a") as handle:
            handle.write("\n")
        assert self.load(tmp_path).interactions.height == 3


class Test1M(SourceContract):
    expected, file = ROWS, "ratings.dat"
    titles = {"242": "Mis\xe9rables, Les (1995)", "302": "Mission:: Impossible (1996)"}
    broken = ("1::2::3", 4, "1::2::3")
    version, encoding = "1m", "latin-1"

    def write(self, folder: Path, broken: str | None = None) -> None:
        lines = [f"{u}::{i}::{plain(r)}::{t // SECOND}" for u, i, t, r in ROWS]
        (folder / "ratings.dat").write_text("\n".join([*lines, *([broken] if broken else [])]) + "\n")
        movies = "242::Mis\xe9rables, Les (1995)::Drama|War\n302::Mission:: Impossible (1996)::Action\n"
        (folder / "movies.dat").write_bytes(movies.encode(self.encoding))

    def source(self, path: Path) -> MovieLens:
        return MovieLens(self.version, str(path))

    def test_genres(self, tmp_path: Path) -> None:
        """Genres become a readable text column."""
        self.write(tmp_path)
        items = self.load(tmp_path).items
        assert items is not None and items["category"].to_list() == ["Drama, War", "Action"]


class Test10M(Test1M):
    version, encoding = "10m", "utf-8"


class Test25M(SourceContract):
    expected, file = ROWS, "ratings.csv"
    titles = {"242": 'American President, The "x" (1995)', "302": "Jumanji (1995)"}
    broken = ("1,2,3", 5, "1,2,3")

    def write(self, folder: Path, broken: str | None = None) -> None:
        lines = ["userId,movieId,rating,timestamp"] + [f"{u},{i},{r},{t // SECOND}" for u, i, t, r in ROWS]
        (folder / "ratings.csv").write_text("\r\n".join([*lines, *([broken] if broken else [])]) + "\r\n")
        movies = (
            'movieId,title,genres\n242,"American President, The ""x"" (1995)",Comedy|Drama\n'
            "302,Jumanji (1995),(no genres listed)\n"
        )
        (folder / "movies.csv").write_text(movies, encoding="utf-8")

    def source(self, path: Path) -> MovieLens:
        return MovieLens("25m", str(path))

    def test_no_genres_is_null(self, tmp_path: Path) -> None:
        """A placeholder is not a genre."""
        self.write(tmp_path)
        items = self.load(tmp_path).items
        assert items is not None and items["category"].to_list() == ["Comedy, Drama", None]

    def test_missing_column_is_named(self, tmp_path: Path) -> None:
        """A csv file of something else is told by its columns."""
        self.write(tmp_path)
        (tmp_path / "ratings.csv").write_text("user,movie\n1,2\n")
        with pytest.raises(DeshiError, match="no column userId, movieId, timestamp, rating; it has user, movie"):
            self.load(tmp_path)


def test_unknown_version() -> None:
    """A typo lists what there is."""
    with pytest.raises(DeshiError, match="expected one of 100k, 1m"):
        MovieLens("100K")


@pytest.mark.parametrize("version", RELEASES)
def test_every_version_names_its_places(version: str) -> None:
    """The official address comes first; only 100K has a second place."""
    locations = MovieLens(version).locations()
    assert locations[0].origin.startswith("https://files.grouplens.org/datasets/movielens/ml-")
    assert len(locations) == (2 if version == "100k" else 1)


@pytest.mark.slow
def test_100k_is_fetched_from_a_mirror(tmp_path: Path) -> None:
    """The real file by the real mirrors: the counts that GroupLens states."""
    try:
        raw = MovieLens("100k").load(cache=tmp_path, bad_rows=BadRows())
    except DeshiError as error:
        pytest.skip(f"no mirror of MovieLens 100K can be reached: {error}")
    assert raw.interactions.height == 100_000
    assert raw.interactions["user_id"].n_unique() == 943
    assert raw.interactions["item_id"].n_unique() == 1_682
    assert raw.interactions.row(0) == ("196", "242", 881250949000, 3.0)
    assert raw.items is not None and raw.items.height == 1_682
    assert raw.items.filter(raw.items["item_id"] == "1")["title"].item() == "Toy Story (1995)"
    assert MovieLens("100k").load(cache=tmp_path).interactions.rows() == raw.interactions.rows()

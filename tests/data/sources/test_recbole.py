"""RecBole's atomic files."""

from __future__ import annotations

from pathlib import Path

import pytest

from deshi.data.sources.recbole import RecBole
from deshi.testing.sources import SourceContract
from deshi.types import DeshiError

ROWS = [("u1", "i1", 1_000_500, 2.0), ("u2", "i1", 3_000_000, None), ("u1", "i2", 1_000_500, 4.5)]


class TestRecBole(SourceContract):
    expected, file, titles = ROWS, "tiny.inter", {"i1": "One", "i2": None}
    broken = ("u1\ti1\t3", 5, "u1\\ti1\\t3")

    def write(self, folder: Path, broken: str | None = None) -> None:
        rows = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
        rows += [f"{u}\t{i}\t{'' if r is None else r}\t{t / 1000}" for u, i, t, r in ROWS]
        (folder / self.file).write_text("\n".join([*rows, *([broken] if broken else [])]) + "\n")
        (folder / "tiny.item").write_text("item_id:token\tprice:float\ttitle:token_seq\ni1\t3\tOne\ni2\t\t\n")

    def source(self, path: Path) -> RecBole:
        return RecBole(str(path))

    def test_file_alone(self, tmp_path: Path) -> None:
        """Items are optional."""
        self.write(tmp_path)
        raw = self.load(tmp_path / self.file)
        assert raw.items is None and raw.interactions.rows() == ROWS

    def test_several_need_a_name(self, tmp_path: Path) -> None:
        """Which one is meant can't be guessed."""
        self.write(tmp_path)
        (tmp_path / "other.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\na\tb\t1\n")
        with pytest.raises(DeshiError, match="Set data.source.name"):
            self.load(tmp_path)
        assert RecBole(str(tmp_path), name="other").load(tmp_path).interactions.rows() == [("a", "b", 1000)]

    def test_header_without_types(self, tmp_path: Path) -> None:
        """A file without types is a plain table."""
        (tmp_path / "a.inter").write_text("user_id\titem_id\n1\t2\n")
        with pytest.raises(DeshiError, match="expected field:type"):
            self.load(tmp_path)

    def test_missing_field(self, tmp_path: Path) -> None:
        """A field of another name is set in the config."""
        (tmp_path / "a.inter").write_text("user:token\titem_id:token\ttimestamp:float\n1\t2\t3\n")
        with pytest.raises(DeshiError, match="no column user_id; it has user:token"):
            self.load(tmp_path)
        source = RecBole(str(tmp_path), user="user")
        assert source.load(tmp_path).interactions.rows() == [("1", "2", 3000)]

"""The contract of data sources, on tiny files in their original formats."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pytest

from deshi.data.raw import BadRows, RawData, Source
from deshi.types import ITEM, RATING, TIMESTAMP, TITLE, USER, DeshiError

DAY = 86_400_000


class SourceContract:
    """Inherit as ``class TestMine(SourceContract)``, set the attributes, override ``write`` and ``source``."""

    #: the interactions that :meth:`write` writes, as (user, item, timestamp in ms, rating or None)
    expected: Sequence[tuple[str, str, int, float | None]]
    #: items and titles that :meth:`write` writes, or None
    titles: Mapping[str, str | None] | None
    #: a malformed row, the number of the line where it will stand, and what the error quotes of it
    broken: tuple[str, int, str]
    #: the file the broken row is put into, at its end
    file: str

    def write(self, folder: Path, broken: str | None = None) -> None:
        """Write the original files into ``folder``, with ``broken`` as a last line of the interactions."""
        raise NotImplementedError

    def source(self, path: Path) -> Source:
        """The source that reads ``path``: the folder, or an archive of it."""
        raise NotImplementedError

    def load(self, path: Path, rule: BadRows | None = None) -> RawData:
        """Load without a cache."""
        return self.source(path).load(path.parent / "cache", rule or BadRows())

    def test_rows_in_file_order(self, tmp_path: Path) -> None:
        """Ties in time are broken by the original order, so a source must not reorder."""
        self.write(tmp_path)
        raw = self.load(tmp_path)
        rated = any(row[3] is not None for row in self.expected)
        rows = [row if rated else row[:3] for row in self.expected]
        assert raw.interactions.rows() == rows
        assert raw.bad_rows.skipped == 0

    def test_columns_and_types(self, tmp_path: Path) -> None:
        """Preparation relies on exactly these columns and types."""
        self.write(tmp_path)
        raw = self.load(tmp_path)
        schema = dict(raw.interactions.schema)
        assert list(schema)[:3] == [USER, ITEM, TIMESTAMP]
        assert all(schema[name] == pl.String or isinstance(schema[name], pl.Categorical) for name in (USER, ITEM))
        assert schema[TIMESTAMP] == pl.Int64
        assert schema.get(RATING, pl.Float32) == pl.Float32
        assert raw.time_unit == "ms"

    def test_items_are_unique_and_titled(self, tmp_path: Path) -> None:
        """The item table is joined by id, so an id twice would double interactions."""
        self.write(tmp_path)
        items = self.load(tmp_path).items
        if self.titles is None:
            assert items is None
            return
        assert items is not None and items[ITEM].n_unique() == items.height
        assert dict(zip(items[ITEM], items[TITLE], strict=True)) == self.titles
        assert set(items.dtypes) == {pl.String()}

    def test_files_are_recorded(self, tmp_path: Path) -> None:
        """The manifest names what was read with its sha256."""
        self.write(tmp_path)
        files = self.load(tmp_path).files
        assert files and all(len(file.sha256) == 64 and file.origin for file in files)

    def test_malformed_row_is_named(self, tmp_path: Path) -> None:
        """A user must find the row: file, line number and content."""
        content, line, quoted = self.broken
        self.write(tmp_path, content)
        with pytest.raises(DeshiError) as error:
            self.load(tmp_path)
        for part in (self.file, f"line {line}:", quoted, "on_bad_rows=skip"):
            assert part in str(error.value)

    def test_malformed_rows_are_skipped_and_counted(self, tmp_path: Path) -> None:
        """With skip the good rows stay as they are and the bad one is counted with an example."""
        content, line, quoted = self.broken
        self.write(tmp_path, content)
        raw = self.load(tmp_path, BadRows("skip", 1))
        assert raw.interactions.height == len(self.expected)
        assert raw.bad_rows.skipped == 1
        assert f"line {line}:" in raw.bad_rows.examples[0] and quoted in raw.bad_rows.examples[0]

    def test_skipping_has_a_limit(self, tmp_path: Path) -> None:
        """A file of another format must not be skipped row by row."""
        self.write(tmp_path, self.broken[0])
        with pytest.raises(DeshiError, match="More than 0 malformed rows"):
            self.load(tmp_path, BadRows("skip", 0))

    def test_missing_path(self, tmp_path: Path) -> None:
        """A path that isn't there is named, not a FileNotFoundError."""
        with pytest.raises(DeshiError, match="nowhere"):
            self.load(tmp_path / "nowhere")

    def test_empty_file(self, tmp_path: Path) -> None:
        """An export that failed leaves an empty file: say so."""
        self.write(tmp_path)
        next(tmp_path.rglob(self.file)).write_bytes(b"")
        with pytest.raises(DeshiError, match=f"{self.file} is empty"):
            self.load(tmp_path)

    def test_zip_gives_the_same(self, tmp_path: Path) -> None:
        """A downloaded archive need not be unpacked."""
        (tmp_path / "files").mkdir()
        self.write(tmp_path / "files")
        archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "files"))
        plain, packed = self.load(tmp_path / "files"), self.load(archive)
        assert plain.interactions.rows() == packed.interactions.rows()
        assert (plain.items is None) == (packed.items is None)
        assert plain.items is None or packed.items is None or plain.items.equals(packed.items)
        assert [file.name for file in packed.files[:1]] == ["packed.zip"]

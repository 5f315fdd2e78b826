"""Text files with a value a line, as other systems write them."""

from __future__ import annotations

import codecs
import gzip
from pathlib import Path

import pytest

from deshi.tables import read_lines
from deshi.types import DeshiError


@pytest.mark.parametrize(
    "content",
    [
        b"i4\n\n i5 \ncaf\xc3\xa9",
        codecs.BOM_UTF8 + "i4\r\ni5\r\ncafé\r\n".encode(),
        "i4\ri5\rcafé\r".encode(),
        codecs.BOM_UTF16_LE + "i4\r\ni5\r\ncafé\r\n".encode("utf-16-le"),
        gzip.compress("i4\ni5\ncafé".encode(), mtime=0),
    ],
)
def test_every_system_writes_the_same_lines(content: bytes, tmp_path: Path) -> None:
    """A mark before the first line and the sign at a line's end are no part of an id."""
    (tmp_path / "ids[1].txt").write_bytes(content)
    assert read_lines(tmp_path / "ids[1].txt") == ["i4", "i5", "café"]


def test_other_encodings(tmp_path: Path) -> None:
    """Another encoding is an error that names the line, unless it is given; a file without lines is none."""
    path = tmp_path / "ids.txt"
    path.write_bytes(b"i4\ncaf\xe9\n")
    assert read_lines(path, encoding="cp1252") == ["i4", "café"]
    with pytest.raises(DeshiError, match=r"ids.txt, line 2 is no utf-8 text"):
        read_lines(path)
    path.write_bytes(b"")
    assert read_lines(path) == []
    with pytest.raises(DeshiError, match="There is no file"):
        read_lines(tmp_path / "other.csv")

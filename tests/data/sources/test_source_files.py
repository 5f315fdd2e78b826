"""Archives that aren't what they are called."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from deshi.data.sources._files import SourceFiles
from deshi.types import DeshiError


@pytest.mark.parametrize("name", ["x.zip", "x.7z", "x.tar", "x.tar.gz", "x.rar"])
def test_archives_that_are_none_or_others_are_named(tmp_path: Path, name: str) -> None:
    """Read as a table, such a file would give a message about columns, or rows of rubbish."""
    (tmp_path / name).write_bytes(b"user,item,time\n")
    with pytest.raises(DeshiError, match="Fetch it again|Unpack it"):
        SourceFiles(tmp_path / name)


def test_a_damaged_or_encrypted_member_is_named(tmp_path: Path) -> None:
    """A cut download keeps its directory if it is mended by a tool, so that only the member is damaged."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", "user,item,time\n" * 99)
    whole = path.read_bytes()
    for offset, value in ((40, 255), (6, 1)):  # in the data, and the flag of encryption
        content = bytearray(whole)
        content[offset] = value
        if offset == 6:
            content[content.index(b"PK\x01\x02") + 8] = 1
        path.write_bytes(content)
        files = SourceFiles(path)
        with pytest.raises(DeshiError, match="a.csv (can't be unpacked|is encrypted)"), files.local("a.csv"):
            raise AssertionError

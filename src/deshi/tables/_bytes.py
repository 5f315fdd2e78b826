"""The bytes of a text file as UTF-8: gzip, byte order marks and other encodings undone."""

from __future__ import annotations

import codecs
import gzip
from collections.abc import Iterator
from pathlib import Path

from deshi.types import DeshiError

CHUNK = 1 << 24
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""Byte order marks, the longer ones before their beginnings. A mark decides the encoding."""


def utf8_source(path: Path, label: str, encoding: str) -> Path | bytes:
    """``path`` itself where it is plain UTF-8 text, otherwise the whole text as UTF-8.

    A byte that isn't valid in ``encoding`` stays as it is, so that its line is found to be no UTF-8 later.

    Raises:
        DeshiError: for a missing, empty or truncated file, an unknown encoding, and text that can't be decoded at all.
    """
    try:
        head = path.open("rb").read(4)
        if not head:
            raise DeshiError(f"{label} is empty, expected data. Fetch or export it again.")
        packed = head.startswith(b"\x1f\x8b")
        is_plain = not packed and _is_utf8(encoding, label) and not any(head.startswith(mark) for mark, _ in _MARKS)
        if is_plain and not _has_lone_returns(path):
            return path
        content = gzip.open(path, "rb").read() if packed else path.read_bytes()
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise DeshiError(
            f"{label} is damaged or truncated ({error or type(error).__name__}). Fetch or export it again."
        ) from error
    if not content:
        raise DeshiError(f"{label} is empty, expected data. Fetch or export it again.")
    return _line_feeds(_decoded(content, label, encoding))


def _is_utf8(encoding: str, label: str) -> bool:
    try:
        return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")
    except LookupError as error:
        raise DeshiError(
            f"encoding is {encoding!r}, which doesn't exist; expected utf-8, cp1252, ... ({label})"
        ) from error


def _decoded(content: bytes, label: str, encoding: str) -> bytes:
    for mark, marked in _MARKS:
        if content.startswith(mark):
            encoding = marked
            content = content[len(mark) :] if marked == "utf-8" else content
            break
    if _is_utf8(encoding, label):
        return content
    try:
        return content.decode(encoding, "surrogateescape").encode("utf-8", "surrogateescape")
    except UnicodeError as error:
        raise DeshiError(f"{label} is not {encoding} text ({error}). Set its encoding.") from error


def _has_lone_returns(path: Path) -> bool:
    """Whether lines end in carriage returns alone, as on very old systems: then no line feed is in the beginning."""
    with path.open("rb") as handle:
        head = handle.read(1 << 16)
    return b"\n" not in head and b"\r" in head[:-1]


def _line_feeds(content: bytes) -> bytes:
    if b"\n" not in content[: 1 << 16] and b"\r" in content[: 1 << 16]:
        return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return content


def chunks(source: Path | bytes) -> Iterator[bytes]:
    """The bytes in pieces that end at the end of a line."""
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as handle:
        while piece := handle.read(CHUNK):
            yield piece + handle.readline()


def numbered_lines(source: Path | bytes) -> Iterator[tuple[int, bytes]]:
    """Every line with its number from 1, without its line feed."""
    number = 0
    for piece in chunks(source):
        lines = piece.split(b"\n")
        if not lines[-1]:  # what stands after the last line feed is no line
            lines.pop()
        for line in lines:
            number += 1
            yield number, line.removesuffix(b"\r")

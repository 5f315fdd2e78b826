"""The lists of item numbers and titles beside the foreign programs' data, ``id2name.txt``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deshi.tables import read_lines
from deshi.types import DeshiError


def bigrec_names(path: Path | str) -> dict[int, str]:
    """``id2name.txt`` of BIGRec and DLLM2Rec: ``title<TAB>number``, from 0 without gaps.

    Raises:
        DeshiError: if the file can't be read, a line has another form, a number stands twice or is left out.
    """

    def parse(line: str) -> tuple[int, str]:
        title, _, number = line.rpartition("\t")
        return int(number), title.strip().strip('"').strip()

    titles = _read_lines(Path(path), parse)
    if sorted(titles) != list(range(len(titles))):
        raise DeshiError(
            f"{path} has {len(titles)} numbers from {min(titles)} to {max(titles)}, expected 0 to {len(titles) - 1} "
            "without gaps."
        )
    return titles


def llara_names(path: Path | str) -> dict[int, str]:
    """``id2name.txt`` of LLaRA and iLoRA (Steam, LastFM): ``number::title``, from 0.

    Raises:
        DeshiError: if the file can't be read, a line has another form or a number stands twice.
    """

    def parse(line: str) -> tuple[int, str]:
        number, _, title = line.partition("::")
        return int(number), title.strip()

    return _read_lines(Path(path), parse)


def _read_lines(path: Path, parse: Callable[[str], tuple[int, str]]) -> dict[int, str]:
    """One item a line, as its number and its title."""
    titles: dict[int, str] = {}
    for line_number, line in enumerate(read_lines(path), start=1):
        try:
            item, title = parse(line)
        except ValueError as error:
            raise DeshiError(
                f"{path}: line {line_number} reads {line[:60]!a}, expected a number and a title."
            ) from error
        if item in titles:
            raise DeshiError(f"{path}: the number {item} stands in two lines (the second: {line_number}).")
        titles[item] = title
    return titles

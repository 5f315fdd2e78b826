"""The lists of item numbers and titles that lie beside the foreign programs' data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from deshi.artifacts import atomic_file
from deshi.data.bundle import Bundle
from deshi.types import ITEM, TITLE, DeshiError


def read_lines(
    path: Path | str, parse: Callable[[int, str], tuple[int, str]], encoding: str = "utf-8"
) -> dict[int, str]:
    """Read one item a line.

    Args:
        path: the file.
        parse: from a line's place and text to its number and title.
        encoding: of the file.

    Raises:
        DeshiError: if the file can't be read, a line has another form, or a number stands twice.
    """
    path = Path(path)
    try:
        lines = [line for line in path.read_text(encoding=encoding).split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DeshiError(f"{path} can't be read as {encoding} ({error}). Check the path and the encoding.") from error
    titles: dict[int, str] = {}
    for place, line in enumerate(lines):
        try:
            number, title = parse(place, line)
        except (ValueError, IndexError) as error:
            raise DeshiError(f"{path}: line {place + 1} reads {line[:60]!a}, expected a number and a title.") from error
        if number in titles:
            raise DeshiError(f"{path}: the number {number} stands in two lines (the second: {place + 1}).")
        titles[number] = title
    return titles


def bigrec_names(path: Path | str) -> dict[int, str]:
    """``id2name.txt`` of BIGRec and DLLM2Rec: ``title<TAB>number``, from 0 in the order of the lines."""

    def parse(place: int, line: str) -> tuple[int, str]:
        title, _, number = line.rpartition("\t")
        return int(number), title.strip().strip('"').strip()

    titles = read_lines(path, parse)
    check_contiguous(titles, 0, str(path))
    return titles


def llara_names(path: Path | str) -> dict[int, str]:
    """``id2name.txt`` of LLaRA and iLoRA (Steam, LastFM): ``number::title``, from 0."""

    def parse(place: int, line: str) -> tuple[int, str]:
        number, _, title = line.partition("::")
        return int(number), title.strip()

    return read_lines(path, parse)


def movielens_names(path: Path | str) -> dict[int, str]:
    """``u.item`` as LLaRA and iLoRA take it: number = MovieLens id - 1, the title without year, its article first."""

    def parse(place: int, line: str) -> tuple[int, str]:
        number, title = line.split("|")[:2]
        return int(number) - 1, article_first(title[:-7])

    return read_lines(path, parse, encoding="latin-1")


def movies_dat(path: Path | str) -> tuple[dict[int, str], dict[int, str]]:
    """``movies.dat`` as BIGRec takes it: number = place of the line; titles, and MovieLens ids, by number."""
    ids: dict[int, str] = {}

    def parse(place: int, line: str) -> tuple[int, str]:
        movie, title, _ = line.split("::")
        ids[place] = movie
        return place, title.strip('"')

    return read_lines(path, parse, encoding="latin-1"), ids


def article_first(title: str) -> str:
    """``Matrix, The`` becomes ``The Matrix``, wherever the comma stands, as LLaRA's loader has it."""
    for article in ("The", "A", "An"):
        if f", {article}" in title:
            return f"{article} {title.replace(f', {article}', '')}"
    return title


def check_contiguous(numbers: Mapping[int, object], id_base: int, source: str) -> None:
    """Refuse numbers that aren't ``id_base`` to ``id_base + N - 1``.

    Raises:
        DeshiError: with the range got and expected.
    """
    if sorted(numbers) != list(range(id_base, id_base + len(numbers))):
        low, high = (min(numbers), max(numbers)) if numbers else (0, -1)
        raise DeshiError(
            f"{source} has {len(numbers)} numbers from {low} to {high}, expected {id_base} to "
            f"{id_base + len(numbers) - 1} without gaps. Check id_base (0 or 1)."
        )


def bundle_titles(bundle: Bundle) -> list[str]:
    """Every item's title in one line; the item id where there is none."""
    table = bundle.item_table()
    return [
        " ".join((title or item).split()) or item
        for title, item in zip(table[TITLE].to_list(), table[ITEM].to_list(), strict=True)
    ]


def write_lines(path: Path, lines: list[str]) -> None:
    """Write a text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_json_object(path: Path | str) -> dict[str, object]:
    """A JSON file that holds one object.

    Raises:
        DeshiError: if it is missing or holds something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DeshiError(f"{path} can't be read ({error}), expected a JSON object.") from error
    if not isinstance(found, dict):
        raise DeshiError(f"{path} holds a {type(found).__name__}, expected a JSON object.")
    return found

"""BIGRec's files (github SAI990323/BIGRec, arXiv 2308.08434).

``train/valid/test.json`` hold ``instruction``, ``input`` (the titles of up to ten items, quoted), ``output`` (the next
title, quoted) and, after inference, ``predict`` (one generated title a beam). Items are the lines of ``id2name.txt`` or
``movies.dat``, from 0; ``item_embedding.pt`` has a row for each line. Everything is matched by title, so items that
share one can't be told apart: they are counted and left out, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deshi.arrays import offsets_of
from deshi.soft_labels.foreign._alignment import ForeignLists
from deshi.soft_labels.foreign._mapping import Titles
from deshi.types import PAD, DeshiError

BETWEEN = '", "'


def read_examples(path: Path | str, titles: Mapping[int, str], window: int = 10) -> ForeignLists:
    """Read examples with their histories, next items and, where there are any, generated titles.

    Args:
        path: the JSON file.
        titles: from each number to its title, see :mod:`deshi.soft_labels.foreign._titles`.
        window: the most titles that a history has.

    Returns:
        lists of the items whose titles were generated word for word, best beam first, each once; no scores. A generated
        title that no item or several items have is left out; the notes count them. (BIGRec grounds such a title by the
        distance of its embedding.)

    Raises:
        DeshiError: for a file of another form, or longer histories than ``window``.
    """
    examples = _read(Path(path))
    names = Titles(titles)
    histories = [[names.number(title) for title in _history(entry, names, path)] for entry in examples]
    nexts = [names.number(_unquoted(entry["output"])) for entry in examples]
    notes = [f"histories and outputs: {names.unknown} titles unknown, {names.ambiguous} of several items"]
    names.unknown = names.ambiguous = 0
    lists = [_distinct(names, entry.get("predict", [])) for entry in examples]
    notes += [f"generated: {names.unknown} titles unknown, {names.ambiguous} of several items"]
    notes += [f"{names.duplicates} of {len(titles)} items share their title with another"] if names.duplicates else []
    sizes = [len(history) for history in histories]
    if max(sizes, default=0) > window:
        raise DeshiError(f"{path} has histories of {max(sizes)} titles, expected at most window={window}.")
    width = max([1, *map(len, lists)])
    return ForeignLists(
        np.array([items + [PAD] * (width - len(items)) for items in lists], dtype=np.int64).reshape(-1, width),
        None, True, offsets_of(sizes),
        np.array([number for history in histories for number in history], dtype=np.int64),
        np.array(nexts, dtype=np.int64), window, str(path), tuple(notes),
    )  # fmt: skip


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        examples = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DeshiError(f"{path} can't be read ({error}), expected JSON.") from error
    good = isinstance(examples, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("input"), str) and isinstance(entry.get("output"), str)
        for entry in examples
    )
    if not good or not examples:
        raise DeshiError(f"{path} isn't a list of examples with the texts input and output, as BIGRec's are.")
    return list(examples)


def _unquoted(text: str) -> str:
    return text.strip().strip('"').strip()


def _history(entry: Mapping[str, Any], names: Titles, path: Path | str) -> list[str]:
    """The titles of an input. A title that itself holds what stands between titles is put together again."""
    _, mark, text = entry["input"].partition(':"')
    if not mark:
        raise DeshiError(f"{path}: an input reads {entry['input'][:80]!a}, expected titles in quotes after a colon.")
    parts = text.strip().removesuffix('"').split(BETWEEN)
    titles, begin = [], 0
    while begin < len(parts):
        # the shortest run of parts that is a known title; a part alone if there is none
        ends = [end for end in range(begin + 1, len(parts) + 1) if BETWEEN.join(parts[begin:end]) in names]
        end = ends[0] if ends else begin + 1
        titles.append(BETWEEN.join(parts[begin:end]))
        begin = end
    return titles


def _distinct(names: Titles, predicted: Any) -> list[int]:
    beams = [predicted] if isinstance(predicted, str) else list(predicted)
    numbers = [names.number(_unquoted(str(beam))) for beam in beams]
    return [number for number in dict.fromkeys(numbers) if number >= 0]

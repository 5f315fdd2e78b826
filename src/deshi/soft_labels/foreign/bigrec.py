"""BIGRec's files (github SAI990323/BIGRec, arXiv 2308.08434), read and written.

``train/valid/test.json`` hold ``instruction``, ``input`` (the titles of up to ten items, quoted), ``output`` (the next
title, quoted) and, after inference, ``predict`` (one generated title a beam). Items are the lines of ``id2name.txt`` or
``movies.dat``, from 0; ``item_embedding.pt`` has a row for each line. Everything is matched by title, so items that
share one can't be told apart: they are counted and left out, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deshi.arrays import Ints, offsets_of
from deshi.artifacts import write_json
from deshi.data.bundle import Bundle
from deshi.soft_labels.foreign.alignment import ForeignEmbeddings, ForeignLists
from deshi.soft_labels.foreign.dllm2rec import read_embeddings as read_rows
from deshi.soft_labels.foreign.frames import sequence_table
from deshi.soft_labels.foreign.mapping import Titles, map_by_index
from deshi.soft_labels.foreign.tensors import write_tensor
from deshi.soft_labels.foreign.titles import bundle_titles, write_lines
from deshi.types import PAD, DeshiError

BETWEEN = '", "'
INSTRUCTION = "Given a list of {} the user has {} before, please recommend a new {} that the user likes to the user."
SOME = 100
"""So many rows tell whether a matrix holds ranks in place of distances."""

HISTORY = "The user has {} the following {} before:"


def read_examples(path: Path | str, titles: Mapping[int, str], window: int = 10) -> ForeignLists:
    """Read examples with their histories, next items and, where there are any, generated titles.

    Args:
        path: the JSON file.
        titles: from each number to its title, see :mod:`deshi.soft_labels.foreign.titles`.
        window: the most titles that a history has.

    Returns:
        lists of the items whose titles were generated word for word, best beam first, each once; no scores. A generated
        title that no item or several items have is left out; the notes count them. (BIGRec grounds such a title by the
        distance of its embedding: see :func:`with_distances`.)

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
        np.array([found + [PAD] * (width - len(found)) for found in lists], dtype=np.int64).reshape(-1, width),
        None, True, offsets_of(sizes),
        np.array([number for history in histories for number in history], dtype=np.int64),
        np.array(nexts, dtype=np.int64), window, str(path), tuple(notes),
    )  # fmt: skip


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DeshiError(f"{path} can't be read ({error}), expected JSON.") from error
    good = isinstance(found, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("input"), str) and isinstance(entry.get("output"), str)
        for entry in found
    )
    if not good or not found:
        raise DeshiError(f"{path} isn't a list of examples with the texts input and output, as BIGRec's are.")
    return list(found)


def _unquoted(text: str) -> str:
    return text.strip().strip('"').strip()


def _history(entry: Mapping[str, Any], names: Titles, path: Path | str) -> list[str]:
    """The titles of an input. A title that itself holds what stands between titles is put together again."""
    _, mark, text = entry["input"].partition(':"')
    if not mark:
        raise DeshiError(f"{path}: an input reads {entry['input'][:80]!a}, expected titles in quotes after a colon.")
    parts = text.strip().removesuffix('"').split(BETWEEN)
    found, place = [], 0
    while place < len(parts):
        ends = [end for end in range(place + 1, len(parts) + 1) if BETWEEN.join(parts[place:end]) in names]
        end = ends[0] if ends else place + 1
        found.append(BETWEEN.join(parts[place:end]))
        place = end
    return found


def _distinct(names: Titles, predicted: Any) -> list[int]:
    beams = [predicted] if isinstance(predicted, str) else list(predicted)
    numbers = [names.number(_unquoted(str(beam))) for beam in beams]
    return [number for number in dict.fromkeys(numbers) if number >= 0]


def with_distances(lists: ForeignLists, distances: np.ndarray | Tensor, k: int) -> ForeignLists:
    """The same rows with lists by distance, as BIGRec's evaluation computes them.

    Args:
        lists: from :func:`read_examples`.
        distances: ``(M, N)`` from each generated embedding to each item (``dist``: not ``rank``, which is positions).
        k: length of the lists.

    Raises:
        DeshiError: for another number of rows, NaN, or ranks in place of distances.
    """
    matrix = torch.as_tensor(distances)
    if matrix.dim() != 2 or len(matrix) != len(lists) or not torch.isfinite(matrix).all():
        raise DeshiError(
            f"The distances have the shape {tuple(matrix.shape)}, expected ({len(lists)}, items) without NaN, as "
            f"{lists.source} has examples."
        )
    if len(matrix) and (matrix[:SOME].sort(dim=1).values == torch.arange(matrix.shape[1])).all():
        raise DeshiError("Every row is a permutation of 0 to N - 1: this is BIGRec's rank, expected dist itself.")
    values, items = matrix.float().topk(min(k, matrix.shape[1]), dim=1, largest=False)
    return replace(lists, items=items.numpy(), scores=values.numpy(), higher_is_better=False)


def read_embeddings(path: Path | str, n_items: int) -> ForeignEmbeddings:
    """Read ``item_embedding.pt``: row ``i`` is the item of line ``i``, no padding row.

    Raises:
        DeshiError: as :func:`deshi.soft_labels.foreign.dllm2rec.read_embeddings`.
    """
    return read_rows(path, n_items)


def write_bigrec(
    folder: Path | str,
    file: str,
    bundle: Bundle,
    rows: Ints,
    items: Ints | None = None,
    embeddings: Tensor | None = None,
    window: int = 10,
    words: tuple[str, str, str] = ("items", "used", "item"),
) -> None:
    """Write examples, ``id2name.txt`` and ``item_embedding.pt``.

    Args:
        folder: where to write.
        file: name of the JSON file, ``train.json`` for example.
        bundle: the data; items without a title go by their id.
        rows: ``(M,)`` rows with a next event.
        items: ``(M, K)`` item indices, best first; their titles become ``predict``. None leaves it out.
        embeddings: ``(n_items, D)``, or None.
        window: the most titles of a history.
        words: for the instruction: ``("movies", "watched", "movie")`` or ``("video games", "played", "video game")``.

    Raises:
        DeshiError: for rows without a next event.
    """
    folder, titles, (many, did, one) = Path(folder), bundle_titles(bundle), words
    table = sequence_table(bundle, rows, map_by_index(bundle), PAD, window)
    examples = []
    for row, (history, length, following) in enumerate(table.iter_rows()):
        quoted = ", ".join(f'"{titles[item]}"' for item in history[:length])
        example: dict[str, Any] = {
            "instruction": INSTRUCTION.format(many, did, one),
            "input": f"{HISTORY.format(did, many)}{quoted}\n ",
            "output": f'"{titles[following]}"',
        }
        if items is not None:
            example["predict"] = [f'"{titles[item]}"' for item in items[row] if item != PAD]
        examples.append(example)
    write_json(folder / file, examples)
    write_lines(folder / "id2name.txt", [f"{title}\t{number}" for number, title in enumerate(titles)])
    if embeddings is not None:
        write_tensor(folder / "item_embedding.pt", embeddings.to(torch.float32))

"""Files of LLaRA (github ljy0ustc/LLaRA, arXiv 2312.02445) and iLoRA (github AkaliKong/iLoRA, arXiv 2408.10159).

``train_data.df``, ``Val_data.df``, ``Test_data.df``: pickled frames as DLLM2Rec's (``seq`` padded on the right with the
number of items, ``len_seq``, ``next``; MovieLens has pairs with ratings), read by
:func:`deshi.soft_labels.foreign._frames.read_sequences`. Both programs skip rows with ``len_seq`` below 3.
``test.csv`` and ``valid.csv``: what was generated (``generate``), the true title (``real``) and the candidates' titles
(``cans``), in the order of the frame's rows. iLoRA drops the last, incomplete batch.
Their recommenders (``rec_model/*.pt``) are whole pickled models, which are code: they are refused.
"""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deshi.arrays import Ints, offsets_of
from deshi.soft_labels.foreign._alignment import ForeignLists
from deshi.soft_labels.foreign._frames import SequenceFrame
from deshi.soft_labels.foreign._mapping import Titles
from deshi.types import PAD, DeshiError

SHORTEST = 3
"""Both programs leave rows with shorter histories out."""

KEYS = ("generate", "real", "cans")


@dataclass(frozen=True, eq=False)
class Answers:
    """An LLM's answers about candidates.

    Attributes:
        lists: one item a row, the candidate that the answer names; none where it names no or several candidates.
        valid: share of answers that name exactly one candidate.
        hit_ratio: share of *valid* answers that are right: HitRatio@1 as both papers report it.
        hits: share of all answers that are valid and right: their product.
    """

    lists: ForeignLists
    valid: float
    hit_ratio: float
    hits: float


def read_answers(path: Path | str, frame: SequenceFrame, titles: Mapping[int, str]) -> Answers:
    """Read ``test.csv``, ``valid.csv`` or the same columns as JSON.

    Args:
        path: the answers.
        frame: the rows that were answered, from ``Test_data.df`` or ``Val_data.df``.
        titles: from each number to the title as the program writes it (:mod:`deshi.soft_labels.foreign._titles`).

    Raises:
        DeshiError: if there are more answers than rows, a true title isn't that of the row's next item, or the form is
            another.
    """
    generated, real, candidates = _read(Path(path))
    lengths = np.diff(frame.offsets)
    rows = np.flatnonzero(lengths >= SHORTEST)[: len(real)]
    _check_order(path, frame.next_items[rows], real, titles, int((lengths >= SHORTEST).sum()))
    names = Titles(titles, lambda title: title.strip().lower())
    chosen = [_chosen(answer, offered) for answer, offered in zip(generated, candidates, strict=True)]
    right = sum(answer == truth.strip().lower() for answer, truth in zip(chosen, real, strict=True))
    valid = sum(answer is not None for answer in chosen)
    numbers = [PAD if answer is None else names.number(answer) for answer in chosen]
    notes = [f"{len(real)} of {(lengths >= SHORTEST).sum()} rows with at least {SHORTEST} items have an answer"]
    notes += [f"{names.ambiguous} answers are titles of several items, {names.unknown} of none"]
    history = [frame.history[frame.offsets[row] : frame.offsets[row + 1]] for row in rows]
    lists = ForeignLists(
        np.maximum(np.array(numbers, dtype=np.int64), PAD)[:, None], None, True,
        offsets_of(lengths[rows]),
        np.concatenate(history) if history else np.empty(0, dtype=np.int64),
        frame.next_items[rows], frame.window, str(path), tuple(notes),
    )  # fmt: skip
    share = max(len(real), 1)
    return Answers(lists, valid / share, right / valid if valid else float("nan"), right / share)


def _chosen(answer: str, offered: list[str]) -> str | None:
    """The one candidate whose title stands in the answer, in lower case."""
    text = answer.strip().lower()
    titles = [title for title in (title.strip().lower() for title in offered) if title in text]
    return titles[0] if len(titles) == 1 else None


def _check_order(path: Path | str, nexts: Ints, real: list[str], titles: Mapping[int, str], expected: int) -> None:
    """Answer ``i`` belongs to row ``i``: its true title must be that of the row's next item."""
    if len(real) > expected or not real:
        raise DeshiError(
            f"{path} has {len(real)} answers, expected 1 to {expected}, the frame's rows with {SHORTEST} items or more."
        )
    wrong = [
        row
        for row, (number, title) in enumerate(zip(nexts.tolist(), real, strict=True))
        if titles.get(number, "").strip().lower() != title.strip().lower()
    ]
    if wrong:
        row = wrong[0]
        raise DeshiError(
            f"{path}: {len(wrong)} of {len(real)} true titles aren't those of the frame's next items (row {row}: "
            f"{real[row]!a}, expected {titles.get(int(nexts[row]))!a}). Check that frame, answers and titles are of "
            "one data set, and that the answers are in the frame's order."
        )


def _read(path: Path) -> tuple[list[str], list[str], list[list[str]]]:
    try:
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8-sig"))
            table = {key: [entry[key] for entry in content] for key in KEYS} if isinstance(content, list) else content
        else:
            with path.open(encoding="utf-8-sig", newline="") as handle:
                rows = list(csv.DictReader(handle))
            table = {key: [row[key] for row in rows] for key in KEYS}
        columns = [list(table[key]) for key in KEYS]
    except (OSError, ValueError, KeyError, TypeError, csv.Error, RecursionError) as error:
        raise DeshiError(f"{path} can't be read ({error!r}), expected the columns {', '.join(KEYS)}.") from error
    if len({len(column) for column in columns}) != 1:
        raise DeshiError(f"{path} has columns of {[len(column) for column in columns]} entries, expected one length.")
    generated, real, candidates = columns
    return [str(text or "") for text in generated], [str(text) for text in real], [_titles(c, path) for c in candidates]


def _titles(value: Any, path: Path) -> list[str]:
    """A list of titles, which a CSV file holds as Python writes it; only literals are read."""
    try:
        titles = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise DeshiError(f"{path}: candidates read {str(value)[:60]!a}, expected a list of titles.") from error
    if not isinstance(titles, list) or not all(isinstance(title, str) for title in titles):
        raise DeshiError(f"{path}: candidates read {str(value)[:60]!a}, expected a list of titles.")
    return titles

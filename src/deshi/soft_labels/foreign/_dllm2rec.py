"""DLLM2Rec's files (github istarryn/DLLM2Rec, arXiv 2405.00338).

``data/NAME/``: ``data_statis.df`` (``seq_size``, ``item_num``), ``train_data.df`` pickled, ``val_data.csv``,
``test_data.csv``; items are 0 to ``item_num - 1``, histories are padded on the right with ``item_num``.
``tocf/NAME/``: ``all_embeddings.pt`` (one vector an item), ``myrank_train.txt`` (item numbers, best first) and
``confidence_train.txt`` (distances, smaller is better). A line belongs to the row of ``train_data.df`` whose *label* is
the line's number, since the program takes ``batch.index``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from deshi.arrays import Ints
from deshi.soft_labels.foreign._alignment import ForeignLists
from deshi.soft_labels.foreign._frames import read_frame, read_sequences
from deshi.soft_labels.foreign._rankings import ScoreMeaning, check_direction, check_ranks, rank_evidence
from deshi.types import DeshiError


def read_statistics(path: Path) -> tuple[int, int]:
    """``seq_size`` and ``item_num`` of ``data_statis.df`` (or ``.parquet``).

    Raises:
        DeshiError: if they aren't there or aren't positive.
    """
    columns = read_frame(path).columns
    if not {"seq_size", "item_num"} <= set(columns) or not len(columns["seq_size"]):
        raise DeshiError(f"{path} has the columns {sorted(columns)}, expected seq_size and item_num.")
    seq_size, item_num = int(columns["seq_size"][0]), int(columns["item_num"][0])
    if seq_size < 1 or item_num < 1:
        raise DeshiError(f"{path} says seq_size {seq_size} and item_num {item_num}, expected positive numbers.")
    return seq_size, item_num


def read_lists(
    data: Path | str,
    tocf: Path | str,
    id_base: int = 0,
    rank_holds: Literal["ids", "positions"] = "ids",
    confidence: ScoreMeaning = "distance",
    row_order: Literal["label", "position"] = "label",
) -> ForeignLists:
    """Read the teacher's lists for the training rows.

    Args:
        data: the folder with ``train_data`` and ``data_statis`` (``.df`` or ``.parquet``).
        tocf: the folder with ``myrank_train.txt`` and, perhaps, ``confidence_train.txt``.
        id_base: of the numbers in ``myrank_train.txt``; the program's own is 0.
        rank_holds: ``positions`` for a full ``argsort().argsort()``, which is turned into lists of ids.
        confidence: ``distance`` (smaller is better, what the program expects) or ``score``.
        row_order: a line belongs to the row with that ``label`` or at that ``position``.

    Raises:
        DeshiError: if counts, ranges, order or direction aren't as stated, or the ranks look like positions.
    """
    data, tocf = Path(data), Path(tocf)
    seq_size, item_num = read_statistics(_frame_file(data, "data_statis"))
    frame = read_sequences(_frame_file(data, "train_data"), item_num)
    if frame.window != seq_size:
        raise DeshiError(f"{data}: histories have the length {frame.window}, expected seq_size {seq_size}.")
    source = str(tocf / "myrank_train.txt")
    ranks = check_ranks(_read_numbers(tocf / "myrank_train.txt"), item_num, id_base, source) - id_base
    lines = _lines(frame.labels if row_order == "label" else np.arange(len(frame)), len(ranks), source)
    ranks, values, notes = ranks[lines], None, list(frame.notes)
    if (tocf / "confidence_train.txt").is_file():
        values = _read_numbers(tocf / "confidence_train.txt")
        if len(values) <= lines.max(initial=-1) or values.shape[1] != ranks.shape[1]:
            raise DeshiError(f"{tocf}/confidence_train.txt is {values.shape}, expected the shape of myrank_train.txt.")
        values = values[lines]
    ranks, values = _checked(ranks, values, frame.next_items, item_num, rank_holds, confidence, source, notes)
    return ForeignLists(
        ranks, values, confidence == "score", frame.offsets, frame.history, frame.next_items, frame.window, source,
        tuple(notes),
    )  # fmt: skip


def _checked(
    ranks: Ints,
    values: np.ndarray | None,
    next_items: Ints,
    item_num: int,
    rank_holds: str,
    confidence: ScoreMeaning,
    source: str,
    notes: list[str],
) -> tuple[Ints, np.ndarray | None]:
    """Lists of ids in their order, with what rank_holds says confirmed by the evidence."""
    distances = values if values is None or confidence == "distance" else -values
    evidence = rank_evidence(ranks, item_num, next_items, distances)
    if rank_holds == "positions":
        if ranks.shape[1] != item_num or evidence.holds == "ids":
            raise DeshiError(
                f"{source}: positions can be turned into lists only if each row has all {item_num} items (got "
                f"{ranks.shape[1]}) and nothing speaks for ids ({evidence.why}). Write dist.argsort(dim=-1)[:, :K]."
            )
        order = ranks.argsort(axis=1)
        ranks, values = order, None if values is None else np.take_along_axis(values, order, axis=1)
    elif evidence.holds == "positions":
        raise DeshiError(
            f"{source} holds positions, expected item ids, best first: {evidence.why}. BIGRec's rank is "
            "dist.argsort().argsort(), each item's position; DLLM2Rec wants dist.argsort(dim=-1)[:, :K]. "
            "Write it again, or pass rank_holds=positions if each row has all items."
        )
    notes.append(f"ranks are read as {rank_holds} ({evidence.holds}: {evidence.why})")
    if values is not None:
        check_direction(values, confidence, source.replace("myrank", "confidence"))
    return ranks, values


def _lines(labels: Ints, n_lines: int, source: str) -> Ints:
    if len(np.unique(labels)) != len(labels) or labels.min(initial=0) < 0 or labels.max(initial=-1) >= n_lines:
        raise DeshiError(
            f"{source} has {n_lines} lines for {len(labels)} rows of the data frame, whose labels go up to "
            f"{labels.max(initial=-1)}, expected a line for each label. Check that both are of one run, and row_order."
        )
    return labels


def _frame_file(folder: Path, name: str) -> Path:
    """The frame as pandas pickled it, or as parquet."""
    files = [folder / f"{name}{suffix}" for suffix in (".df", ".parquet") if (folder / f"{name}{suffix}").is_file()]
    if len(files) != 1:
        raise DeshiError(f"{folder} has {len(files)} of {name}.df and {name}.parquet, expected one of them.")
    return files[0]


def _read_numbers(path: Path) -> np.ndarray:
    try:
        return np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise DeshiError(f"{path} can't be read ({error}), expected numbers in columns (numpy.savetxt).") from error

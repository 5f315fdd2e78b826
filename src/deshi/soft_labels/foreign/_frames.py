"""The data frames of DLLM2Rec, LLaRA and iLoRA: one row a history, padded to one length, with its next item."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from deshi.arrays import Ints, offsets_of
from deshi.soft_labels.foreign._pickled_frames import Frame, read_pickled_frame
from deshi.tables import read_table
from deshi.types import DeshiError

COLUMNS = ("seq", "len_seq", "next")
LABELS = "__index_level_0__"
"""The column in which pandas writes row labels to parquet."""

LONGEST = 10_000
"""No program pads histories to more; a longer one is a damaged or hostile file."""


@dataclass(frozen=True, eq=False)
class SequenceFrame:
    """Histories and next items, in foreign numbers.

    Attributes:
        offsets: ``(M + 1,)`` int64 into ``history``.
        history: ``(T,)`` int64, oldest first, without padding.
        next_items: ``(M,)`` int64.
        labels: ``(M,)`` int64, the row labels of the frame (0 to M - 1 unless rows were removed).
        window: the length that histories are padded to.
        notes: what was remarked on the way.
    """

    offsets: Ints
    history: Ints
    next_items: Ints
    labels: Ints
    window: int
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.next_items)


def read_frame(path: Path) -> Frame:
    """Read a data frame that pandas pickled (``.df``, ``.pkl``) or wrote as parquet.

    Raises:
        DeshiError: if it can't be read or is no data frame.
    """
    if path.suffix != ".parquet":
        return read_pickled_frame(path)
    table = read_table(path).frame
    labels = table[LABELS].to_numpy() if LABELS in table.columns else range(table.height)
    return Frame({name: _column(table[name]) for name in table.columns if name != LABELS}, labels)


def _column(column: pl.Series) -> np.ndarray:
    if column.dtype != pl.List:
        return column.to_numpy()
    lists = np.empty(len(column), dtype=object)
    lists[:] = column.to_list()
    return lists


def read_sequences(path: Path | str, n_items: int) -> SequenceFrame:
    """Read and check a frame with the columns ``seq``, ``len_seq`` and ``next``.

    Items are 0 to ``n_items - 1``, and ``n_items`` fills histories up on the right, in all three programs.

    Args:
        path: ``.df`` or ``.pkl`` (pickled by pandas) or ``.parquet``.
        n_items: number of items of the foreign program.

    Raises:
        DeshiError: for missing columns, numbers out of range, padding elsewhere than stated, or wrong lengths.
    """
    path = Path(path)
    frame = read_frame(path)
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise DeshiError(f"{path} has the columns {sorted(frame.columns)}, expected {', '.join(COLUMNS)}.")
    table, rated = _matrix(frame.columns["seq"], path)
    nexts = _numbers([_first(entry) for entry in frame.columns["next"].tolist()], "next", path)
    lengths = _numbers(frame.columns["len_seq"].tolist(), "len_seq", path)
    real = table != n_items
    notes = ["histories are pairs of item and rating; the ratings are left out"] if rated else []
    notes += _check_padding(real, lengths, n_items, table, path)
    _check_range(np.concatenate([table[real], nexts]), n_items, path)
    offsets = offsets_of(real.sum(axis=1))
    labels = _numbers(list(frame.index), "row labels", path)
    return SequenceFrame(offsets, table[real], nexts, labels, table.shape[1], tuple(notes))


def _first(entry: Any) -> Any:
    """LLaRA's MovieLens frames hold ``(item, rating)`` where the others hold an item."""
    return entry[0] if isinstance(entry, (tuple, list)) and entry else entry


def _numbers(values: list[Any], name: str, path: Path) -> Ints:
    try:
        numbers = np.array(values, dtype=np.float64).reshape(len(values))
    except (ValueError, TypeError) as error:
        raise DeshiError(f"{path}: {name} holds something else than numbers ({error}), expected whole ones.") from error
    if not np.isfinite(numbers).all() or (numbers != np.floor(numbers)).any() or (np.abs(numbers) > 2**53).any():
        raise DeshiError(f"{path}: {name} holds numbers that aren't whole, expected whole ones.")
    return numbers.astype(np.int64)


def _matrix(column: np.ndarray, path: Path) -> tuple[Ints, bool]:
    """``(M, L)`` histories, and whether they were pairs with ratings."""
    lists = [_list(row, path) for row in column.tolist()]
    sizes = {len(row) for row in lists}
    if len(sizes) != 1 or not 1 <= min(sizes) <= LONGEST:
        raise DeshiError(
            f"{path}: histories have the lengths {sorted(sizes)[:5]}, expected one length: they are padded."
        )
    rated = isinstance(lists[0][0], (tuple, list))
    flat = [_first(entry) if rated else entry for row in lists for entry in row]
    return _numbers(flat, "seq", path).reshape(len(lists), max(sizes)), rated


def _list(row: Any, path: Path) -> list[Any]:
    entries = row.tolist() if isinstance(row, np.ndarray) else row
    if not isinstance(entries, (list, tuple)):
        raise DeshiError(f"{path}: a history is a {type(entries).__name__}, expected a list of numbers.")
    return list(entries)


def _check_padding(real: np.ndarray, lengths: Ints, pad: int, table: Ints, path: Path) -> list[str]:
    """Padding on the right only, and as many items as ``len_seq`` says; an empty history has the length 1."""
    counts = real.sum(axis=1)
    gaps = (np.diff(real.astype(np.int8), axis=1) > 0).any(axis=1)
    if gaps.any():
        raise DeshiError(
            f"{path}: {gaps.sum()} of {len(real)} histories have the padding id {pad} before an item, expected it on "
            "the right only, as DLLM2Rec, LLaRA and iLoRA have it."
        )
    wrong = (counts != lengths) & ~((counts == 0) & (lengths == 1))
    if wrong.any():
        # the commonest last entry of histories that are shorter than the table is likely what the file pads with
        values, times = np.unique(table[lengths < table.shape[1], -1], return_counts=True)
        likely = values[times.argmax()] if len(values) else pad
        raise DeshiError(
            f"{path}: {wrong.sum()} of {len(real)} histories have another number of items than len_seq says (the "
            f"first: {counts[wrong][0]} items, len_seq {lengths[wrong][0]}) with the padding id {pad}. Short ones have "
            f"{likely} at their end most often: check the number of items."
        )
    empty = int((counts == 0).sum())
    return [f"{empty} histories are empty (len_seq 1, padding only)"] if empty else []


def _check_range(ids: Ints, n_items: int, path: Path) -> None:
    wrong = (ids < 0) | (ids >= n_items)
    if wrong.any():
        raise DeshiError(
            f"{path} holds item numbers {ids.min()} to {ids.max()}, {wrong.sum()} of {len(ids)} out of range, expected "
            f"0 to {n_items - 1} ({n_items} items, padding {n_items}). Check the number of items."
        )

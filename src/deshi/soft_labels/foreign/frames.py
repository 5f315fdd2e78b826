"""The data frames of DLLM2Rec, LLaRA and iLoRA: one row a history, padded to one length, with its next item."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from deshi.arrays import Ints, offsets_of
from deshi.artifacts import atomic_file
from deshi.data.bundle import Bundle
from deshi.soft_labels.foreign.decoding import Frame
from deshi.soft_labels.foreign.mapping import ItemMapping
from deshi.soft_labels.foreign.unpickle import LIMIT, read_pickle
from deshi.types import PAD, DeshiError

COLUMNS = ("seq", "len_seq", "next")
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


def read_frame(path: Path | str, limit: int = LIMIT) -> Frame:
    """Read a table: pickled by pandas (``.df``, ``.pkl``), CSV, or parquet.

    Raises:
        DeshiError: if it can't be read or is no table.
    """
    path = Path(path)
    try:
        if path.suffix == ".parquet":
            table = pl.read_parquet(path)
        elif path.suffix == ".csv":
            table = pl.read_csv(path)
        else:
            found = read_pickle(path, limit)
            if not isinstance(found, Frame):
                raise DeshiError(f"{path} holds a {type(found).__name__}, expected a pandas.DataFrame.")
            return found
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DeshiError(f"{path} can't be read ({error}). Check the path and that it is a table.") from error
    columns = {name: _objects(table[name]) for name in table.columns if name not in ("", "__index_level_0__")}
    return Frame(columns, range(table.height))


def _objects(column: pl.Series) -> np.ndarray:
    if column.dtype != pl.List:
        return column.to_numpy()
    found = np.empty(len(column), dtype=object)
    found[:] = column.to_list()
    return found


def read_sequences(
    path: Path | str,
    n_items: int,
    id_base: int = 0,
    pad_id: int | None = None,
    padding: Literal["right", "left"] = "right",
    limit: int = LIMIT,
) -> SequenceFrame:
    """Read and check a frame with the columns ``seq``, ``len_seq`` and ``next``.

    Args:
        path: ``.df`` or ``.pkl`` (pickled by pandas), ``.csv`` or ``.parquet``.
        n_items: number of items of the foreign program; numbers run from ``id_base`` to ``id_base + n_items - 1``.
        id_base: 0 in DLLM2Rec, LLaRA and iLoRA.
        pad_id: what fills histories up; None: ``id_base + n_items``, as those three have it.
        padding: on which side.
        limit: bytes of memory that a pickle may take.

    Raises:
        DeshiError: for missing columns, numbers out of range, padding elsewhere than stated, or wrong lengths.
    """
    path, frame = Path(path), read_frame(path, limit)
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise DeshiError(f"{path} has the columns {sorted(frame.columns)}, expected {', '.join(COLUMNS)}.")
    table, rated = _matrix(frame.columns["seq"], path)
    nexts = _numbers([_first(entry) for entry in frame.columns["next"].tolist()], "next", path)
    lengths = _numbers(frame.columns["len_seq"].tolist(), "len_seq", path)
    pad = id_base + n_items if pad_id is None else pad_id
    real = table != pad
    notes = ["histories are pairs of item and rating; the ratings are left out"] if rated else []
    notes += _check_padding(real, lengths, padding, pad, table, path)
    _check_range(np.concatenate([table[real], nexts]), n_items, id_base, pad, path)
    offsets = offsets_of(real.sum(axis=1))
    labels = _numbers(list(frame.index), "row labels", path)
    return SequenceFrame(offsets, table[real], nexts, labels, table.shape[1], tuple(notes))


def _first(entry: Any) -> Any:
    """LLaRA's MovieLens frames hold ``(item, rating)`` where the others hold an item."""
    return entry[0] if isinstance(entry, (tuple, list)) and entry else entry


def _numbers(values: list[Any], name: str, path: Path) -> Ints:
    try:
        found = np.array(values, dtype=np.float64).reshape(len(values))
    except (ValueError, TypeError) as error:
        raise DeshiError(f"{path}: {name} holds something else than numbers ({error}), expected whole ones.") from error
    if not np.isfinite(found).all() or (found != np.floor(found)).any() or (np.abs(found) > 2**53).any():
        raise DeshiError(f"{path}: {name} holds numbers that aren't whole, expected whole ones.")
    return found.astype(np.int64)


def _matrix(column: np.ndarray, path: Path) -> tuple[Ints, bool]:
    """``(M, L)`` histories, and whether they were pairs with ratings; CSV files hold them as text."""
    lists = [_list(_parsed(row, path), path) for row in column.tolist()]
    sizes = {len(row) for row in lists}
    if len(sizes) != 1 or not 1 <= min(sizes) <= LONGEST:
        raise DeshiError(
            f"{path}: histories have the lengths {sorted(sizes)[:5]}, expected one length: they are padded."
        )
    rated = isinstance(lists[0][0], (tuple, list))
    flat = [_first(entry) for row in lists for entry in row] if rated else [entry for row in lists for entry in row]
    return _numbers(flat, "seq", path).reshape(len(lists), max(sizes)), rated


def _list(row: Any, path: Path) -> list[Any]:
    found = row.tolist() if isinstance(row, np.ndarray) else row
    if not isinstance(found, (list, tuple)):
        raise DeshiError(f"{path}: a history is a {type(found).__name__}, expected a list of numbers.")
    return list(found)


def _parsed(row: Any, path: Path) -> Any:
    """A history that CSV holds as text, as a list of numbers; nothing else is read."""
    if not isinstance(row, str):
        return row
    try:
        if set(row) <= set("0123456789-,. []"):
            return json.loads(row)
    except (ValueError, RecursionError):
        pass
    raise DeshiError(f"{path}: a history reads {row[:60]!a}, expected a list of numbers such as [3, 1, 2].")


def _check_padding(real: np.ndarray, lengths: Ints, side: str, pad: int, table: Ints, path: Path) -> list[str]:
    """Padding on one side only, and as many items as ``len_seq`` says; an empty history has the length 1."""
    counts = real.sum(axis=1)
    order = real if side == "right" else real[:, ::-1]
    gaps = (np.diff(order.astype(np.int8), axis=1) > 0).any(axis=1)
    if gaps.any():
        raise DeshiError(
            f"{path}: {gaps.sum()} of {len(real)} histories have the padding id {pad} before an item, expected it on "
            f"the {side} only. Check padding (right or left) and pad_id."
        )
    wrong = (counts != lengths) & ~((counts == 0) & (lengths == 1))
    if wrong.any():
        short = table[(lengths < table.shape[1])]
        edge = short[:, -1] if side == "right" else short[:, 0]
        values, times = np.unique(edge, return_counts=True)
        likely = values[times.argmax()] if len(values) else pad
        raise DeshiError(
            f"{path}: {wrong.sum()} of {len(real)} histories have another number of items than len_seq says (the "
            f"first: {counts[wrong][0]} items, len_seq {lengths[wrong][0]}) with the padding id {pad}. Short ones have "
            f"{likely} at their {'end' if side == 'right' else 'beginning'} most often: check pad_id, n_items, id_base."
        )
    empty = int((counts == 0).sum())
    return [f"{empty} histories are empty (len_seq 1, padding only)"] if empty else []


def _check_range(ids: Ints, n_items: int, id_base: int, pad: int, path: Path) -> None:
    wrong = (ids < id_base) | (ids >= id_base + n_items)
    if wrong.any():
        raise DeshiError(
            f"{path} holds item numbers {ids.min()} to {ids.max()}, {wrong.sum()} of {len(ids)} out of range, expected "
            f"{id_base} to {id_base + n_items - 1} ({n_items} items, padding {pad}). Check n_items, id_base and pad_id."
        )


def sequence_table(bundle: Bundle, rows: Ints, mapping: ItemMapping, pad_id: int, window: int) -> pl.DataFrame:
    """The frame of some rows: the last ``window`` items up to and including each row, and the item after it.

    Raises:
        DeshiError: for rows without a next event, or items without a foreign number.
    """
    sizes = np.diff(bundle.offsets)
    starts, stops = np.repeat(bundle.offsets[:-1], sizes), np.repeat(bundle.offsets[1:], sizes)
    rows = np.asarray(rows, dtype=np.int64)
    last = rows + 1 >= stops[rows]
    if last.any():
        raise DeshiError(f"{last.sum()} of {len(rows)} rows are a user's last event, expected rows with a next item.")
    first = np.maximum(starts[rows], rows - window + 1)
    places = first[:, None] + np.arange(window)
    inside = places <= rows[:, None]
    items = mapping.to_foreign(bundle.items[np.minimum(places, rows[:, None])])
    nexts = mapping.to_foreign(bundle.items[rows + 1])
    if (items == PAD).any() or (nexts == PAD).any():
        raise DeshiError(f"{(items == PAD).sum() + (nexts == PAD).sum()} items have no foreign number, expected all.")
    return pl.DataFrame(
        {"seq": np.where(inside, items, pad_id), "len_seq": rows - first + 1, "next": nexts},
        schema={"seq": pl.Array(pl.Int64, window), "len_seq": pl.Int64, "next": pl.Int64},
    ).with_columns(pl.col("seq").arr.to_list())


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Write parquet or, by the suffix, CSV with lists as text, atomically."""
    with atomic_file(path) as temporary:
        if path.suffix == ".parquet":
            table.write_parquet(temporary)
            return
        with temporary.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(table.columns)
            writer.writerows(table.iter_rows())

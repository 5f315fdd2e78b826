"""Readers of other programs' ids, tables and arrays, checked against the data set's ids."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from deshi.arrays import Float32s, Ints
from deshi.artifacts import file_sha256
from deshi.configuration.targets import nearest
from deshi.types import PAD, DeshiError

log = logging.getLogger(__name__)

_SEPARATORS = {".csv": ",", ".tsv": "\t"}


def need_file(path: str, key: str) -> Path:
    """``path`` with the home folder filled in.

    Raises:
        DeshiError: if there is no such file or it is empty; names the nearest one beside it.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        near = nearest(file.name, [sibling.name for sibling in file.parent.glob("*") if sibling.is_file()], 1)
        hint = f" Did you mean {file.parent / near[0]}?" if near else ""
        raise DeshiError(f"{key}={file}: there is no such file.{hint}")
    if file.stat().st_size == 0:
        raise DeshiError(f"{key}={file}: the file is empty, expected data. Export it again.")
    return file


def read_table(path: Path, columns: Mapping[str, str]) -> pl.DataFrame:
    """Chosen columns of a .csv, .tsv (both also with .gz) or .parquet file.

    Args:
        path: the file; a text table has a first line with the columns' names.
        columns: the file's column for each name that the result gets.

    Raises:
        DeshiError: if the file can't be read, has no rows, or lacks a column.
    """
    names = column_names(path)
    for name in columns.values():
        if name not in names:
            near = nearest(name, names, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DeshiError(f"{path} has no column {name!r}; it has {', '.join(names)}.{hint} Give the column's name.")
    frame = _read(path).select(pl.col(name).alias(role) for role, name in columns.items())
    if frame.is_empty():
        raise DeshiError(f"{path} has no rows, expected at least one. Check that it is the right file.")
    return frame


def column_names(path: Path) -> list[str]:
    """The names of a table's columns.

    Raises:
        DeshiError: if the file can't be read as what its ending says.
    """
    return _read(path, rows=0).columns


def _read(path: Path, rows: int | None = None) -> pl.DataFrame:
    kind = _kind(path)
    try:
        if kind == ".parquet":
            return pl.read_parquet(path, n_rows=rows)
        if kind in _SEPARATORS:
            return pl.read_csv(path, separator=_SEPARATORS[kind], infer_schema=False, n_rows=rows)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DeshiError(f"{path} can't be read as {kind[1:]} ({error}). Export it again.") from error
    raise DeshiError(
        f"{path} ends in {kind!r}, expected .csv, .tsv (both also with .gz) or .parquet. Rename or convert."
    )


def _kind(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def texts(column: pl.Series, path: Path) -> pl.Series:
    """Ids as text, spaces around them gone; a column of floats that are all whole loses its ``.0``.

    Raises:
        DeshiError: if an id is missing.
    """
    if column.dtype.is_float() and bool((column == column.floor()).fill_null(False).all()):
        column = column.cast(pl.Int64)
    ids = column.cast(pl.String).str.strip_chars()
    empty = ids.is_null() | (ids == "")
    if empty.any():
        raise DeshiError(f"{path} has {empty.sum()} rows without an id, the first is row {empty.arg_true()[0] + 1}.")
    return ids


def numbers(column: pl.Series, name: str, path: Path) -> NDArray[np.float64]:
    """A column of finite numbers.

    Raises:
        DeshiError: for text, empty fields, NaN and infinities, with how many and the first.
    """
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    values = column.cast(pl.Float64, strict=False)
    wrong = ~values.is_finite().fill_null(False)
    if wrong.any():
        row = int(wrong.arg_true()[0])
        raise DeshiError(
            f"{path} has {wrong.sum()} of {len(values)} rows whose {name} is no finite number, the first is row "
            f"{row + 1} with {column[row]!r}. Leave such rows out, or repair what wrote them."
        )
    return values.to_numpy()


def read_ids(path: Path, column: str) -> pl.Series:
    """The ids that name the rows or columns of an array, in its order.

    Args:
        path: .txt with one id a line, a .npy array of whole numbers or texts, or a table with the column ``column``.
        column: of a table.

    Raises:
        DeshiError: if the file can't be read, or an id is missing or stands there twice.
    """
    kind = _kind(path)
    if kind == ".txt":
        ids = pl.Series(path.read_text(encoding="utf-8").splitlines(), dtype=pl.String)
    elif kind == ".npy":
        array = open_array(path, 1)
        if array.dtype.kind not in "iuU":
            raise DeshiError(f"{path} holds {array.dtype}, expected whole numbers or texts: ids.")
        ids = pl.Series(array.tolist())
    else:
        ids = read_table(path, {"id": column})["id"]
    return _unique(texts(ids, path), path)


def open_array(path: Path, dimensions: int) -> np.ndarray:
    """A .npy array, mapped and not read; arrays of objects are refused, for they are pickles.

    Raises:
        DeshiError: if the file is damaged, holds objects, or has another number of dimensions.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DeshiError(f"{path} can't be read as .npy ({error}). Save it with np.save, no objects.") from error
    if not isinstance(array, np.ndarray) or array.ndim != dimensions or 0 in array.shape:
        raise DeshiError(
            f"{path} has shape {getattr(array, 'shape', None)}, expected {dimensions} dimensions, not empty."
        )
    return array


def read_vectors(path: Path, ids: Path | None, column: str, vectors: str | None) -> tuple[pl.Series, Float32s]:
    """Item ids and their vectors, row by row.

    Args:
        path: .parquet with a column of ids and a column of lists, or .npy or .safetensors beside a file of ids.
        ids: the file of ids (:func:`read_ids`); None for .parquet.
        column: name of the column of ids.
        vectors: the .parquet's column or the .safetensors' tensor; None if there is but one to choose.

    Returns:
        ids, each once, and vectors ``(len(ids), D)``.

    Raises:
        DeshiError: if the two don't fit each other, or a number isn't finite.
    """
    if (_kind(path) == ".parquet") != (ids is None):
        raise DeshiError(f"{path} with ids={ids}: a .parquet file brings its ids, all others need a file of ids.")
    if ids is None:
        nested = [name for name, kind in _read(path, rows=0).schema.items() if kind.is_nested()]
        frame = read_table(path, {"id": column, "vector": vectors or _only(nested, path)})
        names, table = _unique(texts(frame["id"], path), path), _stacked(frame["vector"], path)
    else:
        names = read_ids(ids, column)
        table = _tensor(path, vectors) if _kind(path) == ".safetensors" else np.array(open_array(path, 2), np.float32)
    if len(names) != len(table):
        raise DeshiError(f"{path} has {len(table)} vectors, {ids} has {len(names)} ids: expected one id a vector.")
    bad = ~np.isfinite(table).all(1)
    if bad.any():
        raise DeshiError(
            f"{path} has NaN or infinity in {bad.sum()} of {len(table)} vectors, the first belongs to "
            f"{names[int(bad.argmax())]!r}. Repair what wrote them."
        )
    return names, table


def _unique(ids: pl.Series, path: Path) -> pl.Series:
    if ids.n_unique() < len(ids):
        repeated = ids.filter(ids.is_duplicated())
        raise DeshiError(f"{path} names {repeated.n_unique()} ids more than once, the first is {repeated[0]!r}.")
    return ids


def _only(names: list[str], path: Path) -> str:
    if len(names) != 1:
        raise DeshiError(f"{path} holds {', '.join(names) or 'nothing'} that could be vectors: name one with vectors=.")
    return names[0]


def _stacked(column: pl.Series, path: Path) -> Float32s:
    try:
        return np.array(column.to_list(), dtype=np.float32).reshape(len(column), -1)
    except (ValueError, TypeError) as error:
        raise DeshiError(f"{path}: {column.name} is no column of equally long lists of numbers ({error}).") from error


def _tensor(path: Path, name: str | None) -> Float32s:
    try:
        with safe_open(path, framework="np") as handle:
            names = list(handle.keys())
            name = name or _only(names, path)
            if name not in names:
                raise DeshiError(f"{path} has no tensor {name!r}; it has {', '.join(names)}.")
            tensor = handle.get_tensor(name)
    except (SafetensorError, OSError, TypeError) as error:
        raise DeshiError(f"{path} can't be read as safetensors of fp32 or fp16 ({error}). Save it again.") from error
    if tensor.ndim != 2:
        raise DeshiError(f"{path}: {name} has shape {tensor.shape}, expected (items, dimensions).")
    return tensor.astype(np.float32)


def indices_of(ids: pl.Series, vocabulary: pl.Series, kind: str, path: Path) -> Ints:
    """The index of every id in the vocabulary, ``PAD`` for unknown ones, which are counted in the log.

    Args:
        ids: texts, repeats allowed.
        vocabulary: the data set's ids in the order of their indices.
        kind: ``item`` or ``user``.
        path: the file, for messages.

    Raises:
        DeshiError: if not one id is known.
    """
    table = pl.DataFrame({"id": vocabulary, "index": np.arange(len(vocabulary), dtype=np.int64)})
    indices = pl.DataFrame({"id": ids}).join(table, on="id", how="left", maintain_order="left")["index"]
    unknown = ids.filter(indices.is_null())
    if len(unknown) == len(ids):
        raise DeshiError(
            f"None of the {ids.n_unique()} {kind} ids in {path} is known, for example {ids[0]!r}; the data set has ids "
            f"such as {vocabulary[0]!r}. Write the data set's {kind}_id, compared as text, not row numbers."
        )
    if len(unknown):
        log.warning(
            "%s: %d of %d %s ids are not in the data set (first: %r); their rows are left out",
            path, unknown.n_unique(), ids.n_unique(), kind, unknown[0],
        )  # fmt: skip
    return indices.fill_null(PAD).to_numpy()


def missing(count: int, total: int, first: str, kind: str, path: Path) -> str:
    """The sentence about users or items of the data set that a file doesn't have."""
    return f"{path} has nothing for {count} of the data set's {total} {kind}s, the first is {first!r}"


def fingerprints(*paths: Path | None) -> dict[str, str]:
    """The sha256 of each file by its path, those that are None left out."""
    return {str(path): file_sha256(path) for path in paths if path is not None}

"""Readers of other programs' ids, columns and arrays, which refuse gaps, repeats and numbers that aren't finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from deshi.arrays import Float32s
from deshi.artifacts import file_sha256
from deshi.tables import ids, numbers, read_lines, read_table, sibling_hint, table_kind
from deshi.types import DeshiError


def need_file(path: str, key: str) -> Path:
    """``path`` with the home folder filled in.

    Raises:
        DeshiError: if there is no such file or it is empty; names the nearest one beside it.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise DeshiError(f"{key}={file}: there is no such file.{sibling_hint(file)}")
    if file.stat().st_size == 0:
        raise DeshiError(f"{key}={file}: the file is empty, expected data. Export it again.")
    return file


def read_columns(
    path: Path,
    columns: Mapping[str, str],
    advice: str = "Give the column's name.",
    single_line: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Chosen columns of a table of any format that :func:`deshi.tables.read_table` knows.

    Args:
        path: the file.
        columns: the file's column for each name that the result gets.
        advice: ends the message about a missing column.
        single_line: columns of the file in which a line break makes a row malformed; None: all of them.

    Raises:
        DeshiError: if the file can't be read, has no rows or malformed ones, or lacks a column.
    """
    table = read_table(path, list(columns.values()), advice=advice, single_line=single_line)
    if table.malformed:
        line, reason, content = table.malformed[0]
        raise DeshiError(
            f"{path} has {len(table.malformed)} malformed lines, the first is line {line}: {reason}: {content[:80]!r}. "
            "Repair them, or leave them out."
        )
    if table.frame.is_empty():
        raise DeshiError(f"{path} has no rows, expected at least one. Check that it is the right file.")
    return table.frame.select(pl.col(name).alias(role) for role, name in columns.items())


def complete_ids(column: pl.Series, path: Path) -> pl.Series:
    """Ids as :func:`deshi.tables.ids` has them, one in each row.

    Raises:
        DeshiError: if an id is missing.
    """
    texts = ids(column)
    if texts.has_nulls():
        row = int(texts.is_null().arg_true()[0]) + 1
        raise DeshiError(f"{path} has {texts.null_count()} rows without an id, the first is row {row}.")
    return texts


def finite_numbers(column: pl.Series, name: str, path: Path) -> NDArray[np.float64]:
    """A column of finite numbers.

    Raises:
        DeshiError: for text, empty fields, NaN and infinities, with how many and the first.
    """
    values = numbers(column)
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
        path: .txt with one id a line, a .npy array of numbers or texts, or a table with the column ``column``.
        column: of a table.

    Raises:
        DeshiError: if the file can't be read, or an id is missing or stands there twice.
    """
    kind = table_kind(path)
    if kind == ".txt":
        values = pl.Series(read_lines(path), dtype=pl.String)
    elif kind == ".npy":
        array = open_array(path, 1)
        if array.dtype.kind not in "iufU":
            raise DeshiError(f"{path} holds {array.dtype}, expected whole numbers or texts: ids.")
        values = pl.Series(array.tolist())
    else:
        values = read_columns(path, {"id": column})["id"]
    return _unique(complete_ids(values, path), path)


def open_array(path: Path, dimensions: int) -> np.ndarray:
    """A .npy array, mapped and not read; arrays of objects are refused, for they are pickles.

    Raises:
        DeshiError: if the file is damaged, holds objects, or has another number of dimensions.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, BadZipFile) as error:
        raise DeshiError(f"{path} can't be read as .npy ({error}). Save it with np.save, no objects.") from error
    if not isinstance(array, np.ndarray) or array.ndim != dimensions or 0 in array.shape:
        raise DeshiError(
            f"{path} has shape {getattr(array, 'shape', None)}, expected {dimensions} dimensions, not empty."
        )
    return array


def read_vectors(path: Path, id_file: Path | None, column: str, vectors: str | None) -> tuple[pl.Series, Float32s]:
    """Item ids and their vectors, row by row.

    Args:
        path: .parquet with a column of ids and a column of lists, or .npy or .safetensors beside a file of ids.
        id_file: the file of ids (:func:`read_ids`); None for .parquet.
        column: name of the column of ids.
        vectors: the .parquet's column or the .safetensors' tensor; None if there is but one to choose.

    Returns:
        ids, each once, and vectors ``(len(ids), D)``.

    Raises:
        DeshiError: if the two don't fit each other, or a number isn't finite.
    """
    is_table = table_kind(path) in (".parquet", ".pq")
    if is_table != (id_file is None):
        raise DeshiError(f"{path} with ids={id_file}: a .parquet file brings its ids, all others need a file of ids.")
    if id_file is None:
        frame = read_columns(path, {"id": column, "vector": vectors or _only(_nested_columns(path), path)})
        names, table = _unique(complete_ids(frame["id"], path), path), _stacked(frame["vector"], path)
    else:
        names = read_ids(id_file, column)
        table = (
            _tensor(path, vectors) if table_kind(path) == ".safetensors" else np.array(open_array(path, 2), np.float32)
        )
    if len(names) != len(table):
        raise DeshiError(f"{path} has {len(table)} vectors, {id_file} has {len(names)} ids: expected one id a vector.")
    bad = ~np.isfinite(table).all(1)
    if bad.any():
        raise DeshiError(
            f"{path} has NaN or infinity in {bad.sum()} of {len(table)} vectors, the first belongs to "
            f"{names[int(bad.argmax())]!r}. Repair what wrote them."
        )
    return names, table


def _unique(texts: pl.Series, path: Path) -> pl.Series:
    if texts.n_unique() < len(texts):
        repeated = texts.filter(texts.is_duplicated())
        raise DeshiError(f"{path} names {repeated.n_unique()} ids more than once, the first is {repeated[0]!r}.")
    return texts


def _nested_columns(path: Path) -> list[str]:
    return [name for name, kind in read_table(path).frame.schema.items() if kind.is_nested()]


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


def missing(count: int, total: int, first: str, kind: str, path: Path) -> str:
    """The sentence about users or items of the data set that a file doesn't have."""
    return f"{path} has nothing for {count} of the data set's {total} {kind}s, the first is {first!r}"


def fingerprints(*paths: Path | None) -> dict[str, str]:
    """The sha256 of each file by its path, those that are None left out."""
    return {str(path): file_sha256(path) for path in paths if path is not None}

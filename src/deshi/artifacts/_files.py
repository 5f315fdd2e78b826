"""Reading and writing of artifacts' files: JSON, tables, arrays, tensors. A damaged file is an error that names it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from deshi.artifacts._atomic import atomic_file, system_error
from deshi.types import DeshiError

if TYPE_CHECKING:
    import polars as pl

AGAIN = "Run the stage again that writes it."


class JsonObject(dict[str, Any]):
    """An object of a JSON file; a missing key is a :class:`DeshiError` that names the file."""

    def __init__(self, content: Mapping[str, Any], path: Path) -> None:
        super().__init__(content)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise DeshiError(f"{self._path} lacks {key}: it is damaged or of another version. {AGAIN}")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON artifact; its objects are :class:`JsonObject`.

    Raises:
        DeshiError: if the file is missing or isn't JSON, and later for a missing key.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_hook=lambda content: JsonObject(content, path))
    except FileNotFoundError as error:
        raise DeshiError(f"{path} does not exist. Run the stage that writes it, or check the path.") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DeshiError(f"{path} is not valid JSON ({error}). Delete it and run its stage again.") from error


def write_parquet(frame: pl.DataFrame | pl.LazyFrame, path: Path, **options: Any) -> None:
    """Write a table, atomically, a lazy one in a stream; ``options`` are those of Polars."""
    from polars.exceptions import PolarsError

    with atomic_file(path) as temporary:
        try:
            frame.lazy().sink_parquet(temporary, engine="streaming", **options)
        except PolarsError as error:
            raise system_error(error, path) from error


def read_parquet(path: Path, columns: Iterable[str] = (), remedy: str = AGAIN) -> pl.DataFrame:
    """Read a table that deshi has written; its path is taken as it is, whatever signs it has.

    Args:
        path: the file.
        columns: that must be there.
        remedy: what the user can do about a damaged file.

    Raises:
        DeshiError: if the file is missing or damaged, or lacks a column.
    """
    import polars as pl

    try:
        frame = pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DeshiError(f"{path} can't be read ({error}). {remedy}") from error
    if lacking := [name for name in columns if name not in frame.columns]:
        raise DeshiError(f"{path} lacks {', '.join(lacking)}. {remedy}")
    return frame


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as ``.npy``, atomically."""
    with atomic_file(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, array, allow_pickle=False)


def read_array(path: Path, remedy: str = AGAIN) -> NDArray[Any]:
    """Map an array that deshi has written.

    Raises:
        DeshiError: if the file is missing or damaged.
    """
    try:
        return cast("NDArray[Any]", np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise DeshiError(f"{path} can't be read ({error}). {remedy}") from error


def write_tensors(tensors: Mapping[str, Any], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write PyTorch's tensors or numpy's arrays to a safetensors file, atomically."""
    from safetensors import SafetensorError

    numpy = all(isinstance(tensor, np.ndarray) for tensor in tensors.values())
    save_file = import_module("safetensors.numpy" if numpy else "safetensors.torch").save_file
    with atomic_file(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=metadata)
        except SafetensorError as error:
            raise system_error(error, path) from error


def read_tensors(path: Path, framework: Literal["torch", "numpy"] = "torch", remedy: str = AGAIN) -> dict[str, Any]:
    """Read a safetensors file that deshi has written.

    Raises:
        DeshiError: if the file is missing or damaged.
    """
    from safetensors import SafetensorError

    try:
        return cast("dict[str, Any]", import_module(f"safetensors.{framework}").load_file(path))
    except (SafetensorError, OSError) as error:
        raise DeshiError(f"{path} can't be read ({error}). {remedy}") from error

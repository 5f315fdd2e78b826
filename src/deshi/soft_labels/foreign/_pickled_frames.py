"""Data frames that pandas pickled, read by a restricted unpickler; neither pandas nor any code of the file is run.

``pickle.load`` imports and calls what a file names. Here only the names in :data:`NAMES` are known, as in the pattern
of Python's documentation, and each stands for a function or class of this module. numpy's and pandas' own constructors
aren't called either, because they trust a pickle: a data type whose state hides that it holds objects, or a block at a
place outside its frame, lets a file write into memory that isn't its own.
"""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deshi.types import DeshiError

DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|O8?)")
"""The data types that frames may hold: booleans, numbers and Python objects."""

DAMAGE = (
    pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ImportError, EOFError,
    OverflowError, MemoryError,
)  # fmt: skip
"""What unpickling a damaged file may raise."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A data frame.

    Attributes:
        columns: from each name to its ``(M,)`` array.
        index: the ``M`` row labels.
    """

    columns: dict[str, np.ndarray]
    index: range | np.ndarray


class RefusedError(Exception):
    """Content that a frame doesn't need; the message completes "the file is refused because"."""


class _Name:
    """A class that stands in a file only as an argument, such as ``pandas.Index``; its own arguments are forgotten."""

    def __init__(self, *args: Any) -> None:
        pass


class _DType:
    """``numpy.dtype``: of its state only the byte order counts."""

    def __init__(self, text: Any, *flags: Any) -> None:
        if not isinstance(text, str) or not DTYPE.fullmatch(text):
            raise RefusedError(f"it holds numpy's type {text!a}, expected numbers, booleans or objects")
        self.plain = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.plain = self.plain.newbyteorder(state[1])


class _Array:
    """``numpy.ndarray``, and pandas' array of texts: empty until its state is set."""

    values: np.ndarray

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state[0], int):
            _, shape, dtype, fortran, data = state
            self.values = _array(data, dtype, shape, "F" if fortran else "C")
        else:
            (self.values,) = (_values(part) for part in state if isinstance(part, (_Array, np.ndarray)))


def _array(data: Any, dtype: _DType, shape: tuple[int, ...], order: Any) -> np.ndarray:
    """An array of the numbers in a buffer, or of the objects in a list."""
    if not isinstance(data, list):
        return np.frombuffer(data, dtype.plain).reshape(shape, order=order)
    if dtype.plain.kind != "O":
        raise RefusedError(f"it holds a list of objects as {dtype.plain}")
    flat = np.empty(len(data), dtype=object)
    flat[:] = [_values(entry) if isinstance(entry, _Array) else entry for entry in data]
    return flat.reshape(shape, order=order)


def _values(array: Any) -> np.ndarray:
    values = array.values if isinstance(array, _Array) else array
    if not isinstance(values, np.ndarray):
        raise RefusedError(f"it holds a {type(values).__name__} where an array was expected")
    return values


def _scalar(dtype: _DType, data: bytes) -> Any:
    return np.frombuffer(data, dtype.plain)[0].item()


def _latin1(text: str, codec: str) -> bytes:
    """``_codecs.encode``, by which protocol 2 writes bytes."""
    return text.encode("latin1")


def _index(kind: Any, state: Any) -> range | np.ndarray:
    """``pandas.core.indexes.base._new_Index``: row labels or column names."""
    return range(state["start"], state["stop"], state["step"]) if "start" in state else _values(state["data"])


def _block(values: Any, placement: Any, *ndim: Any) -> tuple[Any, Any]:
    """``_unpickle_block``: columns of one data type, and their numbers in the frame."""
    return values, placement


class _Manager:
    """``BlockManager``: a frame's blocks and its axes, by its arguments since pandas 1.3 and by its state before."""

    def __init__(self, blocks: Any = (), axes: Any = ()) -> None:
        self.blocks, self.axes = blocks, axes

    def __setstate__(self, state: Any) -> None:
        content = state[3]["0.14.1"]
        self.axes = content["axes"]
        self.blocks = [(block["values"], block["mgr_locs"]) for block in content["blocks"]]


class _DataFrame:
    """``pandas.DataFrame``."""

    manager: _Manager

    def __setstate__(self, state: Any) -> None:
        self.manager = state.get("_mgr", state.get("_data"))

    def frame(self) -> Frame:
        """The columns by their names, checked to be complete and of one length."""
        names, labels = self.manager.axes
        columns: dict[int, np.ndarray] = {}
        for values, places in self.manager.blocks:
            numbers = range(len(names))[places] if isinstance(places, slice) else _values(places).tolist()
            columns |= dict(zip(numbers, np.atleast_2d(_values(values)), strict=True))
        if sorted(columns) != list(range(len(names))) or any(len(column) != len(labels) for column in columns.values()):
            raise RefusedError(f"its blocks don't make up {len(names)} columns of {len(labels)} rows")
        return Frame({str(name): columns[number] for number, name in enumerate(names)}, labels)


_INDEXES = ("Index", "RangeIndex", "Int64Index", "UInt64Index", "Float64Index", "NumericIndex")
_TEXTS = ("StringArray", "StringArrayNumpySemantics", "StringDtype")

NAMES: dict[tuple[str, str], Any] = {
    **{(f"{module}.multiarray", "_reconstruct"): _Array for module in ("numpy.core", "numpy._core")},
    **{(f"{module}.multiarray", "scalar"): _scalar for module in ("numpy.core", "numpy._core")},
    **{(f"{module}.numeric", "_frombuffer"): _array for module in ("numpy.core", "numpy._core")},
    **{(f"pandas{module}", name): _Name for module in ("", ".arrays", ".core.arrays.string_") for name in _TEXTS},
    **{
        (f"pandas{module}", name): _Name
        for module in ("", ".core.indexes.base", ".core.indexes.range", ".core.indexes.numeric")
        for name in _INDEXES
    },
    **{(f"pandas.core.internals{module}", "BlockManager"): _Manager for module in ("", ".managers")},
    **{(f"pandas{module}", "DataFrame"): _DataFrame for module in ("", ".core.frame")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _latin1,
    ("builtins", "slice"): slice,
    ("__builtin__", "slice"): slice,
    ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"): _Array,
    ("pandas._libs.internals", "_unpickle_block"): _block,
    ("pandas.core.internals.blocks", "new_block"): _block,
    ("pandas.core.indexes.base", "_new_Index"): _index,
}
"""Every module and name that may stand in a file, and what it stands for."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NAMES:
            raise RefusedError(
                f"it names {f'{module}.{name}'[:200]!a}, which a frame of numbers and texts doesn't need"
            )
        return NAMES[module, name]


def read_pickled_frame(path: Path) -> Frame:
    """Read a data frame that ``DataFrame.to_pickle`` wrote, with pandas 0.25 to 3 (texts in pyarrow excepted).

    A hostile file can't run code, but it can take much memory, or time, or end the process.

    Raises:
        DeshiError: if the file is missing or damaged, names anything else than a frame needs, or is no frame.
    """
    try:
        with path.open("rb") as file:
            content = _Unpickler(file).load()
        if not isinstance(content, _DataFrame):
            raise RefusedError(f"it holds a {type(content).__name__.lstrip('_')}, expected a pandas.DataFrame")
        return content.frame()
    except OSError as error:
        raise DeshiError(f"{path} can't be read ({error.strerror or error}). Check the path.") from error
    except RefusedError as error:
        raise _refusal(path, str(error)) from error
    except DAMAGE as error:
        raise _refusal(path, f"it is damaged or no pickle ({type(error).__name__}: {error})") from error


def _refusal(path: Path, reason: str) -> DeshiError:
    return DeshiError(
        f"{path} is refused because {reason}. Nothing of it was executed. If you trust it, write it as parquet where "
        f"pandas can read it: pandas.read_pickle({path.name!r}).to_parquet({path.stem + '.parquet'!r})."
    )

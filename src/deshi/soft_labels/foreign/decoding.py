"""What a machine's records mean: Python containers, numpy arrays, and pandas frames without pandas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from deshi.soft_labels.foreign import arrow_records, numpy_records
from deshi.soft_labels.foreign.machine import Named, Record
from deshi.soft_labels.foreign.numpy_records import state
from deshi.types import DeshiError

DEPTH = 64
"""Containers may be nested so deep: data are not, and a loop would never end."""

PLAIN = (str, int, float, bool, bytes, type(None), complex)

_INDEXES = ("Index", "RangeIndex", "Int64Index", "UInt64Index", "Float64Index", "NumericIndex")
_INDEX_MODULES = ("pandas", "pandas.core.indexes.base", "pandas.core.indexes.range", "pandas.core.indexes.numeric")

PANDAS = (
    {
        ("pandas", "DataFrame"): "frame",
        ("pandas.core.frame", "DataFrame"): "frame",
        ("pandas", "Series"): "series",
        ("pandas.core.series", "Series"): "series",
        ("pandas.core.internals", "BlockManager"): "manager",
        ("pandas.core.internals", "SingleBlockManager"): "manager",
        ("pandas.core.internals.managers", "BlockManager"): "manager",
        ("pandas.core.internals.managers", "SingleBlockManager"): "manager",
        ("pandas._libs.internals", "_unpickle_block"): "block",
        ("pandas.core.internals.blocks", "new_block"): "block",
        ("pandas.core.indexes.base", "_new_Index"): "new_index",
        ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"): "backed",
        ("pandas", "StringDtype"): "string_type",
        ("pandas.core.arrays.string_", "StringDtype"): "string_type",
        ("pandas.arrays", "StringArray"): "backed_class",
        ("pandas.core.arrays.string_", "StringArray"): "backed_class",
        ("pandas.core.arrays.string_", "StringArrayNumpySemantics"): "backed_class",
        ("pandas.arrays", "DatetimeArray"): "backed_class",
        ("pandas.core.arrays.datetimes", "DatetimeArray"): "backed_class",
        ("pandas.arrays", "ArrowStringArray"): "arrow_strings",
        ("pandas.core.arrays.string_arrow", "ArrowStringArray"): "arrow_strings",
        ("pandas.core.arrays.string_arrow", "ArrowStringArrayNumpySemantics"): "arrow_strings",
    }
    | {(module, name): "index_class" for module in _INDEX_MODULES for name in _INDEXES}
    | arrow_records.ARROW
)

BUILTINS = {("collections", "OrderedDict"): "mapping", ("collections", "defaultdict"): "mapping"} | {
    (module, name): kind
    for module in ("builtins", "__builtin__")
    for name, kind in (
        ("slice", "slice"), ("set", "set"), ("frozenset", "set"), ("bytearray", "bytearray"), ("bytes", "bytearray"),
        ("list", "factory"), ("dict", "factory"), ("int", "factory"), ("float", "factory"), ("str", "factory"),
    )
}  # fmt: skip

ALLOWED = numpy_records.NUMPY | PANDAS | BUILTINS
"""Every name that may stand in a pickle, and the kind of its records."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A table as pandas had it.

    Attributes:
        columns: from each name to its ``(M,)`` array; a series has one column.
        index: the ``M`` row labels: a range or an array.
    """

    columns: dict[str, np.ndarray]
    index: range | np.ndarray

    def __len__(self) -> int:
        return len(self.index)


class Decoder:
    """Turns one machine's result into values. A record or container that is used twice is decoded once."""

    def __init__(self) -> None:
        self.done: dict[int, Any] = {}
        self.depth = 0

    def decode(self, value: Any) -> Any:
        """The value that a description stands for.

        Raises:
            DeshiError: for a description that makes no sense; its message wants the file's name before it.
        """
        if isinstance(value, PLAIN):
            return value
        if id(value) not in self.done:
            self.depth += 1
            if self.depth > DEPTH:
                raise DeshiError(f"it is nested more than {DEPTH} deep, or holds itself")
            self.done[id(value)] = self._decode(value)
            self.depth -= 1
        return self.done[id(value)]

    def _decode(self, value: Any) -> Any:
        if isinstance(value, Record):
            maker = MAKERS.get(value.kind)
            if maker is None:
                raise DeshiError(f"{value.name} stands where data were expected")
            return maker(self, value)
        if isinstance(value, Named):
            raise DeshiError(f"it holds {value.name} itself, expected data")
        if isinstance(value, dict):
            return {self.decode(key): self.decode(entry) for key, entry in value.items()}
        if isinstance(value, bytearray):
            return bytes(value)
        if all(type(entry) in PLAIN for entry in value):
            return value
        return type(value)(self.decode(entry) for entry in value)

    def mapping(self, record: Record) -> dict[Any, Any]:
        """An ordered or default dict, as a plain dict; its factory is forgotten."""
        args = [entry for entry in record.args if not isinstance(entry, Named) and entry is not None]
        pairs = list(record.pairs)
        if args and isinstance(args[0], list):
            pairs = [tuple(pair) for pair in args[0] if isinstance(pair, (list, tuple)) and len(pair) == 2] + pairs
        elif args and isinstance(args[0], dict):
            pairs = list(args[0].items()) + pairs
        return {self.decode(key): self.decode(entry) for key, entry in pairs}

    def set(self, record: Record) -> set[Any]:
        """A set that an old protocol wrote as a call with a list."""
        if record.args and not isinstance(record.args[0], (list, tuple)):
            raise DeshiError(f"{record.name} is called with a {type(record.args[0]).__name__}, expected a list")
        return {self.decode(entry) for entry in (record.args[0] if record.args else ())}

    def backed(self, record: Record) -> np.ndarray:
        """Texts and times of pandas: the one array in the state."""
        found = [part for part in state(record, 1) if isinstance(part, Record) and part.kind in ("array", "frombuffer")]
        if len(found) != 1:
            raise DeshiError(f"{record.name} holds {len(found)} arrays, expected 1")
        return np.asarray(self.decode(found[0]))

    def arrow_strings(self, record: Record) -> np.ndarray:
        """Texts of pandas 3 in pyarrow's buffers."""
        content = state(record)
        found = content if isinstance(content, dict) else {}
        return arrow_records.texts(found.get("_pa_array", found.get("_data")))

    def slice(self, record: Record) -> range:
        """Where a block's columns go."""
        if not 1 <= len(record.args) <= 3 or not all(type(part) in (int, type(None)) for part in record.args):
            raise DeshiError("a slice has other bounds than whole numbers")
        found = slice(*record.args)
        return range(found.start or 0, found.stop or 0, found.step or 1)

    def index(self, record: Record) -> range | np.ndarray:
        """Row labels or column names."""
        content = record.args[1] if len(record.args) == 2 else None
        if not isinstance(content, dict) or not isinstance(record.args[0], Named):
            raise DeshiError(f"{record.name} has arguments of another form than expected")
        if "start" in content:
            start, stop, step = content["start"], content.get("stop"), content.get("step")
            if type(start) is not int or type(stop) is not int or type(step) is not int or step == 0:
                raise DeshiError("a range of row labels has other bounds than whole numbers")
            return range(start, stop, step)
        labels = self.decode(content.get("data"))
        if not isinstance(labels, np.ndarray) or labels.ndim != 1:
            raise DeshiError("row labels or column names are no simple list (a MultiIndex: reset_index() first)")
        return labels

    def frame(self, record: Record) -> Frame:
        """A data frame, from its blocks."""
        (names, labels), blocks = self._manager(record, 2)
        columns: dict[int, np.ndarray] = {}
        for values, places in blocks:
            table = values if values.ndim == 2 else values[None]
            if len(places) != len(table) or table.shape[1] != len(labels) or set(places) & set(columns):
                raise DeshiError(f"a block has the shape {table.shape}, expected ({len(places)}, {len(labels)})")
            columns |= dict(zip(places, table, strict=True))
        if (
            len(columns) != len(names)
            or sorted(columns) != list(range(len(names)))
            or len(set(map(str, names))) != len(names)
        ):
            raise DeshiError(f"{len(columns)} columns have values, expected {len(names)} with different names")
        return Frame({str(name): columns[place] for place, name in enumerate(names)}, labels)

    def series(self, record: Record) -> Frame:
        """A series, as a frame of one column."""
        (labels,), blocks = self._manager(record, 1)
        if len(blocks) != 1 or blocks[0][0].shape != (len(labels),):
            raise DeshiError(f"a series has {len(blocks)} blocks, expected 1 with {len(labels)} values")
        content = state(record)
        name = content.get("_name", content.get("name"))
        return Frame({str(name if name is not None else "values"): blocks[0][0]}, labels)

    def _manager(self, record: Record, n_axes: int) -> tuple[list[Any], list[tuple[np.ndarray, list[int]]]]:
        """The axes, and each block's values with the columns that they belong to."""
        content = state(record)
        manager = content.get("_mgr", content.get("_data")) if isinstance(content, dict) else None
        if not isinstance(manager, Record) or manager.kind != "manager":
            raise DeshiError(f"{record.name} has no blocks where they were expected")
        axes, blocks = _new_form(manager) if manager.args else _old_form(manager)
        if len(axes) != n_axes or not all(isinstance(axis, Record) and axis.kind == "new_index" for axis in axes):
            raise DeshiError(f"{record.name} has {len(axes)} axes, expected {n_axes}")
        return [self.decode(axis) for axis in axes], [self._block(values, places) for values, places in blocks]

    def _block(self, values: Any, places: Any) -> tuple[np.ndarray, list[int]]:
        found, where = self.decode(values), self.decode(places)
        if not isinstance(found, np.ndarray) or found.ndim not in (1, 2):
            raise DeshiError("a block of a frame holds no array (categories and the like: astype(str) before saving)")
        if len(where) > max(len(found), 1):
            raise DeshiError(f"a block of {len(found)} columns has {len(where)} places")
        return found, [int(place) for place in where]


def _new_form(manager: Record) -> tuple[list[Any], list[tuple[Any, Any]]]:
    """``BlockManager(blocks, axes)``, since pandas 1.3."""
    if len(manager.args) < 2 or not isinstance(manager.args[0], (tuple, list)) or not isinstance(manager.args[1], list):
        raise DeshiError(f"{manager.name} has arguments of another form than expected")
    blocks = [block for block in manager.args[0] if isinstance(block, Record) and block.kind == "block"]
    if len(blocks) != len(manager.args[0]) or not all(len(block.args) >= 2 for block in blocks):
        raise DeshiError(f"{manager.name} holds blocks of another form than expected")
    return manager.args[1], [(block.args[0], block.args[1]) for block in blocks]


def _old_form(manager: Record) -> tuple[list[Any], list[tuple[Any, Any]]]:
    """A state whose fourth entry is ``{"0.14.1": {"axes": ..., "blocks": [...]}}``, before pandas 1.3."""
    extra = state(manager, 4)[3]
    content = extra.get("0.14.1") if isinstance(extra, dict) else None
    if not isinstance(content, dict) or not isinstance(content.get("axes"), list):
        raise DeshiError(f"{manager.name} has a state of another form than expected")
    blocks = content.get("blocks")
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise DeshiError(f"{manager.name} holds blocks of another form than expected")
    return content["axes"], [(block.get("values"), block.get("mgr_locs")) for block in blocks]


MAKERS: dict[str, Callable[[Decoder, Record], Any]] = {
    "array": lambda decoder, record: numpy_records.array(record, decoder.decode),
    "frombuffer": lambda decoder, record: numpy_records.frombuffer(record, decoder.decode),
    "scalar": lambda decoder, record: numpy_records.scalar(record),
    "latin1": lambda decoder, record: numpy_records.raw(record),
    "bytearray": lambda decoder, record: numpy_records.raw(record),
    "mapping": Decoder.mapping,
    "set": Decoder.set,
    "slice": Decoder.slice,
    "backed": Decoder.backed,
    "arrow_strings": Decoder.arrow_strings,
    "new_index": Decoder.index,
    "frame": Decoder.frame,
    "series": Decoder.series,
}
"""What makes each kind's value; the other kinds are only parts of these."""

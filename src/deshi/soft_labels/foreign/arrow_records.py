"""Texts of pandas 3 that lie in pyarrow's buffers, read from the buffers' bytes without pyarrow."""

from __future__ import annotations

from typing import Any

import numpy as np

from deshi.soft_labels.foreign.machine import Record
from deshi.soft_labels.foreign.numpy_records import raw
from deshi.types import DeshiError

ARROW = {
    ("pyarrow.lib", "_restore_array"): "arrow_array",
    ("pyarrow.lib", "chunked_array"): "arrow_chunks",
    ("pyarrow.lib", "py_buffer"): "arrow_buffer",
    ("pyarrow.lib", "type_for_alias"): "arrow_type",
}
OFFSETS = {"string": "<i4", "large_string": "<i8"}


def texts(value: Any) -> np.ndarray:
    """An object array of str and None, from a record of one arrow array or of chunks of it."""
    if isinstance(value, Record) and value.kind == "arrow_chunks" and value.args and isinstance(value.args[0], list):
        parts = [texts(chunk) for chunk in value.args[0]]
        return np.concatenate(parts) if parts else np.empty(0, dtype=object)
    if not isinstance(value, Record) or value.kind != "arrow_array" or len(value.args) != 1:
        raise DeshiError("a column of pyarrow has an unknown form, expected texts")
    content = value.args[0]
    if not isinstance(content, tuple) or len(content) != 7:
        raise DeshiError("a column of pyarrow has an unknown form, expected 7 values")
    kind, length, _, offset, buffers, children, dictionary = content
    if children or dictionary is not None or not isinstance(buffers, list) or len(buffers) != 3:
        raise DeshiError("a column of pyarrow is nested or a dictionary, expected texts")
    if type(length) is not int or type(offset) is not int or length < 0 or offset < 0:
        raise DeshiError("a column of pyarrow has an impossible length")
    valid, bounds, data = (_buffer(buffer) for buffer in buffers)
    return _split(_bounds(bounds, _type(kind), offset, length), data, _valid(valid, offset, length))


def _type(value: Any) -> np.dtype[Any]:
    name = value.args[0] if isinstance(value, Record) and value.kind == "arrow_type" and value.args else None
    if not isinstance(name, str) or name not in OFFSETS:
        raise DeshiError(f"a column of pyarrow holds {str(name)[:40]!a}, expected texts")
    return np.dtype(OFFSETS[name])


def _buffer(value: Any) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, Record) or value.kind != "arrow_buffer" or len(value.args) != 1:
        raise DeshiError("a column of pyarrow has an unknown buffer")
    return raw(value.args[0])


def _bounds(buffer: bytes | None, kind: np.dtype[Any], offset: int, length: int) -> np.ndarray:
    """Where each text begins, and where the last one ends."""
    if length == 0:
        return np.zeros(1, dtype=np.int64)
    places = np.frombuffer(buffer or b"", dtype=kind, count=len(buffer or b"") // kind.itemsize)
    found = places[offset : offset + length + 1].astype(np.int64)
    if len(found) != length + 1 or found[0] < 0 or (np.diff(found) < 0).any():
        raise DeshiError(f"a column of pyarrow has bounds for {len(found) - 1} texts, expected {length}")
    return found


def _valid(buffer: bytes | None, offset: int, length: int) -> np.ndarray:
    if buffer is None:
        return np.ones(length, dtype=bool)
    bits = np.unpackbits(np.frombuffer(buffer, dtype=np.uint8), bitorder="little")[offset : offset + length]
    if len(bits) != length:
        raise DeshiError(f"a column of pyarrow says of {len(bits)} texts whether they exist, expected {length}")
    return bits.astype(bool)


def _split(bounds: np.ndarray, data: bytes | None, valid: np.ndarray) -> np.ndarray:
    data = data or b""
    if bounds[-1] > len(data):
        raise DeshiError(f"texts of pyarrow end at byte {bounds[-1]}, expected at most {len(data)}")
    found = np.empty(len(valid), dtype=object)
    for place, exists in enumerate(valid):
        found[place] = data[bounds[place] : bounds[place + 1]].decode("utf-8", "replace") if exists else None
    return found

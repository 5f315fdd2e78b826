"""What numpy leaves in a pickle, rebuilt from its description without numpy's own unpickling."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from deshi.soft_labels.foreign.machine import Named, Record
from deshi.types import DeshiError

DTYPE = re.compile(r"[biufcOUSMm]\d+")
UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns")

NUMPY = {
    ("numpy", "dtype"): "dtype",
    ("numpy", "ndarray"): "ndarray",
    ("_codecs", "encode"): "latin1",
} | {
    (f"numpy.{core}.{module}", name): kind
    for core in ("core", "_core")
    for module, name, kind in (
        ("multiarray", "_reconstruct", "array"),
        ("multiarray", "scalar", "scalar"),
        ("numeric", "_frombuffer", "frombuffer"),
    )
}
"""numpy's names in a pickle, before and after numpy 2."""

Decode = Callable[[Any], Any]


def state(record: Record, length: int | None = None) -> Any:
    """The one state that was set on a record.

    Raises:
        DeshiError: if there is none, several, or a tuple that is shorter than ``length``.
    """
    if len(record.states) != 1:
        raise DeshiError(f"{record.name} has its state set {len(record.states)} times, expected once")
    found = record.states[0]
    if length is not None and (not isinstance(found, tuple) or len(found) < length):
        raise DeshiError(f"{record.name} has a state of another form than expected ({length} values)")
    return found


def dtype(value: Any) -> np.dtype[Any]:
    """A data type: numbers, text, times or objects; nothing structured, which could hide objects."""
    if not isinstance(value, Record) or value.kind != "dtype":
        raise DeshiError("an array has something else than a numpy.dtype for its data type")
    code = value.args[0] if value.args else None
    if not isinstance(code, str) or not DTYPE.fullmatch(code):
        raise DeshiError(f"the data type {str(code)[:40]!a} is not one of numbers, text, times and objects")
    if not value.states:
        return np.dtype(code)
    _, order, subtype, names, fields, *rest = state(value, 8)
    if subtype is not None or names is not None or fields is not None or order not in ("<", ">", "|", "="):
        raise DeshiError(f"the data type {code!a} has fields or an odd byte order, expected a plain one")
    unit = f"[{_unit(rest)}]" if code[0] in "Mm" else ""
    try:
        return np.dtype(f"{order if order in '<>' else '='}{code}{unit}")
    except TypeError as error:
        raise DeshiError(f"the data type {code!a} is unknown ({error})") from error


def _unit(rest: list[Any]) -> str:
    """The unit of a time, from the metadata at a state's end: ``({}, (unit, 1, 1, 1))``."""
    found = rest[3][1] if len(rest) > 3 and isinstance(rest[3], tuple) and len(rest[3]) > 1 else ()
    unit = raw(found[0]).decode("latin1") if isinstance(found, tuple) and len(found) > 1 and found[1] == 1 else ""
    if unit not in UNITS:
        raise DeshiError(f"times are in the unit {unit[:20]!a}, expected one of {', '.join(UNITS)}")
    return unit


def raw(value: Any) -> bytes:
    """Bytes, also as old protocols write them: as text to be encoded as latin-1."""
    if isinstance(value, Record) and value.kind == "latin1":
        if len(value.args) != 2 or value.args[1] != "latin1" or not isinstance(value.args[0], str):
            raise DeshiError(f"{value.name} is called with something else than text and latin1")
        value = value.args[0]
    if isinstance(value, Record) and value.kind == "bytearray" and len(value.args) <= 2:
        value = raw(value.args[0]) if value.args else b""
    if isinstance(value, str):
        try:
            value = value.encode("latin1")
        except UnicodeEncodeError as error:
            raise DeshiError("bytes are written as text that isn't latin-1") from error
    if not isinstance(value, (bytes, bytearray)):
        raise DeshiError(f"bytes were expected, got a {type(value).__name__}")
    return bytes(value)


def array(record: Record, decode: Decode) -> np.ndarray:
    """An array that was written by ``_reconstruct`` and a state ``(version, shape, dtype, order, content)``."""
    made = record.args[0] if record.args else None
    if not isinstance(made, Named) or made.kind != "ndarray":
        raise DeshiError("an array is of another class than numpy.ndarray")
    _, shape, kind, fortran, content = state(record, 5)[:5]
    return filled(content, dtype(kind), shape, "F" if fortran else "C", decode)


def frombuffer(record: Record, decode: Decode) -> np.ndarray:
    """An array that was written by ``_frombuffer(bytes, dtype, shape, order)``."""
    if len(record.args) != 4:
        raise DeshiError(f"{record.name} has {len(record.args)} arguments, expected 4")
    content, kind, shape, order = record.args
    return filled(content, dtype(kind), shape, "F" if order == "F" else "C", decode)


def scalar(record: Record) -> Any:
    """A numpy number; objects in scalars are refused."""
    kind = dtype(record.args[0] if record.args else None)
    if kind.hasobject or len(record.args) != 2:
        raise DeshiError("a numpy scalar holds an object, expected a number or text")
    return filled(record.args[1], kind, (), "C", lambda value: value)[()]


def filled(content: Any, kind: np.dtype[Any], shape: Any, order: str, decode: Decode) -> np.ndarray:
    """An array of a stated shape, if the content has exactly its size."""
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 8:
        raise DeshiError(f"an array has the shape {str(shape)[:60]!a}, expected up to 8 sizes")
    count = math.prod(shape)
    if kind.hasobject:
        if not isinstance(content, list) or len(content) != count:
            got = len(content) if isinstance(content, list) else type(content).__name__
            raise DeshiError(f"an array of objects holds {got} values, expected {count} for the shape {shape}")
        values = np.empty(count, dtype=object)
        for place, value in enumerate(content):
            values[place] = decode(value)
        return values.reshape(shape, order=order)  # type: ignore[call-overload]
    data = raw(content)
    if not kind.itemsize or len(data) != count * kind.itemsize:
        raise DeshiError(f"an array holds {len(data)} bytes, expected {count * kind.itemsize} for {kind}{shape}")
    if not count:
        return np.empty(shape, dtype=kind)
    return np.frombuffer(data, dtype=kind).reshape(shape, order=order).copy()  # type: ignore[call-overload]

"""Tensors and arrays from elsewhere: torch's ``.pt`` and numpy's ``.npy``, read without running what is in them."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deshi.artifacts import atomic_file
from deshi.soft_labels.foreign.decoding import BUILTINS
from deshi.soft_labels.foreign.machine import Machine, Named, Record
from deshi.soft_labels.foreign.unpickle import LIMIT
from deshi.types import DeshiError

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "BoolStorage": torch.bool,
}
ALLOWED = (
    BUILTINS
    | {("torch._utils", "_rebuild_tensor_v2"): "tensor", ("torch._utils", "_rebuild_parameter"): "parameter"}
    | {("torch", name): "storage_class" for name in STORAGES}
)
"""What may stand in a ``.pt`` file: tensors, parameters, and Python's containers."""

WHOLE_MODEL = "If it holds a whole model, which is code, save its tensors alone: torch.save(model.state_dict(), path)."


def read_tensor(path: Path | str, limit: int = LIMIT) -> Tensor:
    """Read the one tensor of a file of ``torch.save``, on the CPU.

    Raises:
        DeshiError: as :func:`read_tensors`, or if the file holds something else than one tensor.
    """
    found = read_tensors(path, limit)
    if isinstance(found, dict) and len(found) == 1:
        found = next(iter(found.values()))
    if not isinstance(found, Tensor):
        what = f"{len(found)} entries" if isinstance(found, (dict, list, tuple)) else type(found).__name__
        raise DeshiError(f"{path} holds {what}, expected one tensor. Save the tensor alone: torch.save(tensor, path).")
    return found


def read_tensors(path: Path | str, limit: int = LIMIT) -> Any:
    """Read a file of ``torch.save`` (the zip form, torch 1.6 and later) with tensors in Python's containers.

    Args:
        path: the file.
        limit: bytes of memory that the file and what it describes may take.

    Raises:
        DeshiError: if it is missing, damaged, compressed, too large, of the form before torch 1.6, or names anything
            but tensors and plain containers.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _Archive(path, archive, limit).read()
    except zipfile.BadZipFile as error:
        raise DeshiError(
            f"{path} is no zip file, expected one of torch.save (torch 1.6 or later; {error}). "
            "Load it where it was written and save the tensor again, or use numpy.save."
        ) from error
    except OSError as error:
        raise DeshiError(f"{path} can't be read ({error.strerror or error}). Check the path.") from error


class _Archive:
    """The zip file of ``torch.save``: a pickle ``data.pkl`` and one raw file a storage."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, limit: int) -> None:
        self.path, self.archive, self.limit = path, archive, limit
        self.machine = Machine(path, ALLOWED, limit, persistent="storage")
        self.storages: dict[str, Tensor] = {}
        self.done: dict[int, Any] = {}
        self.taken = 0

    def read(self) -> Any:
        entries = self.archive.infolist()
        size = sum(entry.file_size for entry in entries)
        if size > self.limit:
            raise self.machine.error(
                f"it holds {size:,} bytes, expected at most {self.limit:,}", "Raise limit if right."
            )
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise self.machine.error("it is compressed, which torch.save never does")
        pickles = [entry.filename for entry in entries if entry.filename.split("/")[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise self.machine.error(f"it has {len(pickles)} files data.pkl, expected 1")
        self.folder = pickles[0].removesuffix("data.pkl")
        if self._bytes("byteorder", b"little").strip() != b"little":
            raise self.machine.error("it was written on a big-endian machine")
        described = self._described(self._bytes("data.pkl"))
        return self.value(described)

    def _described(self, data: bytes) -> Any:
        try:
            return self.machine.run(data)
        except DeshiError as error:
            raise DeshiError(f"{error} {WHOLE_MODEL}") from error

    def _bytes(self, name: str, default: bytes | None = None) -> bytes:
        try:
            return self.archive.read(self.folder + name)
        except (KeyError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            if default is not None and isinstance(error, KeyError):
                return default
            raise self.machine.error(f"its part {name} is missing or damaged ({error})") from error

    def value(self, described: Any, depth: int = 0) -> Any:
        """Tensors in place of their records; what is used twice is made once."""
        if depth > 16:
            raise self.machine.error("it is nested more than 16 deep, or holds itself")
        if not isinstance(described, (Record, dict, list, tuple)):
            return self._other(described)
        if id(described) not in self.done:
            self.done[id(described)] = self._value(described, depth)
        return self.done[id(described)]

    def _value(self, described: Any, depth: int) -> Any:
        if isinstance(described, Record):
            return self._record(described, depth)
        if isinstance(described, dict):
            return {key: self.value(entry, depth + 1) for key, entry in described.items()}
        return type(described)(self.value(entry, depth + 1) for entry in described)

    def _other(self, described: Any) -> Any:
        if isinstance(described, (Named, set, frozenset)):
            raise self.machine.error(f"it holds a {type(described).__name__} where tensors were expected")
        return described

    def _record(self, record: Record, depth: int) -> Any:
        if record.kind == "parameter" and record.args:
            return self.value(record.args[0], depth + 1)
        if record.kind == "mapping":
            return {key: self.value(entry, depth + 1) for key, entry in record.pairs}
        if record.kind != "tensor" or len(record.args) < 4:
            raise self.machine.error(f"it holds {record.name} where tensors were expected")
        storage, offset, shape, strides = record.args[:4]
        return self._tensor(self._storage(storage), offset, shape, strides)

    def _tensor(self, storage: Tensor, offset: Any, shape: Any, strides: Any) -> Tensor:
        """A tensor that lies within its storage and isn't larger than it: an expanded one would fill the memory."""
        numbers = (offset, *shape, *strides) if isinstance(shape, tuple) and isinstance(strides, tuple) else (None,)
        if not all(type(number) is int and 0 <= number < 1 << 40 for number in numbers) or len(shape) != len(strides):
            raise self.machine.error("a tensor has an impossible shape")
        count = math.prod(shape)
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) if count else 0
        if count and (last >= storage.numel() or count > storage.numel()):
            raise self.machine.error(f"a tensor of shape {shape} has a storage of {storage.numel()} values, too few")
        if not count:
            return storage.new_empty(shape)
        self.taken += count * storage.element_size()
        if self.taken > self.limit:
            raise self.machine.error(f"its tensors would take more than {self.limit:,} bytes", "Raise limit if right.")
        return storage.as_strided(shape, strides, offset).contiguous()

    def _storage(self, record: Any) -> Tensor:
        """``("storage", class, key, device, count)``: the values of one raw file."""
        content = record.args[0] if isinstance(record, Record) and record.kind == "storage" else None
        if not isinstance(content, tuple) or len(content) != 5 or not isinstance(content[1], Named):
            raise self.machine.error("a tensor has no storage of the expected form")
        _, made, key, _, count = content
        kind = STORAGES.get(made.name.rpartition(".")[2])
        if kind is None or not isinstance(key, str) or type(count) is not int:
            raise self.machine.error(f"a tensor has a storage of {made.name}, expected one of {', '.join(STORAGES)}")
        if key not in self.storages:
            data = self._bytes(f"data/{key}")
            if len(data) != count * kind.itemsize:
                raise self.machine.error(f"a storage has {len(data)} bytes, expected {count * kind.itemsize}")
            self.storages[key] = torch.frombuffer(bytearray(data), dtype=kind) if count else torch.empty(0, dtype=kind)
        if self.storages[key].dtype != kind:
            raise self.machine.error("one storage is used with two data types")
        return self.storages[key]


def write_tensor(path: Path, tensor: Tensor) -> None:
    """Write one tensor as ``torch.save`` does, for programs that read nothing else, atomically.

    A ``.pt`` file holds a pickle of the tensor's shape. deshi writes it for foreign programs only and reads it with
    :func:`read_tensor`, which executes nothing.
    """
    with atomic_file(path) as temporary:
        torch.save(tensor.detach().cpu().contiguous().clone(), temporary)


def read_array(path: Path | str) -> np.ndarray:
    """Read a ``.npy`` file of numbers.

    Raises:
        DeshiError: if it is missing, cut off, holds Python objects, or isn't a ``.npy`` file.
    """
    path = Path(path)
    try:
        # mapping checks the file's length before any memory is taken
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DeshiError(f"{path} can't be read ({error.strerror or error}). Check the path.") from error
    except (ValueError, EOFError, SyntaxError, OverflowError) as error:
        raise DeshiError(f"{path} is no .npy file of numbers ({error}). Save it again with numpy.save.") from error
    if not isinstance(mapped, np.ndarray) or mapped.dtype.kind not in "biuf":
        raise DeshiError(f"{path} holds {getattr(mapped, 'dtype', 'several arrays')}, expected one array of numbers.")
    return np.array(mapped)

"""Pickles from elsewhere, read as data: nothing that they name is imported, called or built.

The allowed names are those of :data:`deshi.soft_labels.foreign.decoding.ALLOWED`: numpy arrays and numbers, pandas'
frames, series and indexes (pandas itself isn't needed), and Python's containers. Everything else is refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deshi.soft_labels.foreign.decoding import ALLOWED, Decoder
from deshi.soft_labels.foreign.machine import Machine
from deshi.types import DeshiError

LIMIT = 8 << 30
"""Bytes of memory that a pickle may take unless the caller says otherwise: 8 GiB."""

COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"PK": "zip", b"\x28\xb5": "zstandard"}


def read_pickle(path: Path | str, limit: int = LIMIT) -> Any:
    """Read a pickle that holds numpy arrays, pandas frames or plain Python data.

    Args:
        path: the file.
        limit: bytes of memory that the file and what it describes may take, by a rough account.

    Returns:
        numbers, text, lists, tuples, dicts (ordered and default ones too) and sets as they are; ``numpy.ndarray``;
        a :class:`~deshi.soft_labels.foreign.decoding.Frame` for a DataFrame or Series; an array or range for an Index.

    Raises:
        DeshiError: if the file is missing, compressed, damaged, too large, or names anything that isn't plain data.
    """
    path = Path(path)
    data = read_bytes(path, limit)
    for magic, name in COMPRESSED.items():
        if data.startswith(magic):
            raise DeshiError(
                f"{path} begins like a {name} file, expected a pickle. Unpack it first (.pt: read_tensor)."
            )
    machine = Machine(path, ALLOWED, limit)
    described = machine.run(data)
    try:
        return Decoder().decode(described)
    except DeshiError as error:
        raise machine.error(str(error)) from error
    except (
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        OverflowError,
        MemoryError,
        RecursionError,
    ) as error:
        raise machine.error(f"it describes no sensible data ({type(error).__name__}: {error})") from error


def read_bytes(path: Path, limit: int) -> bytes:
    """A file's bytes.

    Raises:
        DeshiError: if it can't be read or is larger than ``limit``.
    """
    try:
        size = path.stat().st_size
        if size > limit:
            raise DeshiError(f"{path} has {size:,} bytes, expected at most {limit:,}. Raise limit if you trust it.")
        return path.read_bytes()
    except OSError as error:
        raise DeshiError(f"{path} can't be read ({error.strerror or error}). Check the path.") from error

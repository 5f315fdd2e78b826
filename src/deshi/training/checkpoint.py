"""Checkpoints without pickle: safetensors files with the structure around the tensors as JSON in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors import SafetensorError, safe_open
from torch import Tensor

from deshi.artifacts import write_tensors
from deshi.types import DeshiError

_KEY = "structure"


def save_tree(tree: Any, path: Path) -> None:
    """Write nested dicts, lists, tuples, tensors and scalars to one safetensors file, atomically.

    Raises:
        DeshiError: for a value of another type, naming where it is.
    """
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_take_apart(tree, tensors, "checkpoint"))
    write_tensors(tensors, path, {_KEY: structure})


def load_tree(path: Path, device: torch.device | str = "cpu") -> Any:
    """Read what :func:`save_tree` wrote.

    Raises:
        DeshiError: if the file is missing, damaged, or not one of deshi's.
    """
    try:
        with safe_open(path, framework="pt", device=str(device)) as handle:
            metadata = handle.metadata() or {}
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    except (FileNotFoundError, SafetensorError, OSError) as error:
        raise DeshiError(f"{path} can't be read as a checkpoint ({error}). Check the path, or train again.") from error
    if _KEY not in metadata:
        raise DeshiError(f"{path} holds tensors but no deshi checkpoint: expected a file that deshi fit wrote.")
    return _put_together(json.loads(metadata[_KEY]), tensors)


def _take_apart(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    if isinstance(value, Tensor):
        key = str(len(tensors))
        tensors[key] = _storable(value.detach(), tensors)
        return {"t": key}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {"d": [[_key(k, where), _take_apart(v, tensors, f"{where}.{k}")] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "l" if isinstance(value, list) else "u"
        return {kind: [_take_apart(v, tensors, f"{where}[{n}]") for n, v in enumerate(value)]}
    raise DeshiError(f"{where} is a {type(value).__name__}; a checkpoint holds dicts, lists, tensors and scalars only.")


def _storable(tensor: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """The tensor itself if it can be written as it lies in memory, else a copy: a large table isn't held twice."""
    alone = tensor.is_cpu and tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    if alone and all(tensor.data_ptr() != other.data_ptr() for other in tensors.values()):
        return tensor
    return tensor.to("cpu", copy=True).contiguous()


def _key(key: Any, where: str) -> str | int:
    if isinstance(key, str | int):
        return key
    raise DeshiError(f"{where} has a key of type {type(key).__name__}, expected str or int.")


def _put_together(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "t":
        return tensors[content]
    if kind == "d":
        return {key: _put_together(inner, tensors) for key, inner in content}
    items = [_put_together(inner, tensors) for inner in content]
    return items if kind == "l" else tuple(items)


class SafeCheckpointIO(CheckpointIO):
    """Lightning's checkpoints through :func:`save_tree` and :func:`load_tree`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``, atomically."""
        save_tree(checkpoint, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the checkpoint at ``path``; nothing in it is ever executed."""
        tree: dict[str, Any] = load_tree(Path(path), map_location or "cpu")
        return tree

    def remove_checkpoint(self, path: Any) -> None:
        """Delete the checkpoint at ``path`` if it is there."""
        Path(path).unlink(missing_ok=True)

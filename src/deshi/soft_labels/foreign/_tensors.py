"""Item vectors in torch's ``.pt`` files, read by ``torch.load(weights_only=True)``, which runs nothing of the file."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from deshi.soft_labels.foreign._pickled_frames import DAMAGE
from deshi.types import DeshiError


def read_tensor(path: Path) -> Tensor:
    """Read the one tensor of a file of ``torch.save``, on the CPU.

    Raises:
        DeshiError: if the file is missing, damaged, holds anything but tensors, or something else than one tensor.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DeshiError(f"{path} can't be read ({error.strerror or error}). Check the path.") from error
    except DAMAGE as error:
        raise DeshiError(
            f"{path} is refused by torch.load(weights_only=True): {_reason(error)}. Nothing of it was executed. "
            "A whole model is code: where it was made, save its tensor alone with torch.save."
        ) from error
    if isinstance(content, dict) and len(content) == 1:
        content = next(iter(content.values()))
    if not isinstance(content, Tensor) or content.layout != torch.strided or content.is_quantized:
        size = f" of {len(content)} entries" if isinstance(content, (dict, list, tuple)) else ""
        raise DeshiError(
            f"{path} holds a {type(content).__name__}{size}, expected one tensor. Save it alone with torch.save."
        )
    if content.numel() * content.element_size() > content.untyped_storage().nbytes():
        raise DeshiError(
            f"{path} holds a tensor of shape {tuple(content.shape)} that repeats the "
            f"{content.untyped_storage().nbytes()} bytes of its storage, expected one value an entry."
        )
    return content.detach()


def read_vectors(path: Path, n_items: int) -> Tensor:
    """Read item vectors ``(n_items, D)``: row ``i`` is item ``i``, without a row for padding.

    Raises:
        DeshiError: as :func:`read_tensor`, or for another shape.
    """
    vectors = read_tensor(path)
    if vectors.dim() != 2 or len(vectors) != n_items:
        raise DeshiError(
            f"{path} has the shape {tuple(vectors.shape)}, expected ({n_items}, D), one row an item. A row more is a "
            "padding row: leave it out where the file is made."
        )
    return vectors


def _reason(error: Exception) -> str:
    """The name that torch refuses, or its first sentence: the next ones propose to load the file without protection."""
    name = re.search(r"GLOBAL (\S+)", str(error))
    return f"it names {name[1]}" if name else str(error).split(". ")[0] or type(error).__name__

"""Weights of networks as safetensors files."""

from __future__ import annotations

from pathlib import Path

import torch

from deshi.artifacts import read_tensors, write_tensors
from deshi.types import DeshiError


def save_weights(module: torch.nn.Module, path: Path) -> None:
    """Write a module's weights as plain safetensors, atomically."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    write_tensors(weights, path)


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Fill a module from :func:`save_weights`'s file.

    Raises:
        DeshiError: if the file is missing or damaged, or holds other weights than the module has.
    """
    weights = read_tensors(path, remedy="Train again.")
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise DeshiError(f"{path} doesn't fit the {type(module).__name__} of its config: {error}") from error

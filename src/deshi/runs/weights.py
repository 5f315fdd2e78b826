"""Weights of networks as safetensors files."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from deshi.artifacts import atomic_file
from deshi.types import DeshiError


def save_weights(module: torch.nn.Module, path: Path) -> None:
    """Write a module's weights as plain safetensors, atomically."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    with atomic_file(path) as temporary:
        save_file(weights, temporary)


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Fill a module from :func:`save_weights`'s file.

    Raises:
        DeshiError: if the file is missing or damaged, or holds other weights than the module has.
    """
    try:
        weights = load_file(path)
        module.load_state_dict(weights)
    except (FileNotFoundError, SafetensorError, OSError, RuntimeError) as error:
        raise DeshiError(f"{path} doesn't fit the {type(module).__name__} of its config: {error}") from error

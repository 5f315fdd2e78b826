"""Choices that the machine decides: thread count and number format, by a short measurement."""

from __future__ import annotations

import time
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]


def set_threads(threads: int | None) -> int:
    """Use ``threads`` CPU threads, or as many as PyTorch found cores; returns the number in force."""
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def choose_precision(wanted: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """The number format of the matrix products.

    ``auto`` times one product of the size of a loss chunk in both formats and takes bf16 only if it is at least
    a fifth faster: some CPUs have bf16 instructions and are slower with them. It is bf16 on a GPU that supports it.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if device.type != "cpu":
        return "fp32"
    return "bf16" if _seconds(torch.bfloat16) < 0.8 * _seconds(torch.float32) else "fp32"


def _seconds(dtype: torch.dtype, repeats: int = 7) -> float:
    """Best time of a (512, 128) by (128, 4096) product, after two to warm up."""
    left, right = torch.ones(512, 128, dtype=dtype), torch.ones(128, 4096, dtype=dtype)
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    return min(times[2:])

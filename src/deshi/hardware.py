"""Settings by hardware: thread count, number format of products, memory of the heap and of kernels."""

from __future__ import annotations

import ctypes
import os
import statistics
import sys
import time
from typing import Literal

import torch

from deshi.types import DeshiError

Precision = Literal["fp32", "bf16"]


def set_threads(threads: int | None) -> int:
    """Use ``threads`` CPU threads, or as many as PyTorch found cores; returns the number in force."""
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def choose_precision(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """The number format of the matrix products.

    ``auto`` asks :func:`bf16_is_faster` about a product of the size of a loss chunk.
    """
    if precision != "auto":
        return precision
    return "bf16" if bf16_is_faster(device, 512, 128, 4096) else "fp32"


def bf16_is_faster(device: torch.device, rows: int, inner: int, columns: int) -> bool:
    """Whether a product of (rows, inner) and (inner, columns) is better done in bf16: on a GPU, if it supports that.

    On a CPU, if it is at least a fifth faster than in fp32. Both are timed in turns, so that other work on the machine
    slows both: some CPUs have bf16 instructions and are slower with them. Those without are many times slower, which
    an eighth of the rows shows first.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type != "cpu":
        return False
    return _bf16_share(rows // 8, inner, columns) < 3 and _bf16_share(rows, inner, columns) < 0.8


def training_device(accelerator: str) -> torch.device:
    """The kind of device that one of Lightning's accelerator names leads to.

    Raises:
        DeshiError: for a device that this machine doesn't have, or that deshi doesn't use.
    """
    has_cuda = torch.cuda.is_available()
    if accelerator == "cpu" or (accelerator == "auto" and not has_cuda):
        return torch.device("cpu")
    if accelerator not in ("auto", "cuda", "gpu"):
        raise DeshiError(f"train.accelerator is {accelerator!r}, expected auto, cpu, cuda or gpu.")
    if not has_cuda:
        raise DeshiError(
            f"train.accelerator is {accelerator!r}, but PyTorch {torch.__version__} sees no CUDA device here. Leave it "
            "at auto, or install a driver and a PyTorch for it."
        )
    return torch.device("cuda")


def limit_kernel_cache() -> None:
    """Let oneDNN keep the kernels of 16 shapes instead of 1,024, unless the environment says otherwise.

    Batches come in ever other shapes, so that kept kernels, each with its scratch memory, cost gigabytes and save
    nothing (``benchmarks/memory.py``). oneDNN reads the limit once, at its first product: call this before.
    """
    for variable in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(variable, "16")


def release_memory() -> None:
    """Give freed heap memory back to the system, where the C library can (glibc); elsewhere nothing happens.

    Batches of ever other shapes leave holes in the heap: without this a process grows from epoch to epoch.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _bf16_share(*shape: int) -> float:
    """The time of one product in bf16 as a share of its time in fp32: the median of seven pairs after two others."""
    ratios = [_seconds(torch.bfloat16, *shape) / _seconds(torch.float32, *shape) for _ in range(9)]
    return statistics.median(ratios[2:])


def _seconds(dtype: torch.dtype, rows: int, inner: int, columns: int) -> float:
    left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(columns, inner, dtype=dtype)
    start = time.perf_counter()
    torch.nn.functional.linear(left, right)
    return time.perf_counter() - start

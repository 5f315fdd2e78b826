"""Settings by hardware: thread count, number format of products, memory of the heap and of kernels."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import statistics
import sys
import time
from collections.abc import Set
from contextlib import suppress
from pathlib import Path
from typing import Literal

import torch

from deshi.types import DeshiError

log = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16"]

_STAT, _GROUPS, _GROUP_ROOT = Path("/proc/stat"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


_MOST_THREADS = torch.get_num_threads()
"""PyTorch's own choice: the cores, or ``OMP_NUM_THREADS``."""
_SAMPLE_SECONDS = 0.3
_chosen = {"threads": _MOST_THREADS}
"""What :func:`set_threads` chose last; another number in force was set by the user."""


def set_threads(threads: int | None, processes: int = 1) -> int:
    """Use ``threads`` CPU threads; returns the number in force.

    None: as many as ``OMP_NUM_THREADS`` or ``torch.set_num_threads`` said, else one for each core that nothing else
    keeps busy now, shared out among ``processes``. Threads wait for each other in every product: one that shares its
    core slows all of them.
    """
    if threads is None and not os.environ.get("OMP_NUM_THREADS") and torch.get_num_threads() == _chosen["threads"]:
        threads = _chosen["threads"] = max(1, free_cores() // processes)
        if threads < _MOST_THREADS:
            log.info("%d of %d cores are free: %d threads (or train.threads=N)", threads, _MOST_THREADS, threads)
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def free_cores() -> int:
    """How many cores this process may use and nothing else keeps busy now; at least 1, at most PyTorch's number."""
    cores = set(range(os.cpu_count() or 1))
    if hasattr(os, "sched_getaffinity"):
        cores = os.sched_getaffinity(0)
    allowed = min(len(cores), _MOST_THREADS, _quota())
    if allowed == 1:
        return 1
    busy = _busy_cores(cores)
    # A quarter of a core is the noise of an idle machine.
    return max(1, min(allowed, len(cores) - int(busy + 0.25)))


def _busy_cores(cores: Set[int]) -> float:
    """How many of ``cores`` are busy: by a sample of ``/proc/stat``, elsewhere by the load of the last minute."""
    before = _core_times()
    if not before:
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    time.sleep(_SAMPLE_SECONDS)
    after = _core_times()
    busy = 0.0
    for core in cores & before.keys() & after.keys():
        idle, total = (late - early for late, early in zip(after[core], before[core], strict=True))
        busy += 1 - idle / total if total > 0 else 0.0
    return busy


def _core_times() -> dict[int, tuple[int, int]]:
    """Of each core the ticks that it was idle and all its ticks; empty where the system doesn't tell."""
    try:
        lines = _STAT.read_text().splitlines()
    except OSError:
        return {}
    times = {}
    for name, *ticks in (line.split() for line in lines if re.match(r"cpu\d", line)):
        user, nice, system, idle, waiting, *further = map(int, ticks[:8])
        times[int(name[3:])] = (idle + waiting, user + nice + system + idle + waiting + sum(further))
    return times


def _quota() -> int:
    """How many cores' time the control groups of this process grant it (``cpu.max``)."""
    try:
        group = next(line[3:] for line in _GROUPS.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        group = "/"
    grants = [sys.maxsize]
    lowest = _GROUP_ROOT / group.strip("/")
    for folder in (lowest, *lowest.parents):
        with suppress(OSError, ValueError):  # no such group, or "max"
            quota, period = (folder / "cpu.max").read_text().split()
            grants.append(max(1, int(quota) // int(period)))
    return min(grants)


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

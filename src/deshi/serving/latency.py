"""Latency of an engine: the time of single requests, one after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from deshi.serving.engine import Engine, History

REQUESTS, WARM_UP = 200, 20
"""Requests that are timed, and those before them that aren't: the first ones load and allocate."""


@dataclass(frozen=True)
class Latency:
    """Time of one request to an engine: the best items after one history.

    Attributes:
        p50_ms: median of the wall time.
        p99_ms: 99th percentile of it.
        cpu_p50_ms: median of the process's time over all its threads: what to compare on a busy machine.
        requests: that were timed.
        k: length of the lists.
    """

    p50_ms: float
    p99_ms: float
    cpu_p50_ms: float
    requests: int
    k: int

    def plain(self) -> dict[str, Any]:
        """As JSON-able numbers."""
        return asdict(self)

    def sentence(self) -> str:
        """The times in words."""
        return (
            f"One request (the {self.k} best items, one thread, this machine as it is now): p50 {self.p50_ms:.2f} ms, "
            f"p99 {self.p99_ms:.2f} ms."
        )


def measure_latency(engine: Engine, histories: Sequence[History], k: int = 10) -> Latency:
    """Time single requests; of ``histories`` the first :data:`WARM_UP` are asked without being timed."""
    walls, processes = latencies([partial(engine.recommend, history, k=k) for history in histories])
    timed = slice(min(WARM_UP, len(walls) - 1), None)
    p50, p99 = np.quantile(walls[timed], [0.5, 0.99]).tolist()
    return Latency(round(p50, 4), round(p99, 4), round(float(np.median(processes[timed])), 4), len(walls[timed]), k)


def latencies(asks: Sequence[Callable[[], object]]) -> tuple[list[float], list[float]]:
    """Wall time and process time of each call in ms, one after another."""
    walls, processes = [], []
    for ask in asks:
        wall, process = time.perf_counter(), time.process_time()
        ask()
        walls.append(1000 * (time.perf_counter() - wall))
        processes.append(1000 * (time.process_time() - process))
    return walls, processes

"""Exact against approximate search in a catalogue of a million items: what an index costs, saves and misses.

    OMP_NUM_THREADS=1 python benchmarks/approximate_search.py [--items 1000000] [--compare 100000] [--requests 300]

Nobody's catalogue of that size is at hand, so the table is made up, with the statistics of SASRec's tables of Amazon
Beauty and Toys (64 dimensions, 12,000 items): vectors in clusters of about 50 items; parts outside of one shared
direction of length 0.8, +- 12 %; along that direction 0.1 to 0.7, the more the rarer an item is, which makes rare
items' vectors the longest; a mean of length 0.4. The states asked about are 18 long, point a fifth against the shared
direction, and lie near a few items: the best score is 12 above the mean and the tenth 8, as there. No other structure
is in it. An export of a real run with ``index=approximate`` measures the real thing.

First the forms in which an inner product can be put into a graph, on a smaller table of the kind: as it is, reduced to
a Euclidean distance by one more dimension (Bachrach et al. 2014), and with the table's mean taken off (deshi's). Then
deshi's index of the whole table: time and memory of building it, its size, recall, and the time of one answer of 10
items of a user who has seen 50, from the state on (the network takes as long for both).
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deshi.arrays import Float32s

CLUSTER, SEEN, K = 50, 50, 10


def unit(vectors: Float32s) -> Float32s:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def trained_like(n_items: int, dim: int, generator: np.random.Generator) -> tuple[Float32s, Float32s]:
    """A table ``(n_items, dim)`` and its shared direction ``(dim,)``."""
    spectrum = (1 / np.sqrt(1 + np.arange(dim) / 12)).astype(np.float32)
    shared = unit(generator.standard_normal(dim, dtype=np.float32) * spectrum)
    centres = generator.standard_normal((max(n_items // CLUSTER, 1), dim), dtype=np.float32) * spectrum
    table = generator.standard_normal((n_items, dim), dtype=np.float32) * spectrum
    table = unit(table + centres[generator.integers(0, len(centres), n_items)])
    table -= np.outer(table @ shared, shared)
    table *= 0.8 * np.exp(0.12 * generator.standard_normal((n_items, 1), dtype=np.float32))
    rarity = generator.random(n_items, dtype=np.float32)
    along = 0.1 + 0.6 * rarity + 0.1 * generator.standard_normal(n_items, dtype=np.float32)
    return table + np.outer(along, shared), shared


def states_near(table: Float32s, shared: Float32s, count: int, generator: np.random.Generator) -> Float32s:
    """States ``(count, dim)``, each near two items."""
    pairs = table[generator.integers(0, len(table), (count, 2))]
    pairs = unit(pairs - (pairs @ shared)[..., None] * shared)
    weights = generator.dirichlet([1, 1], count).astype(np.float32)
    noise = unit(generator.standard_normal((count, table.shape[1]), dtype=np.float32))
    found = unit((weights[..., None] * pairs).sum(1)) + 0.5 * noise
    found = unit(found - np.outer(found @ shared, shared))
    return 18 * (np.sqrt(np.float32(1 - 0.2**2)) * found - np.float32(0.2) * shared)


def made(n_items: int, dim: int, requests: int) -> tuple[Float32s, Float32s]:
    """A table and states."""
    generator = np.random.default_rng(0)
    table, shared = trained_like(n_items, dim, generator)
    return table, states_near(table, shared, requests, generator)


def compare_forms(table: Float32s, states: Float32s) -> None:
    """Print what a graph finds of the exact lists in each form of the inner product."""
    from deshi.serving.approximate_search import EDGES, FACTOR, LEAST, WIDTH

    faiss: Any = importlib.import_module("faiss")  # its stubs lack the parameters of a graph
    faiss.omp_set_num_threads(1)
    squared = (table**2).sum(1)
    longer = np.column_stack([table, np.sqrt(squared.max() - squared)])
    forms = {
        "as it is": (faiss.METRIC_INNER_PRODUCT, table, states),
        "Euclidean, one more dimension": (faiss.METRIC_L2, longer, np.pad(states, ((0, 0), (0, 1)))),
        "mean taken off": (faiss.METRIC_INNER_PRODUCT, table - table.mean(0), states),
    }
    for name, (metric, vectors, asked) in forms.items():
        index = faiss.IndexHNSWSQ(vectors.shape[1], faiss.ScalarQuantizer.QT_bf16, EDGES, metric)
        index.hnsw.efConstruction, index.is_trained = WIDTH, True
        index.add(vectors)
        figures = []
        for k in (10, 100):
            count = max(LEAST, FACTOR * k)
            found = index.search(asked, count, params=faiss.SearchParametersHNSW(efSearch=count))[1]
            exact = np.argpartition(-(states @ table.T), k)[:, :k]
            shares = [len(np.intersect1d(*both)) / k for both in zip(exact, found, strict=True)]
            figures.append(f"recall@{k} {np.mean(shares):.4f}")
        print(f"{len(table):,} items, inner product {name}: {', '.join(figures)}", flush=True)


def timed(
    answer: Callable[[Float32s, NDArray[np.int64]], object], states: Float32s, n_items: int
) -> NDArray[np.float64]:
    """``(2, requests)`` wall and CPU time of each answer in ms."""
    generator, times = np.random.default_rng(1), []
    for state in states:
        seen = generator.integers(0, n_items, SEEN)
        wall, process = time.perf_counter(), time.process_time()
        answer(state, seen)
        times.append((1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - process)))
    return np.array(times[10:]).T


def measure(table: Float32s, states: Float32s, path: Path) -> None:
    """Print all figures of deshi's index of the table."""
    from deshi.serving.approximate_search import ItemIndex, build_index, measure_recall
    from deshi.serving.top_k import best_of

    Path("/proc/self/clear_refs").write_text("5")  # the most memory is counted from now on
    before, begin, busy = memory("VmRSS"), time.perf_counter(), time.process_time()
    build_index(table, path)
    wall, cpu, grown = time.perf_counter() - begin, time.process_time() - busy, memory("VmHWM") - before
    size, whole = path.stat().st_size / 2**20, table.nbytes / 2**20
    print(f"{len(table):,} items: {whole:.0f} MiB; index: {size:.0f} MiB, building takes {grown:.0f} MiB")
    print(f"built in {wall:.0f} s, {cpu:.0f} s of CPU time", flush=True)
    index = ItemIndex(path, table)
    recall = measure_recall(index, table, np.array_split(states, -(-len(states) // 8)))
    print(f"recall@10 {recall.recall10:.4f}, recall@100 {recall.recall100:.4f}", flush=True)

    def exact(state: Float32s, seen: NDArray[np.int64]) -> NDArray[np.int64]:
        scores = (state[None] @ table.T)[0]
        scores[seen] = -np.inf
        return best_of(scores, K)

    def approximate(state: Float32s, seen: NDArray[np.int64]) -> NDArray[np.int64]:
        found, scores = index.find(state, K + len(seen))
        scores[np.isin(found, seen)] = -np.inf
        return found[best_of(scores, K)]

    times = {search.__name__: timed(search, states, len(table)) for search in (exact, approximate)}
    for name, (wall, process) in times.items():
        shown = [f"{kind} p50 {np.median(v):.2f} p99 {np.quantile(v, 0.99):.2f}" for kind, v in
                 (("wall", wall), ("CPU", process))]  # fmt: skip
        print(f"{name}: {'; '.join(shown)} ms")
    ratios = np.median(times["exact"], axis=1) / np.median(times["approximate"], axis=1)
    print(f"exact takes {ratios[0]:.1f} times as long by wall time, {ratios[1]:.1f} times by CPU time (medians)")


def memory(line: str) -> float:
    """``VmRSS``, the memory of this process, or ``VmHWM``, the most that it has been, in MiB."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{line}:")[2].split()[0]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description="Exact against approximate search.")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--compare", type=int, default=100_000, help="items of the table for the three forms; 0: none")
    parser.add_argument("--requests", type=int, default=300)
    arguments = parser.parse_args()
    if arguments.compare:
        compare_forms(*made(arguments.compare, arguments.dim, arguments.requests))
    with tempfile.TemporaryDirectory() as folder:
        measure(*made(arguments.items, arguments.dim, arguments.requests), Path(folder) / "items.faiss")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

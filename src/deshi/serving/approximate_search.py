"""An index of the item table for approximate search: its making, its queries, and its recall.

Scores are inner products, and an inner product is no metric; graphs of neighbours (HNSW, Malkov and Yashunin 2018) are
made for one. In trained tables rare items are pushed down along a direction that all have in common, and their long
vectors draw the graph's edges to themselves. So the table's mean is taken off first: that adds one number to all scores
of a history, which orders nothing. ``benchmarks/approximate_search.py`` holds it against the inner product as it is and
against its reduction to a Euclidean distance by one more dimension (Bachrach et al. 2014), which both find less.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deshi.configuration.needs import FAISS
from deshi.serving._block_scoring import ScoredItems, scores_of_all
from deshi.types import DeshiError

log = logging.getLogger(__name__)

MANY_ITEMS = 1_000_000
"""Up to so many items a catalogue is scored exactly, unless an index is asked for."""

LEAST = 1024
"""So many items are looked up at least: the graph is searched as widely as that."""

FACTOR = 4
"""Items looked up for each one that is needed, or left out."""

SHARE = 200
"""From a two-hundredth of the catalogue on a search takes as long as scoring everything."""

EDGES, WIDTH = 32, 64
"""Neighbours of an item in the graph (twice as many in its lowest layer), and candidates while it is built."""

CLUSTERS_ABOVE = 2_000_000
"""Above so many items the index is one of clusters: a graph of ten million items takes hours to build on a core."""

PROBES, SAMPLE, ROUNDS = 8, 64, 10
"""Share of the clusters that is searched for a state (an eighth), items of each cluster from which the centres are
learnt, and rounds of that."""

CHUNK = 16_384
EVERY = 5.0
"""Items added at a time, and seconds between two lines about the progress."""

DEPTHS = (10, 100)
WITHOUT = "Without it scores are exact: give index=exact to deshi export, and search=exact to what answers."


@dataclass(frozen=True)
class Recall:
    """The share of the exact lists that an index finds.

    Attributes:
        histories: number of lists compared.
        recall10: mean share of an exact top 10 that the index finds.
        recall100: the same of a top 100.
        faiss: the version that built it.
    """

    histories: int
    recall10: float
    recall100: float
    faiss: str

    def plain(self) -> dict[str, Any]:
        """As JSON-able numbers."""
        return asdict(self)

    def sentence(self) -> str:
        """The same for people."""
        return (
            f"approximate search finds {self.recall10:.2%} of the exact top-10 lists and {self.recall100:.2%} of the "
            f"top-100 lists of {self.histories:,} histories, nothing left out."
        )


class ItemIndex:
    """An opened index, mapped into memory; several threads may use it at a time.

    Args:
        path: the file that :func:`build_index` wrote.
        table: ``(n_items, dim)``, the scoring vectors.

    Raises:
        DeshiError: if faiss isn't installed, the file can't be read, or it is the index of another table.
    """

    def __init__(self, path: Path, table: NDArray[np.floating]) -> None:
        self._faiss = _faiss()
        try:
            self._index = self._faiss.read_index(str(path), self._faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise DeshiError(f"{path} can't be read by faiss ({error}). Run deshi export again.") from error
        if (self._index.ntotal, self._index.d) != table.shape:
            raise DeshiError(f"{path} is no index of {len(table)} items of {table.shape[1]}. Run deshi export again.")
        self._table = table
        self._is_graph = len(table) <= CLUSTERS_ABOVE

    def serves(self, depth: int) -> bool:
        """Whether a list of ``depth`` items, those to be left out included, is better looked up than scored."""
        return FACTOR * depth <= max(LEAST, len(self._table) // SHARE)

    def find(
        self, hidden: NDArray[np.float32], depth: int, added: ScoredItems | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Items with high scores, more than ``depth`` if there are, in index order, and their exact scores.

        Args:
            hidden: ``(dim,)`` the state after a history.
            depth: number of items that are needed.
            added: what a second score gives to some items, in index order, and to all others 0. Those items are
                scored whether the index finds them or not.
        """
        count = min(max(LEAST, FACTOR * depth), len(self._table))
        width: Any = (
            self._faiss.SearchParametersHNSW(efSearch=count)
            if self._is_graph
            else self._faiss.SearchParametersIVF(nprobe=max(1, self._index.nlist // PROBES))
        )
        items = np.sort(self._index.search(hidden[None], count, params=width)[1][0])
        items = items[np.searchsorted(items, 0) :]  # faiss fills a short list with -1, which sorts first
        if added is not None:
            items = np.union1d(items, added[0])
        # Unlike a matrix product, this gives equal vectors equal scores wherever they stand.
        scores = np.einsum("nd,d->n", self._table[items].astype(np.float32, copy=False), hidden)
        if added is not None:
            scores[np.searchsorted(items, added[0])] += added[1]
        return items, scores


def wants_index(index: str, n_items: int) -> bool:
    """Whether a bundle is to have an index, by the setting ``auto``, ``exact`` or ``approximate``.

    Raises:
        DeshiError: if it is and faiss isn't installed.
    """
    is_indexed = index == "approximate" or (index == "auto" and n_items > MANY_ITEMS)
    if is_indexed:
        _faiss()  # refuses a machine without it
    return is_indexed


def build_index(table: NDArray[np.floating], path: Path) -> None:
    """Write the index of an item table. One thread builds it, so that the same table gives the same file."""
    faiss = _faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        faiss.write_index(_filled(faiss, table), str(path))
    finally:
        faiss.omp_set_num_threads(threads)


def _filled(faiss: Any, table: NDArray[np.floating]) -> Any:
    """The index of a table, its numbers in half the bits: the scores of what it finds are computed from the table."""
    mean = table.mean(0, dtype=np.float64).astype(np.float32)
    index = _empty_graph(faiss, table.shape[1]) if len(table) <= CLUSTERS_ABOVE else _clusters(faiss, table, mean)
    begin = logged = time.perf_counter()
    for first in range(0, len(table), CHUNK):
        index.add(table[first : first + CHUNK] - mean)
        now, done = time.perf_counter(), index.ntotal
        if now - logged >= EVERY and done < len(table):
            left = (now - begin) * (len(table) - done) / done
            log.info("%s of %s items are in the index, about %.0f s left", f"{done:,}", f"{len(table):,}", left)
            logged = now
    return index


def _empty_graph(faiss: Any, dim: int) -> Any:
    index = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_bf16, EDGES, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = WIDTH
    index.is_trained = True  # nothing is learnt for these numbers
    return index


def _clusters(faiss: Any, table: NDArray[np.floating], mean: NDArray[np.float32]) -> Any:
    """An empty index of clusters (inverted lists), about as many as the root of the number of items."""
    n_clusters = 1 << round(float(np.log2(np.sqrt(len(table)))))
    centres = faiss.IndexFlatIP(table.shape[1])
    index = faiss.IndexIVFScalarQuantizer(
        centres, table.shape[1], n_clusters, faiss.ScalarQuantizer.QT_bf16, faiss.METRIC_INNER_PRODUCT, False
    )
    index.cp.niter = ROUNDS
    sample = np.random.default_rng(0).choice(len(table), SAMPLE * n_clusters, replace=False)
    sample.sort()
    index.train(table[sample] - mean)
    return index


def measure_recall(
    index: ItemIndex,
    table: NDArray[np.floating],
    states: Iterable[NDArray[np.float32]],
    added: Iterable[ScoredItems] | None = None,
) -> Recall:
    """Hold an index against exact scoring.

    Args:
        index: of the table.
        table: ``(n_items, dim)``.
        states: blocks ``(B, dim)`` of states after histories.
        added: what a second score adds after each history, see :meth:`ItemIndex.find`; None without one.
    """
    rows = (
        (state, scores) for block in states for state, scores in zip(block, scores_of_all(block, table), strict=True)
    )
    second = itertools.repeat(None) if added is None else added
    shares = [_shares(index, state, scores, also) for (state, scores), also in zip(rows, second, strict=False)]
    recall10, recall100 = np.mean(shares, axis=0).tolist()
    return Recall(len(shares), recall10, recall100, _faiss().__version__)


def _shares(
    index: ItemIndex, state: NDArray[np.float32], scores: NDArray[np.float32], added: ScoredItems | None
) -> list[float]:
    """The share of the exact lists of :data:`DEPTHS` that an index finds; equal scores may stand for each other."""
    shares = []
    if added is not None:
        scores[added[0]] += added[1]
    for depth in (min(depth, len(scores)) for depth in DEPTHS):
        items = index.find(state, depth, added)[0]
        threshold = np.partition(scores, len(scores) - depth)[len(scores) - depth]
        shares.append(min(int((scores[items] >= threshold).sum()), depth) / depth)
    return shares


def _faiss() -> Any:
    try:
        return FAISS.load()
    except DeshiError as error:
        raise DeshiError(f"{error}. {WITHOUT}") from error

"""Everything that is measured of one ranker: ranks, lists, and the figures made from them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.data.bundle import Bundle
from deshi.data.splits import Cases
from deshi.evaluate.ranking import Ranking, evaluate_ranks, lists_frame, summarise
from deshi.evaluate.scorers import Scorer
from deshi.metrics.beyond import beyond_accuracy

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Questions:
    """What every ranker of an evaluation is asked, and what is known for all of them.

    Attributes:
        bundle: the data.
        parts: the cases of each part.
        counts: ``(n_items,)`` events of each item among those trained on.
        ks: the list lengths.
        filter_seen: whether items of the history are left out.
        batch_size: cases scored at a time.
    """

    bundle: Bundle
    parts: Mapping[str, Cases]
    counts: Ints
    ks: Sequence[int]
    filter_seen: bool
    batch_size: int


@dataclass(frozen=True, eq=False)
class Measured:
    """One ranker's outcome over all parts.

    Attributes:
        metrics: such as ``test/ndcg@10``.
        ranks: a row a target, with its ``part``.
        lists: a row a case: ``part``, ``case``, ``user``, ``items``.
        seconds: of each part.
    """

    metrics: dict[str, float]
    ranks: pl.DataFrame
    lists: pl.DataFrame
    seconds: dict[str, float]


def measure(
    scorer: Scorer, questions: Questions, device: str = "cpu", vectors: NDArray[np.float32] | None = None
) -> Measured:
    """Ask a scorer all questions.

    Args:
        scorer: what is measured.
        questions: the cases and how they are asked.
        device: where the scorer computes.
        vectors: ``(n_items, D)`` of the ranker's own items, for the diversity of its lists; None if it has none.

    Raises:
        DeshiError: see :func:`deshi.evaluate.ranking.evaluate_ranks`.
    """
    metrics: dict[str, float] = {}
    seconds: dict[str, float] = {}
    ranks: list[pl.DataFrame] = []
    lists: list[pl.DataFrame] = []
    for part, cases in questions.parts.items():
        begin = time.perf_counter()
        found = evaluate_ranks(
            scorer, questions.bundle, cases, questions.filter_seen, questions.batch_size, device, max(questions.ks)
        )
        metrics |= {f"{part}/{name}": value for name, value in _figures(found, questions, cases, vectors).items()}
        ranks.append(_of_part(part, found.ranks))
        lists.append(_of_part(part, lists_frame(cases, found.top_items)))
        seconds[part] = round(time.perf_counter() - begin, 3)
    return Measured(metrics, pl.concat(ranks), pl.concat(lists), seconds)


def history_popularity(bundle: Bundle, cases: Cases, counts: Ints) -> NDArray[np.float64]:
    """``(C,)`` the mean of ``counts`` over the events of each case's history."""
    sums = np.concatenate([[0], np.cumsum(counts[bundle.items])])
    return (sums[cases.ends] - sums[cases.starts]) / (cases.ends - cases.starts)


def _figures(
    found: Ranking, questions: Questions, cases: Cases, vectors: NDArray[np.float32] | None
) -> dict[str, float]:
    bundle, counts, ks = questions.bundle, questions.counts, questions.ks
    figures = summarise(found.ranks, found.top_items, ks, bundle.n_items)
    popularity = history_popularity(bundle, cases, counts)
    return figures | beyond_accuracy(found.top_items, ks, counts, popularity, vectors)


def _of_part(part: str, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(pl.lit(part).alias("part"), pl.all())

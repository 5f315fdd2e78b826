"""Everything that is measured of one ranker: ranks, lists, and the figures and tables made from them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.arrays import Ints, offsets_of
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples
from deshi.evaluation.ranking import Ranking, evaluate_ranks, lists_frame, summarise
from deshi.evaluation.slices import slice_frame
from deshi.metrics.beyond import beyond_accuracy
from deshi.metrics.calibration import Reliability, reliability
from deshi.metrics.generated_answers import ratios
from deshi.models.scorers import Scorer


@dataclass(frozen=True, eq=False)
class Part:
    """The questions of one part of a split.

    Attributes:
        examples: the questions.
        candidates: ``(C, W)`` what each is ranked among, ``PAD`` on the right; None is the whole catalogue.
    """

    examples: Examples
    candidates: Ints | None = None


@dataclass(frozen=True, eq=False)
class Questions:
    """What every ranker of an evaluation is asked, and what is known for all of them.

    Attributes:
        bundle: the data.
        parts: by name.
        counts: ``(n_items,)`` events of each item among those trained on.
        ks: the list lengths.
        filter_seen: whether items of the history are left out (of the whole catalogue; candidates stay as they are).
        batch_size: examples scored at a time.
        one_answer: whether the best candidate counts as an answer (LLaRA's figures).
    """

    bundle: Bundle
    parts: Mapping[str, Part]
    counts: Ints
    ks: Sequence[int]
    filter_seen: bool
    batch_size: int
    one_answer: bool = False


@dataclass(frozen=True, eq=False)
class Measured:
    """One ranker's outcome over all parts.

    Attributes:
        metrics: such as ``test/ndcg@10``.
        ranks: a row a target, with its ``part``.
        lists: a row an example: ``part``, ``example``, ``user``, ``items``.
        slices: ``part``, ``slice``, ``value``, ``n_examples`` and the metrics.
        calibration: ``part``, ``bin``, ``confidence``, ``accuracy``, ``n_examples``; no rows where it isn't measured.
        seconds: of each part.
    """

    metrics: dict[str, float]
    ranks: pl.DataFrame
    lists: pl.DataFrame
    slices: pl.DataFrame
    calibration: pl.DataFrame
    seconds: dict[str, float]


def measure(
    scorer: Scorer, questions: Questions, device: str = "cpu", vectors: NDArray[np.float32] | None = None
) -> Measured:
    """Ask a scorer all questions.

    Args:
        scorer: what is measured.
        questions: the examples and how they are asked.
        device: where the scorer computes.
        vectors: ``(n_items, D)`` a student's own items, for the diversity of its lists and for the calibration of its
            scores; None for other rankers, which have neither.

    Raises:
        DeshiError: see :func:`deshi.evaluation.ranking.evaluate_ranks`.
    """
    metrics: dict[str, float] = {}
    seconds: dict[str, float] = {}
    frames: dict[str, list[pl.DataFrame]] = {"ranks": [], "lists": [], "slices": [], "calibration": []}
    for name, part in questions.parts.items():
        begin = time.perf_counter()
        found = _rank(scorer, questions, part, device, calibrate=vectors is not None)
        figures = _figures(found, questions, part, vectors)
        bins = _calibration(found)
        if bins is not None and found.softmax is not None:
            figures |= {"ece": bins.error, "log_loss": float(-found.softmax[:, 1].mean())}
        made = {
            "ranks": found.ranks,
            "lists": lists_frame(part.examples, found.top_items),
            "slices": slice_frame(found.ranks, part.examples, questions.counts, questions.ks),
            "calibration": _bins_frame(bins),
        }
        for kind, frame in made.items():
            frames[kind].append(frame.select(pl.lit(name).alias("part"), pl.all()))
        metrics |= {f"{name}/{figure}": value for figure, value in figures.items()}
        seconds[name] = round(time.perf_counter() - begin, 3)
    joined = {kind: pl.concat(parts) for kind, parts in frames.items()}
    return Measured(metrics, **joined, seconds=seconds)


def history_popularity(bundle: Bundle, examples: Examples, counts: Ints) -> NDArray[np.float64]:
    """``(C,)`` the mean of ``counts`` over the events of each example's history."""
    sums = offsets_of(counts[bundle.items])
    return (sums[examples.ends] - sums[examples.starts]) / (examples.ends - examples.starts)


def _rank(scorer: Scorer, questions: Questions, part: Part, device: str, calibrate: bool) -> Ranking:
    one_target = bool((np.diff(part.examples.target_offsets) == 1).all())
    return evaluate_ranks(
        scorer,
        questions.bundle,
        part.examples,
        questions.filter_seen,
        questions.batch_size,
        device,
        max(questions.ks),
        part.candidates,
        calibrate and one_target,
    )


def _figures(found: Ranking, questions: Questions, part: Part, vectors: NDArray[np.float32] | None) -> dict[str, float]:
    bundle, counts, ks = questions.bundle, questions.counts, questions.ks
    if part.candidates is None:
        figures = summarise(found.ranks, found.top_items, ks, bundle.n_items)
        popularity = history_popularity(bundle, part.examples, counts)
        return figures | beyond_accuracy(found.top_items, ks, counts, popularity, vectors)
    figures = summarise(
        found.ranks, found.top_items, ks, None
    )  # who is shown among drawn candidates is the draw's doing
    if questions.one_answer:
        n_examples = len(part.examples)
        figures |= ratios(float((found.ranks["rank"] <= 1).sum()), n_examples, n_examples)
    return figures


def _calibration(found: Ranking) -> Reliability | None:
    return None if found.softmax is None else reliability(np.exp(found.softmax[:, 0]), found.softmax[:, 2])


def _bins_frame(bins: Reliability | None) -> pl.DataFrame:
    shown = bins or reliability(np.zeros(0), np.zeros(0))
    return pl.DataFrame(
        {
            "bin": np.arange(len(shown.n_examples)),
            "confidence": shown.confidence,
            "accuracy": shown.accuracy,
            "n_examples": shown.n_examples,
        }
    )

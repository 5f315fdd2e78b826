"""The full measurement of a model: ranks, lists, metrics, slices and calibration on every part."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from deshi.arrays import Float32s, Floats, Ints, offsets_of
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples
from deshi.evaluation._ranking import Ranking, evaluate_lists, evaluate_ranks, lists_frame, summarise
from deshi.evaluation._slices import slice_frame
from deshi.metrics import Reliability, answer_ratios, beyond_accuracy, reliability
from deshi.models.scorers import ListScorer, Scorer


@dataclass(frozen=True, eq=False)
class RankedExamples:
    """The examples of one part, and what their targets are ranked among.

    Attributes:
        examples: of the part.
        candidates: ``(C, W)`` of each example, ``PAD`` on the right; None is the whole catalogue.
    """

    examples: Examples
    candidates: Ints | None = None


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """What all models of an evaluation have in common: data, examples and protocol.

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
    parts: Mapping[str, RankedExamples]
    counts: Ints
    ks: Sequence[int]
    filter_seen: bool
    batch_size: int
    one_answer: bool = False


@dataclass(frozen=True, eq=False)
class Measurement:
    """One model's outcome over all parts.

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


def measure_model(
    scorer: Scorer, evaluation_set: EvaluationSet, device: str = "cpu", vectors: Float32s | None = None
) -> Measurement:
    """Rank all examples of all parts and compute every metric.

    Args:
        scorer: the model.
        evaluation_set: the examples and the protocol.
        device: where the scorer computes.
        vectors: ``(n_items, D)`` the item table of a network, for the diversity of its lists and for the calibration of
            its scores; None for other models, which have neither.

    Raises:
        DeshiError: see :func:`deshi.evaluation.evaluate_ranks`.
    """
    metrics: dict[str, float] = {}
    seconds: dict[str, float] = {}
    frames: dict[str, list[pl.DataFrame]] = {"ranks": [], "lists": [], "slices": [], "calibration": []}
    for name, part in evaluation_set.parts.items():
        begin = time.perf_counter()
        ranking = _rank(scorer, evaluation_set, part, device, calibrate=vectors is not None)
        values = _metrics(ranking, evaluation_set, part, vectors)
        bins = None
        if ranking.softmax is not None:
            # An example without candidates has no best one, and a target that is no candidate no log-probability.
            best, target, hit = ranking.softmax[~np.isnan(ranking.softmax[:, 0])].T
            bins, target = reliability(np.exp(best), hit), target[target > -np.inf]
            if len(target):
                values |= {"ece": bins.error, "log_loss": float(-target.mean())}
        part_frames = {
            "ranks": ranking.ranks,
            "lists": lists_frame(part.examples, ranking.top_items),
            "slices": slice_frame(ranking.ranks, part.examples, evaluation_set.counts, evaluation_set.ks),
            "calibration": _bins_frame(bins or reliability(np.zeros(0), np.zeros(0))),
        }
        for kind, frame in part_frames.items():
            frames[kind].append(frame.select(pl.lit(name).alias("part"), pl.all()))
        metrics |= {f"{name}/{metric}": value for metric, value in values.items()}
        seconds[name] = round(time.perf_counter() - begin, 3)
    joined = {kind: pl.concat(part_frames) for kind, part_frames in frames.items()}
    return Measurement(metrics, **joined, seconds=seconds)


def history_popularity(bundle: Bundle, examples: Examples, counts: Ints) -> Floats:
    """``(C,)`` the mean of ``counts`` over the events of each example's history."""
    sums = offsets_of(counts[bundle.items])  # a history's sum is the difference of two running sums
    return (sums[examples.ends] - sums[examples.starts]) / (examples.ends - examples.starts)


def _rank(scorer: Scorer, evaluation_set: EvaluationSet, part: RankedExamples, device: str, calibrate: bool) -> Ranking:
    if isinstance(scorer, ListScorer):
        top_k = max(evaluation_set.ks)
        return evaluate_lists(
            scorer, evaluation_set.bundle, part.examples, evaluation_set.filter_seen, evaluation_set.batch_size, top_k
        )
    one_target = bool((np.diff(part.examples.target_offsets) == 1).all())
    return evaluate_ranks(
        scorer,
        evaluation_set.bundle,
        part.examples,
        evaluation_set.filter_seen,
        evaluation_set.batch_size,
        device,
        max(evaluation_set.ks),
        part.candidates,
        calibrate and one_target,
    )


def _metrics(
    ranking: Ranking, evaluation_set: EvaluationSet, part: RankedExamples, vectors: Float32s | None
) -> dict[str, float]:
    bundle, counts, ks = evaluation_set.bundle, evaluation_set.counts, evaluation_set.ks
    if part.candidates is None:
        metrics = summarise(ranking.ranks, ranking.top_items, ks, bundle.n_items)
        popularity = history_popularity(bundle, part.examples, counts)
        return metrics | beyond_accuracy(ranking.top_items, ks, counts, popularity, vectors)
    # what is shown of drawn candidates is the draw's doing: no coverage and nothing else about the lists
    metrics = summarise(ranking.ranks, ranking.top_items, ks, None)
    if evaluation_set.one_answer:
        n_examples = len(part.examples)
        metrics |= answer_ratios(float((ranking.ranks["rank"] <= 1).sum()), n_examples, n_examples)
    return metrics


def _bins_frame(bins: Reliability) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "bin": np.arange(len(bins.n_examples)),
            "confidence": bins.confidence,
            "accuracy": bins.accuracy,
            "n_examples": bins.n_examples,
        }
    )

"""The best baseline of an evaluation, and the sentence about a model that doesn't beat it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl

from deshi.arrays import Floats
from deshi.evaluation._result import Metrics, headline_k, parts_of
from deshi.metrics import example_ranks, metric_title, metrics_per_example, paired_permutation, read_metric
from deshi.types import ITEM, USER, DeshiError

LEVEL = 0.05
"""A p-value from here on is no proof of a difference."""

FLIPS = 2000
"""Random sign flips of the paired permutation test."""

KEYS = [USER, "example", ITEM]
"""What names a target: ranks of two models are paired by it."""

Ranks = Callable[[str, str], Sequence[pl.DataFrame]]
"""From the name of a model or baseline and a part to its ranks, a frame a seed; none where they are not kept."""


def unbeaten(model: str, metrics: Metrics, baselines: Mapping[str, Metrics], ranks: Ranks | None = None) -> list[str]:
    """A sentence for every part in which the model doesn't beat the best baseline by its headline NDCG.

    Args:
        model: its name.
        metrics: of the model, such as ``test/ndcg@10``.
        baselines: the same of every baseline.
        ranks: for the paired tests; None leaves them out.
    """
    ks = [int(name.rpartition("@")[2]) for name in metrics if "/ndcg@" in name]
    sentences = []
    for part in parts_of(metrics) if ks else ():
        metric = f"ndcg@{headline_k(ks)}"
        key = f"{part}/{metric}"
        figures = {name: baseline[key] for name, baseline in baselines.items() if key in baseline}
        sentences += not_beating(model, metrics[key], figures, metric, part, ranks)
    return sentences


def not_beating(
    model: str, figure: float, baselines: Mapping[str, float], metric: str, part: str, ranks: Ranks | None = None
) -> list[str]:
    """One sentence if the model doesn't beat the best baseline, or beats it by no more than chance allows.

    Args:
        model: its name.
        figure: the model's.
        baselines: their figures, by name; the best is the greatest.
        metric: such as ``ndcg@10``.
        part: of the split.
        ranks: for the paired test; None leaves it out.
    """
    if not baselines:
        return []
    best = max(baselines, key=lambda name: baselines[name])
    test = None if ranks is None else _test(ranks(model, part), ranks(best, part), metric)
    rival = f"{best} ({baselines[best]:.4f}), the best baseline on {metric_title(metric)}, {part}"
    proof = "" if test is None else f" (paired permutation test over {test[1]:,} examples: {_p_text(test[0])})"
    if not figure > baselines[best]:
        return [f"{model} ({figure:.4f}) does not beat {rival}{proof}."]
    if test is not None and test[0] >= LEVEL:
        return [f"{model} ({figure:.4f}) is not reliably better than {rival}{proof}."]
    return []


def _test(first: Sequence[pl.DataFrame], second: Sequence[pl.DataFrame], metric: str) -> tuple[float, int] | None:
    """The p-value of two models' difference and its number of examples; None where these are not the same."""
    frames = [frame.sort(KEYS) for frame in (*first, *second)]
    if not first or not second or any(not frame.select(KEYS).equals(frames[0].select(KEYS)) for frame in frames):
        return None
    values = np.stack([example_values(frame, [read_metric(metric)])[:, 0] for frame in frames])
    a, b = values[: len(first)].mean(axis=0), values[len(first) :].mean(axis=0)
    return paired_permutation(a, b, FLIPS), len(a)


def example_values(ranks: pl.DataFrame, metrics: Sequence[tuple[str, int]]) -> Floats:
    """``(C, M)`` metrics, each a name with its K, of every example of a frame that is sorted by :data:`KEYS`."""
    examples = ranks.select(pl.struct(USER, "example").rle_id())[USER].to_numpy()
    grouped = example_ranks(ranks["rank"].to_numpy(), examples)
    values = metrics_per_example(grouped, sorted({k for _, k in metrics}))
    return np.stack([values[f"{name}@{k}"] for name, k in metrics], axis=1)


def kept(read: Callable[[], pl.DataFrame]) -> list[pl.DataFrame]:
    """The frame that ``read`` gives, or nothing where the file is gone or damaged: a figure needs no test."""
    try:
        ranks = read()
    except DeshiError:
        return []
    return [ranks] if ranks.height and bool((ranks["rank"] >= 1).all()) else []


def _p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"

"""The effect of a fault, measured by a last-item Markov baseline that is fitted with and without it."""

from __future__ import annotations

import numpy as np

from deshi.arrays import Array, Floats
from deshi.baselines import Markov
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples
from deshi.evaluation import evaluate_ranks
from deshi.metrics import example_ranks, metrics_per_example
from deshi.models.scorers import Scorer

AT = 10
"""Effects are measured as NDCG at this length."""

SAMPLE = 2000
"""The most examples that a probe ranks."""


def ndcg_of(ranks: Floats) -> Floats:
    """NDCG of examples with one target each, from their ranks ``(C,)``; 0 for a rank that is NaN or out of reach."""
    reachable = np.nan_to_num(ranks, nan=np.inf, posinf=np.inf)
    return np.where(reachable <= AT, 1.0 / np.log2(1.0 + np.maximum(reachable, 1.0)), 0.0)


def ndcg_per_example(scorer: Scorer, bundle: Bundle, examples: Examples, filter_seen: bool = True) -> Floats:
    """NDCG of every example ``(C,)``, by the full-ranking protocol."""
    ranks = evaluate_ranks(scorer, bundle, examples, filter_seen, top_k=AT).ranks
    grouped = example_ranks(ranks["rank"].to_numpy(), ranks["example"].to_numpy(), len(examples))
    return metrics_per_example(grouped, [AT])[f"ndcg@{AT}"]


def sample_examples(examples: Examples, size: int = SAMPLE, only: Array | None = None) -> Examples:
    """At most ``size`` examples, evenly spaced; with ``only`` ``(C,)`` bool, of those that it marks."""
    chosen = np.arange(len(examples)) if only is None else np.flatnonzero(only)
    if len(chosen) > size:
        chosen = chosen[np.linspace(0, len(chosen) - 1, size).astype(np.int64)]
    kept = np.zeros(len(examples), dtype=bool)
    kept[chosen] = True
    return examples.only(kept)


def markov_ndcg(bundle: Bundle, ranges: tuple[Array, Array], examples: Examples, filter_seen: bool = True) -> float:
    """The mean NDCG of the last-item Markov baseline, fitted on training ranges: it is quick and learns every leak."""
    return float(ndcg_per_example(Markov().fit(bundle, *ranges), bundle, examples, filter_seen).mean())


def gain(name: str, without_fault: float, with_fault: float) -> str:
    """A sentence about a probe's two figures."""
    change = f" ({with_fault / without_fault:.2f} times as much)" if without_fault > 0 else ""
    return f"{name}: NDCG@{AT} {without_fault:.4f} without the fault, {with_fault:.4f} with it{change}."

"""How much is a fault worth? Simple rankers, fitted and asked with and without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deshi.arrays import Array, Floats, offsets_of
from deshi.baselines.events import Events
from deshi.baselines.markov import Markov
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples
from deshi.evaluation.ranking import evaluate_ranks
from deshi.metrics.ranking import example_ranks, metrics_per_example
from deshi.models.scorers import Scorer

AT = 10
"""Effects are measured as NDCG at this length."""

SAMPLE = 2000
"""At most so many cases are asked by a probe."""


def ndcg_of(ranks: Floats) -> Floats:
    """NDCG of examples with one target each, from their ranks ``(C,)``; 0 for a rank that is NaN or out of reach."""
    reachable = np.nan_to_num(ranks, nan=np.inf, posinf=np.inf)
    return np.where(reachable <= AT, 1.0 / np.log2(1.0 + np.maximum(reachable, 1.0)), 0.0)


def ndcg_per_example(scorer: Scorer, bundle: Bundle, examples: Examples, filter_seen: bool = True) -> Floats:
    """NDCG of every example ``(C,)``, by the full-ranking protocol."""
    found = evaluate_ranks(scorer, bundle, examples, filter_seen, top_k=AT).ranks
    grouped = example_ranks(found["rank"].to_numpy(), found["example"].to_numpy(), len(examples))
    return metrics_per_example(grouped, [AT])[f"ndcg@{AT}"]


def sample_examples(examples: Examples, size: int = SAMPLE, only: Array | None = None) -> Examples:
    """At most ``size`` examples, evenly spaced; with ``only`` ``(C,)`` bool, of those that it marks."""
    chosen = np.arange(len(examples)) if only is None else np.flatnonzero(only)
    if len(chosen) > size:
        chosen = chosen[np.linspace(0, len(chosen) - 1, size).astype(np.int64)]
    counts = np.diff(examples.target_offsets)[chosen]
    offsets = offsets_of(counts)
    rows = np.repeat(examples.target_offsets[chosen] - offsets[:-1], counts) + np.arange(offsets[-1])
    return Examples(
        examples.users[chosen], examples.starts[chosen], examples.ends[chosen], offsets, examples.target_rows[rows]
    )


def markov(bundle: Bundle, starts: Array, ends: Array) -> Scorer:
    """The last-item Markov ranker, fitted on those training ranges: quick, and it learns what is shown to it."""
    return Markov().fit(bundle, starts, ends)


class _PairMarkov(Markov):
    """A Markov ranker that is taught pairs one by one."""

    def learn(self, items: Array, targets: Array, n_items: int) -> Scorer:
        """Learn that ``targets`` ``(P,)`` follow ``items`` ``(P,)``; each pair is a user of its own."""
        pairs = np.stack([items, targets], axis=1).reshape(-1).astype(np.int64)
        self._fit(Events(np.repeat(np.arange(len(items)), 2), pairs, len(items), n_items))
        self.n_items = n_items
        return self


def markov_of_pairs(items: Array, targets: Array, n_items: int) -> Scorer:
    """The Markov ranker, taught the pairs that training batches hold."""
    return _PairMarkov().learn(items, targets, n_items)


def with_ends(examples: Examples, ends: Array) -> Examples:
    """The same questions with other ends of the histories."""
    return replace(examples, ends=ends)


def gain(name: str, honest: float, faulty: float) -> str:
    """A sentence about a probe's two figures."""
    change = f" ({faulty / honest:.2f} times as much)" if honest > 0 else ""
    return f"{name}: NDCG@{AT} {honest:.4f} without the fault, {faulty:.4f} with it{change}."

"""Metrics of a model on chosen examples: with the newest events withheld, and steps back into training."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from deshi.arrays import Floats, Ints
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples, Split
from deshi.evaluation import evaluate_ranks
from deshi.metrics import METRICS, example_ranks, read_metric
from deshi.models.scorers import Scorer


@dataclass(frozen=True)
class Metric:
    """A metric at a cut-off, such as ``ndcg@10``."""

    name: str
    k: int

    @classmethod
    def parse(cls, text: str) -> Metric:
        """Read ``name@K``.

        Raises:
            DeshiError: for an unknown name or a K that is no whole number from 1.
        """
        return cls(*read_metric(text))

    def __str__(self) -> str:
        return f"{self.name}@{self.k}"

    def per_example(self, ranks: Floats, examples: Examples) -> Floats:
        """``(C,)``: the metric of each example from the ranks ``(T,)`` of all targets."""
        return METRICS[self.name](example_ranks(ranks, examples.owners, len(examples)), self.k)


@dataclass(frozen=True)
class MetricProbe:
    """A metric of one model on any examples of one bundle.

    Attributes:
        scorer: the model.
        bundle: the data.
        metric: which one.
        filter_seen: as the run was evaluated.
        batch_size: examples at a time.
        device: where the scorer computes.
    """

    scorer: Scorer
    bundle: Bundle
    metric: Metric
    filter_seen: bool
    batch_size: int
    device: str = "cpu"

    def per_example(self, examples: Examples) -> Floats:
        """``(C,)`` the metric of each example."""
        return self.per_example_withheld(examples, examples.ends)

    def per_example_withheld(self, examples: Examples, ends: Ints) -> Floats:
        """``(C,)`` the metric of each example if its history ended at ``ends`` ``(C,)``.

        Only what the model reads changes: the withheld events stay out of the candidates wherever they were filtered.
        """
        shorter = replace(examples, ends=ends)
        ranking = evaluate_ranks(
            self.scorer, self.bundle, shorter, self.filter_seen, self.batch_size, self.device, top_k=0,
            seen_ends=examples.ends,
        )  # fmt: skip
        return self.metric.per_example(ranking.ranks["rank"].to_numpy(), examples)


def steps_back(bundle: Bundle, split: Split, steps: int) -> dict[str, Examples]:
    """Examples of the same users at one event after the other, from ``steps`` training targets back to the test target.

    Keys are ``train-2``, ``train-1`` (the last training target), ``validation`` and ``test``; every example has one
    target, and every step has the same users: those with an example in all of them. Empty if there are no such users.
    """
    first, train_end, valid_end = bundle.offsets[:-1], split.train_end, split.valid_end
    users = np.flatnonzero((train_end - steps > first) & (valid_end > train_end) & (bundle.offsets[1:] > valid_end))
    if not len(users):
        return {}
    rows = {f"train-{back}": train_end[users] - back for back in range(steps, 0, -1)}
    rows |= {"validation": train_end[users], "test": valid_end[users]}
    return {name: _one_target(users, first[users], targets) for name, targets in rows.items()}


def _one_target(users: Ints, starts: Ints, targets: Ints) -> Examples:
    return Examples(users, starts, targets, np.arange(len(users) + 1), targets)

"""Metrics of a model on chosen examples: with the newest events withheld, and steps back into training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deshi.arrays import Bools, Floats, Ints, offsets_of
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

    def ranks(self, examples: Examples) -> Floats:
        """``(T,)`` the exact rank of each target."""
        ranking = evaluate_ranks(
            self.scorer, self.bundle, examples, self.filter_seen, self.batch_size, self.device, top_k=0
        )
        return ranking.ranks["rank"].to_numpy()

    def per_example(self, examples: Examples) -> Floats:
        """``(C,)`` the metric of each example."""
        return self.metric.per_example(self.ranks(examples), examples)

    def per_example_withheld(self, examples: Examples, ends: Ints) -> Floats:
        """``(C,)`` the metric of each example if its history ended at ``ends`` ``(C,)``.

        Only what the model reads changes: the withheld events stay out of the candidates wherever they were filtered.
        """
        # With a shorter history the withheld items would become candidates. They are ranked as further targets, which
        # all stay candidates, and each that is ahead of a real target is then taken off its rank.
        extended, is_target = _with_withheld(self.bundle, examples, ends)
        ranks = self.ranks(extended)
        if self.filter_seen:
            ranks = _ranks_without_withheld(ranks, extended, is_target)
        return self.metric.per_example(ranks[is_target], examples)


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


def _with_withheld(bundle: Bundle, examples: Examples, ends: Ints) -> tuple[Examples, Bools]:
    """Examples with shorter histories and the withheld items as further targets, and which targets are the real ones.

    Args:
        bundle: the data.
        examples: ``C`` of them.
        ends: ``(C,)`` one past the last event that is still read.

    Returns:
        The examples with ``T`` targets in all, and ``(T,)`` whether each was one before.
    """
    rows, is_target, counts = [], [], []
    items = np.asarray(bundle.items)
    for example, (end, full_end) in enumerate(zip(ends.tolist(), examples.ends.tolist(), strict=True)):
        targets = examples.target_rows[examples.target_offsets[example] : examples.target_offsets[example + 1]]
        withheld = np.arange(end, full_end)
        # each withheld item once, by its first event, and never one that is a target anyway
        _, first = np.unique(items[withheld], return_index=True)
        withheld = withheld[np.sort(first)]
        withheld = withheld[~np.isin(items[withheld], items[targets])]
        rows += [targets, withheld]
        is_target += [np.ones(len(targets), bool), np.zeros(len(withheld), bool)]
        counts.append(len(targets) + len(withheld))
    extended = Examples(examples.users, examples.starts, ends, offsets_of(counts), np.concatenate(rows))
    return extended, np.concatenate(is_target)


def _ranks_without_withheld(ranks: Floats, examples: Examples, is_target: Bools) -> Floats:
    """The targets' ranks if withheld items were no candidates.

    A withheld item that ranks ahead of a target counts 1 in the target's rank, one of the same score counts half.
    """
    corrected = ranks.copy()
    for begin, end in zip(examples.target_offsets[:-1].tolist(), examples.target_offsets[1:].tolist(), strict=True):
        real = is_target[begin:end]
        targets, withheld = ranks[begin:end][real], ranks[begin:end][~real]
        if len(withheld):
            ahead = (withheld < targets[:, None]).sum(1) + (withheld == targets[:, None]).sum(1) / 2
            corrected[begin:end][real] = targets - ahead
    return corrected

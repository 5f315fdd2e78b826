"""The questions of the gap: validation, test, the test without the newest events, and steps back into training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deshi.arrays import Floats, Ints, offsets_of
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples, Split
from deshi.evaluation.ranking import evaluate_ranks
from deshi.metrics.ranking import METRICS, example_ranks, read_metric
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
class Asker:
    """Asks one ranker about any cases of one bundle.

    Attributes:
        scorer: the ranker.
        bundle: the data.
        metric: what an answer is worth.
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
        found = evaluate_ranks(self.scorer, self.bundle, examples, self.filter_seen, self.batch_size, self.device)
        return found.ranks["rank"].to_numpy()

    def worth(self, examples: Examples) -> Floats:
        """``(C,)`` the metric of each example."""
        return self.metric.per_example(self.ranks(examples), examples)

    def worth_withheld(self, examples: Examples, ends: Ints) -> Floats:
        """``(C,)`` the metric of each example if its history ended at ``ends`` ``(C,)``.

        Only what the model reads changes: the withheld events stay out of the candidates wherever they were filtered.
        """
        asked, own = _with_withheld(self.bundle, examples, ends)
        ranks = self.ranks(asked)
        if self.filter_seen:
            ranks = _without_others(ranks, asked, own)
        return self.metric.per_example(ranks[own], examples)


def steps_back(bundle: Bundle, split: Split, steps: int) -> dict[str, Examples]:
    """The same users asked at one place after the other, from ``steps`` training targets back to the test target.

    Keys are ``train-2``, ``train-1`` (the last training target), ``validation`` and ``test``; every example asks for
    one event, and every step has the same users: those with an example in all of them. Empty if there are no such
    users.
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


def _with_withheld(bundle: Bundle, examples: Examples, ends: Ints) -> tuple[Examples, NDArray[np.bool_]]:
    """Examples with shorter histories that ask for the withheld items too, and which targets are their own."""
    rows, own, counts = [], [], []
    items = np.asarray(bundle.items)
    for example, (end, old) in enumerate(zip(ends.tolist(), examples.ends.tolist(), strict=True)):
        targets = examples.target_rows[examples.target_offsets[example] : examples.target_offsets[example + 1]]
        withheld = np.arange(end, old)
        _, first = np.unique(items[withheld], return_index=True)
        withheld = withheld[np.sort(first)]
        withheld = withheld[~np.isin(items[withheld], items[targets])]
        rows += [targets, withheld]
        own += [np.ones(len(targets), bool), np.zeros(len(withheld), bool)]
        counts.append(len(targets) + len(withheld))
    offsets = offsets_of(counts)
    return Examples(examples.users, examples.starts, ends, offsets, np.concatenate(rows)), np.concatenate(own)


def _without_others(ranks: Floats, examples: Examples, own: NDArray[np.bool_]) -> Floats:
    """The ranks if the targets that aren't ``own`` were no candidates: each that is ahead gives its place back."""
    changed = ranks.copy()
    for begin, end in zip(examples.target_offsets[:-1].tolist(), examples.target_offsets[1:].tolist(), strict=True):
        mine, others = ranks[begin:end][own[begin:end]], ranks[begin:end][~own[begin:end]]
        if len(others):
            ahead = (others < mine[:, None]).sum(1) + (others == mine[:, None]).sum(1) / 2
            changed[begin:end][own[begin:end]] = mine - ahead
    return changed

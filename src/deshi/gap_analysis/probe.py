"""The questions of the gap: validation, test, the test without the newest events, and steps back into training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deshi.data.bundle import Bundle
from deshi.data.sequences import Ints
from deshi.data.splits import Cases, Split
from deshi.evaluation.ranking import evaluate_ranks
from deshi.metrics.ranking import METRICS, case_ranks, read_metric
from deshi.models.scorers import Scorer

Floats = NDArray[np.float64]


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

    def per_case(self, ranks: Floats, cases: Cases) -> Floats:
        """``(C,)``: the metric of each case from the ranks ``(T,)`` of all targets."""
        return METRICS[self.name](case_ranks(ranks, cases.owners, len(cases)), self.k)


@dataclass(frozen=True)
class Asker:
    """Asks one ranker about any cases of one bundle.

    Attributes:
        scorer: the ranker.
        bundle: the data.
        metric: what an answer is worth.
        filter_seen: as the run was evaluated.
        batch_size: cases at a time.
        device: where the scorer computes.
    """

    scorer: Scorer
    bundle: Bundle
    metric: Metric
    filter_seen: bool
    batch_size: int
    device: str = "cpu"

    def ranks(self, cases: Cases) -> Floats:
        """``(T,)`` the exact rank of each target."""
        found = evaluate_ranks(self.scorer, self.bundle, cases, self.filter_seen, self.batch_size, self.device)
        return found.ranks["rank"].to_numpy()

    def worth(self, cases: Cases) -> Floats:
        """``(C,)`` the metric of each case."""
        return self.metric.per_case(self.ranks(cases), cases)

    def worth_withheld(self, cases: Cases, ends: Ints) -> Floats:
        """``(C,)`` the metric of each case if its history ended at ``ends`` ``(C,)``.

        Only what the model reads changes: the withheld events stay out of the candidates wherever they were filtered.
        """
        asked, own = _with_withheld(self.bundle, cases, ends)
        ranks = self.ranks(asked)
        if self.filter_seen:
            ranks = _without_others(ranks, asked, own)
        return self.metric.per_case(ranks[own], cases)


def steps_back(bundle: Bundle, split: Split, steps: int) -> dict[str, Cases]:
    """The same users asked at one place after the other, from ``steps`` training targets back to the test target.

    Keys are ``train-2``, ``train-1`` (the last training target), ``validation`` and ``test``; every case asks for one
    event, and every step has the same users: those with a case in all of them. Empty if there are no such users.
    """
    first, train_end, valid_end = bundle.offsets[:-1], split.train_end, split.valid_end
    users = np.flatnonzero((train_end - steps > first) & (valid_end > train_end) & (bundle.offsets[1:] > valid_end))
    if not len(users):
        return {}
    rows = {f"train-{back}": train_end[users] - back for back in range(steps, 0, -1)}
    rows |= {"validation": train_end[users], "test": valid_end[users]}
    return {name: _one_target(users, first[users], targets) for name, targets in rows.items()}


def _one_target(users: Ints, starts: Ints, targets: Ints) -> Cases:
    return Cases(users, starts, targets, np.arange(len(users) + 1), targets)


def _with_withheld(bundle: Bundle, cases: Cases, ends: Ints) -> tuple[Cases, NDArray[np.bool_]]:
    """Cases with shorter histories that ask for the withheld items too, and which of the targets are the cases' own."""
    rows, own, counts = [], [], []
    items = np.asarray(bundle.items)
    for case, (end, old) in enumerate(zip(ends.tolist(), cases.ends.tolist(), strict=True)):
        targets = cases.target_rows[cases.target_offsets[case] : cases.target_offsets[case + 1]]
        withheld = np.arange(end, old)
        _, first = np.unique(items[withheld], return_index=True)
        withheld = withheld[np.sort(first)]
        withheld = withheld[~np.isin(items[withheld], items[targets])]
        rows += [targets, withheld]
        own += [np.ones(len(targets), bool), np.zeros(len(withheld), bool)]
        counts.append(len(targets) + len(withheld))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Cases(cases.users, cases.starts, ends, offsets, np.concatenate(rows)), np.concatenate(own)


def _without_others(ranks: Floats, cases: Cases, own: NDArray[np.bool_]) -> Floats:
    """The ranks if the targets that aren't ``own`` were no candidates: each that is ahead gives its place back."""
    changed = ranks.copy()
    for begin, end in zip(cases.target_offsets[:-1].tolist(), cases.target_offsets[1:].tolist(), strict=True):
        mine, others = ranks[begin:end][own[begin:end]], ranks[begin:end][~own[begin:end]]
        if len(others):
            ahead = (others < mine[:, None]).sum(1) + (others == mine[:, None]).sum(1) / 2
            changed[begin:end][own[begin:end]] = mine - ahead
    return changed

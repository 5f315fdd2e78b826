"""How far counts of item pairs explain a data set: the bar that a sequential model has to clear on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from deshi.arrays import Bools
from deshi.auditing._probe import AT, ndcg_per_example, sample_examples
from deshi.baselines import Pairwise, Popularity
from deshi.data.bundle import Bundle
from deshi.data.example_batches import ExampleBatch, ExampleBatches
from deshi.data.splits import Split
from deshi.metrics import example_ranks, metrics_per_example
from deshi.runs import Evaluation
from deshi.types import PAD

EXAMPLES = 20_000
"""The most validation examples that are ranked, evenly spaced."""

SUFFICIENT, NEARLY = 1.0, 0.9
"""From these shares of the student's NDCG on, the data are called pairwise-sufficient, and nearly so."""

_BATCH = 256


@dataclass(frozen=True)
class PairwiseEvidence:
    """Pairwise counts with their default settings against popularity and a plain student, on validation alone.

    Attributes:
        data: the data set's name.
        targets: validation targets that were looked at.
        after_last: share of the targets that came after the history's last item in training, near it.
        after_any: the same for any of the history's latest items.
        popularity: NDCG@10 of popularity.
        pairwise: NDCG@10 of pairwise counts.
        student: NDCG@10 of the best plain student that was evaluated on the same examples; None without one.
        evaluation: the name of its evaluation.
    """

    data: str
    targets: int
    after_last: float
    after_any: float
    popularity: float
    pairwise: float
    student: float | None = None
    evaluation: str | None = None

    @property
    def verdict(self) -> str:
        """One sentence, by the rule of ``docs/audit.md``."""
        if self.student is None:
            return (
                f"Whether {self.data} is pairwise-sufficient is open: no plain student was evaluated on its validation "
                f"part (deshi evaluate run=RUN part=both); it has to beat NDCG@{AT} {self.pairwise:.4f}."
            )
        share = self.pairwise / self.student if self.student > 0 else np.inf
        degree = "" if share >= SUFFICIENT else "nearly " if share >= NEARLY else "not "
        return (
            f"{self.data} is {degree}pairwise-sufficient: pairwise counts alone have {100 * share:.0f} % of the plain "
            f"student's validation NDCG@{AT} ({self.pairwise:.4f} of {self.student:.4f}, {self.evaluation})."
        )


def pairwise_evidence(
    bundle: Bundle, split: Split, evaluations: Sequence[Evaluation] = (), filter_seen: bool = True
) -> PairwiseEvidence | None:
    """Measure it on at most :data:`EXAMPLES` validation examples; None if there is no example.

    Args:
        bundle: the data.
        split: made from that bundle.
        evaluations: those of plain students on this bundle and split are compared.
        filter_seen: of the ranking.
    """
    every = split.examples(bundle, "validation")
    examples = sample_examples(every, EXAMPLES)
    if not len(examples):
        return None
    ranges = split.train_ranges(bundle)
    pairwise = Pairwise()
    pairwise.fit(bundle, *ranges)
    batches = list(ExampleBatches(bundle, examples, bundle.n_interactions, _BATCH, filter_seen))
    popularity = ndcg_per_example(Popularity().fit(bundle, *ranges), bundle, examples, filter_seen).mean()
    last, latest = _covered(pairwise, batches)
    chosen = np.isin(every.users, examples.users)
    students = {
        evaluation.name: _student_ndcg(evaluation, chosen)
        for evaluation in evaluations
        if _is_plain_student(evaluation, bundle, split, filter_seen)
    }
    best = max(students, key=lambda name: students[name], default=None)
    return PairwiseEvidence(
        bundle.name, len(last), float(last.mean()), float(latest.mean()), float(popularity),
        pairwise.validation_ndcg(batches), students.get(best) if best else None, best,
    )  # fmt: skip


def _covered(pairwise: Pairwise, batches: Sequence[ExampleBatch]) -> tuple[Bools, Bools]:
    """``(T,)`` both: whether a target was counted after the last item, and after any of the items that are read."""
    last, latest = [], []
    for batch in batches:
        rows, columns = np.nonzero((batch.targets != PAD).numpy())
        targets = batch.targets.numpy()[rows, columns]
        histories = batch.histories
        before = histories.items.numpy()[rows, histories.lengths.numpy()[rows] - 1]
        last.append(np.asarray(pairwise.counts[before, targets]).ravel() > 0)
        latest.append(pairwise.scores(histories).numpy()[rows, targets] > 0)
    return np.concatenate(last), np.concatenate(latest)


def _is_plain_student(evaluation: Evaluation, bundle: Bundle, split: Split, filter_seen: bool) -> bool:
    """Whether it is of a plain student that knows nothing of validation, measured by the same protocol."""
    record, fit = evaluation.record, evaluation.record.get("fit") or {}
    protocol = record.get("protocol") or {}
    return (
        record.get("data_fingerprint") == bundle.fingerprint
        and (fit.get("stage"), bool(fit.get("refit"))) == ("fit", False)
        and fit.get("train_targets") == "train"
        and protocol == {**protocol, "candidates": "full", "filter_seen": filter_seen, "split": split.description}
        and "validation" in evaluation.parts
    )


def _student_ndcg(evaluation: Evaluation, chosen: Bools) -> float:
    """NDCG@10 over the chosen examples ``(C,)``."""
    ranks = evaluation.ranks("validation").filter(pl.col("example").is_in(np.flatnonzero(chosen)))
    grouped = example_ranks(ranks["rank"].to_numpy(), ranks["example"].rle_id().to_numpy())
    return float(metrics_per_example(grouped, [AT])[f"ndcg@{AT}"].mean())

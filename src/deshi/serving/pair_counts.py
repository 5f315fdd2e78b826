"""Transition counts as a second score beside a student: their choice on validation, the sum, what pruning costs."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deshi.baselines import Pairwise, training_events
from deshi.data.bundle import Bundle
from deshi.data.example_batches import ExampleBatches
from deshi.data.splits import Examples
from deshi.models.scorers import Scorer, SequentialScorer
from deshi.runs import Run
from deshi.serving.pair_table import PairTable
from deshi.serving.parity import LIST, Parity, compare_scorers
from deshi.teachers import PairwiseTeacher, Pool, Resources, search_weights
from deshi.types import Batch, DeshiError

log = logging.getLogger(__name__)

BEST = 200
"""Highest entries of a row that are served."""
_BATCH = 256
"""Validation examples that are scored at a time."""


class JointScorer(Scorer):
    """``student + weight x counts``. The constants of a softmax of the student's logits would change no order.

    Args:
        student: its scores are logits.
        counts: fitted.
        weight: of the counts.
    """

    def __init__(self, student: Scorer, counts: Pairwise, weight: float) -> None:
        self.n_items, self._student, self._counts, self._weight = student.n_items, student, counts, weight

    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32."""
        return self._student.scores(batch).add_(self._counts.scores(batch), alpha=self._weight)


@dataclass(frozen=True, eq=False)
class ServedCounts:
    """Counts that are served beside a student.

    Attributes:
        counts: of the events that the student's final weights were trained on.
        pruned: the same with the table that is served.
        weight: of the counts.
        tried: each weight that was tried with the NDCG@10 of the sum on validation.
    """

    counts: Pairwise
    pruned: Pairwise
    weight: float
    tried: tuple[tuple[float, float], ...]

    @cached_property
    def table(self) -> PairTable:
        """The pruned table as the bundle's file holds it."""
        table = self.pruned.table
        return PairTable(
            table.indptr.astype(np.int64),
            table.indices.astype(np.min_scalar_type(max(self.counts.n_items - 1, 0))),
            table.data.astype(np.float16),
            self.counts.history_weights(),
            self.weight,
        )

    def plain(self) -> dict[str, Any]:
        """Weight and settings, JSON-able."""
        return {
            "weight": self.weight,
            "settings": self.counts.settings | {"latest": self.counts.latest},
            "best": BEST,
            "validation_ndcg10": [{"weight": weight, "ndcg@10": value} for weight, value in self.tried],
        }


def choose_counts(run: Run, weight: float | None = None) -> ServedCounts | None:
    """Counts for a run's student: settings and weight by NDCG@10 on validation, then counts of what it was trained on.

    The choice is that of a run which wasn't refitted: by the network that validation selected and counts of training
    events alone.

    Args:
        run: of a student.
        weight: of the counts; None chooses it from 0 to 10.

    Returns:
        None where no weight above 0 is better than the student alone.

    Raises:
        DeshiError: if there is no validation to choose by, or it was trained on.
    """
    validation, student = _validation(run), SequentialScorer(run.selected_student())
    counts = _chosen_counts(run, student, validation)
    pool = _pool(student, counts, validation)
    if weight is None:
        tried = [(weights[1], value) for weights, value in search_weights(pool, [False, True], steps=1)]
    else:
        tried = list(zip((weight, 0.0), pool.ndcg([[1.0, weight], [1.0, 0.0]]), strict=True))
    weight, value = tried[0]
    log.info("counts of weight %g: validation NDCG@10 %.4f, %.4f without", weight, value, dict(tried)[0.0])
    if not weight:
        return None
    counts.fit_events(training_events(run.bundle, *run.trained_ranges()))
    return ServedCounts(counts, counts.pruned(BEST), weight, tuple(tried))


def _chosen_counts(run: Run, student: SequentialScorer, validation: ExampleBatches) -> Pairwise:
    """Counts of the training events, with the settings that :class:`PairwiseTeacher` chooses beside the student."""
    ranges = run.split.train_ranges(run.bundle, run.config.train.train_targets)
    resources = Resources(
        run.bundle, run.paths.cache, lambda name: (student.network, run.record), torch.device("cpu"),
        lambda name, device: (student, run.record), lambda: ranges,
    )  # fmt: skip
    teacher = PairwiseTeacher(run.bundle.n_items, resources, members=[run.name])
    teacher.restore(teacher.fit(validation))
    return teacher.counts


def _validation(run: Run) -> ExampleBatches:
    if run.config.train.train_targets == "including_validation":
        raise DeshiError(
            f"The run {run.folder} was trained with train_targets=including_validation, so that nothing is left to "
            "choose counts by. Train with train_targets=train, or export with counts=false."
        )
    examples = run.split.examples(run.bundle, "validation")
    if not len(examples):
        raise DeshiError(
            f"The split of {run.folder} has no validation example to choose counts by. Export with counts=false."
        )
    return ExampleBatches(run.bundle, examples, run.bundle.n_interactions, _BATCH, run.config.eval.filter_seen)


@torch.no_grad()
def _pool(student: Scorer, counts: Pairwise, validation: ExampleBatches) -> Pool:
    pool = Pool()
    for batch in validation:
        pool.add(batch, [student.scores(batch.histories), counts.scores(batch.histories)])
    return pool


@dataclass(frozen=True)
class CountsReport:
    """What a bundle's counts change, on test examples; on validation, where they were chosen.

    Attributes:
        weight: of the counts.
        validation_ndcg10: of the sum, with all entries, for the selected student.
        validation_ndcg10_student: of that student alone.
        entries: of the served table.
        all_entries: of the table before pruning.
        examples: of the test.
        lists_equal: of their top-10 lists, those that are the same with all entries in single precision.
        ndcg10: of what is served.
        ndcg10_all_entries: with all entries in single precision.
        ndcg10_student: of the student alone.
    """

    weight: float
    validation_ndcg10: float
    validation_ndcg10_student: float
    entries: int
    all_entries: int
    examples: int
    lists_equal: int
    ndcg10: float
    ndcg10_all_entries: float
    ndcg10_student: float

    def plain(self) -> dict[str, Any]:
        """As JSON-able numbers."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """The same for people."""
        return [
            f"counts of weight {self.weight:g}: validation NDCG@{LIST} {self.validation_ndcg10_student:.4f} -> "
            f"{self.validation_ndcg10:.4f}, test {self.ndcg10_student:.4f} -> {self.ndcg10:.4f}.",
            f"counts: the best {BEST} of each row, {self.entries:,} of {self.all_entries:,} entries, in half "
            f"precision; {self.lists_equal:,} of {self.examples:,} top-{LIST} lists are those of all entries in single "
            f"precision, whose test NDCG@{LIST} is {self.ndcg10_all_entries:.4f}.",
        ]


def report_counts(
    student: Scorer, served: ServedCounts, bundle: Bundle, examples: Examples, filter_seen: bool
) -> CountsReport:
    """Compare what is served with the student alone and with the whole table.

    Args:
        student: the final one.
        served: its counts.
        bundle: the data.
        examples: of the test.
        filter_seen: whether items of the history are no candidates.
    """
    joint = JointScorer(student, served.pruned, served.weight)

    def against(model: Scorer) -> Parity:
        return compare_scorers(model, joint, bundle, examples, filter_seen, tolerance=1e-3)

    alone, whole = against(student), against(JointScorer(student, served.counts, served.weight))
    return CountsReport(
        weight=served.weight,
        validation_ndcg10=served.tried[0][1],
        validation_ndcg10_student=dict(served.tried)[0.0],
        entries=served.pruned.table.nnz,
        all_entries=served.counts.table.nnz,
        examples=whole.examples,
        lists_equal=whole.lists_equal,
        ndcg10=whole.ndcg10_graph,
        ndcg10_all_entries=whole.ndcg10_model,
        ndcg10_student=alone.ndcg10_model,
    )

"""Plain data of a comparison, for tables, files and the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Model:
    """One row of a comparison: evaluations that differ only in the seed, or a baseline.

    Attributes:
        name: short, unique in the comparison.
        kind: the student, teacher or baseline that it is, such as ``sasrec``.
        seeds: of its runs, in the order of ``evaluations``; empty for a baseline.
        evaluations: the evaluations' folders.
        settings: the configuration shared by its runs, by dotted key; empty for a baseline.
        is_baseline: whether it is a baseline.
    """

    name: str
    kind: str
    seeds: tuple[int, ...]
    evaluations: tuple[str, ...]
    settings: Mapping[str, Any] = field(repr=False)
    is_baseline: bool = False


@dataclass(frozen=True)
class Figure:
    """A model's metric: the mean over users and seeds, and how sure it is.

    Attributes:
        mean: over users, of the mean over seeds.
        std: standard deviation (n - 1) of ``by_seed``; None with fewer than two seeds.
        low: lower end of the bootstrap interval over users.
        high: upper end.
        by_seed: the mean over users of each run, in the order of the model's evaluations.
    """

    mean: float
    std: float | None
    low: float
    high: float
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class PairTest:
    """Two models on one metric, paired by user.

    Attributes:
        metric: its name, such as ``ndcg@10``.
        first: a model's name.
        second: the name of the model that it is compared with.
        difference: mean of first minus second.
        low: lower end of its paired bootstrap interval.
        high: upper end.
        permutation_p: two-sided, uncorrected.
        wilcoxon_p: two-sided, uncorrected.
        permutation_holm: corrected over all tests of the comparison.
        wilcoxon_holm: corrected over all tests of the comparison.
        effect_size: Cohen's d of the paired differences.
        wins: users for whom first is better.
        ties: users for whom both are equal.
        losses: users for whom second is better.
    """

    metric: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    permutation_p: float
    wilcoxon_p: float
    permutation_holm: float
    wilcoxon_holm: float
    effect_size: float
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class Comparison:
    """Models with their figures and paired tests, by :func:`deshi.comparison.compare_evaluations`.

    Attributes:
        data: the data set's name.
        part: validation or test.
        n_users: over whom everything is measured.
        metrics: the names, in the order of the columns.
        models: in the order of the rows; the best is not put first.
        figures: by model's name and metric.
        tests: every pair (or every model with ``against``) on every metric; empty for a single model.
        against: the name of the model that all are compared with, or None for all pairs.
        confidence: of the intervals; ``1 - confidence`` is the level of the tests.
        samples: bootstrap resamples.
        permutations: random sign flips of a permutation test.
        seed: of both.
        protocol: how the evaluations were measured, by dotted key.
        warnings: sentences of the evaluations about what makes their figures doubtful, with the model's name.
        notes: sentences about the comparison.
    """

    data: str
    part: str
    n_users: int
    metrics: Sequence[str]
    models: Sequence[Model]
    figures: Mapping[str, Mapping[str, Figure]]
    tests: Sequence[PairTest]
    against: str | None
    confidence: float
    samples: int
    permutations: int
    seed: int
    protocol: Mapping[str, Any]
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def level(self) -> float:
        """Corrected p-values below this are called significant."""
        return 1.0 - self.confidence

    def best(self, metric: str) -> list[str]:
        """The names of the models with the greatest mean of ``metric``; several if they are equal."""
        means = {name: figures[metric].mean for name, figures in self.figures.items()}
        top = max(means.values())
        return [name for name, mean in means.items() if math.isclose(mean, top, rel_tol=0, abs_tol=1e-12)]

    def compared_with(self, metric: str) -> str:
        """The model that the marks of a metric's column refer to: ``against``, or else the best of the column."""
        return self.against if self.against is not None else self.best(metric)[0]

    def marked(self, metric: str) -> set[str]:
        """The names of the models that differ significantly from :meth:`compared_with` (permutation test, Holm)."""
        opponent = self.compared_with(metric)
        return {
            test.first if test.second == opponent else test.second
            for test in self.tests
            if test.metric == metric and opponent in (test.first, test.second) and test.permutation_holm < self.level
        }

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-able values; an infinite effect size becomes None."""
        plain: dict[str, Any] = asdict(self)
        for test in plain["tests"]:
            if not math.isfinite(test["effect_size"]):
                test["effect_size"] = None
        return plain

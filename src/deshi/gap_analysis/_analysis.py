"""The analysis of a gap: all figures of one model and the verdict, from its ranks on chosen examples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deshi.arrays import Floats, Ints
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples, Split
from deshi.evaluation import leaked_targets, seen_targets
from deshi.gap_analysis._covariates import Covariate, TrainingItems, covariates, unseen_share
from deshi.gap_analysis._decomposition import decompose, design
from deshi.gap_analysis._headline import headline
from deshi.gap_analysis._probe import MetricProbe, steps_back
from deshi.gap_analysis._result import Contribution, Counterfactual, GapResult, Step
from deshi.gap_analysis._verdict import find_cliff, judge
from deshi.metrics import Interval, bootstrap_interval
from deshi.types import DeshiError


@dataclass(frozen=True)
class GapAnalysis:
    """Validation and test of one model, compared.

    Attributes:
        selected: the model that validation selected.
        refitted: the model that was retrained on training and validation, if there is one.
        split: of the data.
        starts: ``(n_users,)`` flat positions, with ``ends`` the events that ``selected`` was trained on.
        ends: ``(n_users,)`` flat positions.
        steps: training targets of a user that the ladder begins with, at most.
        samples: of the bootstrap over users.
        confidence: of the intervals.
        seed: of the resampling.
    """

    selected: MetricProbe
    refitted: MetricProbe | None
    split: Split
    starts: Ints
    ends: Ints
    steps: int
    samples: int
    confidence: float
    seed: int

    @property
    def bundle(self) -> Bundle:
        """The data."""
        return self.selected.bundle

    @cached_property
    def validation(self) -> Examples:
        """The validation examples."""
        return self._examples("validation")

    @cached_property
    def test(self) -> Examples:
        """The test examples."""
        return self._examples("test")

    @cached_property
    def validation_values(self) -> Floats:
        """The metric of each validation example."""
        return self.selected.per_example(self.validation)

    @cached_property
    def test_values(self) -> Floats:
        """The metric of each test example."""
        return self.selected.per_example(self.test)

    def result(self, run: str) -> GapResult:
        """All figures and the verdict; ``run`` is the name of the analysed run."""
        users = (self.validation.users, self.test.users)
        bootstrap = (self.samples, self.confidence, self.seed)
        figures = headline(self.validation_values, self.test_values, users, *bootstrap)
        contributions, residue = self._contributions(users)
        ladder = self._ladder()
        cliff = find_cliff(ladder, *bootstrap)
        explained = sum(each.interval.mean for each in contributions)
        verdict, sentence = judge(figures.difference, figures.ratio, residue, explained, cliff, self._leaked())
        return GapResult(
            str(self.selected.metric), run, *figures,
            [*contributions, Contribution("residue", residue, "examples that are alike in all of the above")],
            self._counterfactuals(),
            [Step(name, self._mean(values), len(values)) for name, values in ladder.items()],
            verdict, sentence, self._notes(ladder), self.confidence,
        )  # fmt: skip

    def _examples(self, part: str) -> Examples:
        examples = self.split.examples(self.bundle, part)
        if not len(examples):
            raise DeshiError(f"The split {self.split.name} of {self.bundle.name} has no {part} example to compare.")
        return examples

    def _contributions(self, users: tuple[Ints, Ints]) -> tuple[list[Contribution], Interval]:
        trained = TrainingItems.of(self.bundle, self.starts, self.ends)
        properties = covariates(trained, self.validation, self.test)
        inputs = design(properties, (self.validation_values, self.test_values), users)
        intervals, residue = decompose(inputs, self.samples, self.confidence, self.seed)
        contributions = [
            Contribution(covariate.name, interval, self._medians(covariate, trained))
            for covariate, interval in zip(properties, intervals, strict=True)
        ]
        return contributions, residue

    def _medians(self, covariate: Covariate, trained: TrainingItems) -> str:
        before, after = float(np.nanmedian(covariate.validation)), float(np.nanmedian(covariate.test))
        name = covariate.name
        note = f"median {_with_unit(name, before)} at validation, {_with_unit(name, after)} at test"
        if name == "target popularity":
            shares = [unseen_share(trained, examples) for examples in (self.validation, self.test)]
            note += f"; unseen {shares[0]:.1%} and {shares[1]:.1%}"
        return note

    def _ladder(self) -> dict[str, Floats]:
        """The metric of each step's examples; a step that is the whole of a part isn't ranked again."""
        parts = [(self.validation, self.validation_values), (self.test, self.test_values)]
        ladder = {}
        for name, examples in self._longest_ladder().items():
            ranked = [values for part, values in parts if _same(examples, part)]
            ladder[name] = ranked[0] if ranked else self.selected.per_example(examples)
        return ladder

    def _longest_ladder(self) -> dict[str, Examples]:
        """As many steps back as at least half of the users have; none if they have no step."""
        for steps in range(self.steps, 0, -1):
            ladder = steps_back(self.bundle, self.split, steps)
            if ladder and len(next(iter(ladder.values()))) * 2 >= len(self.test):
                return ladder
        return {}

    def _counterfactuals(self) -> list[Counterfactual]:
        """The test metric under other treatments of the newest events."""
        counterfactuals = []
        ends = np.minimum(self.split.train_end[self.test.users], self.test.ends)
        has_history = ends > self.test.starts
        if (ends < self.test.ends)[has_history].any():
            users = np.zeros(self.bundle.n_users, dtype=bool)
            users[self.test.users[has_history]] = True  # a part has at most one example a user
            withheld = self.selected.per_example_withheld(self.test.of_users(users), ends[has_history])
            name = "newest events withheld from the history"
            counterfactuals.append(self._counterfactual(name, withheld, self.test_values[has_history]))
        if self.refitted is not None:
            values = self.refitted.per_example(self.test)
            counterfactuals.append(self._counterfactual("refit on training and validation", values, self.test_values))
        return counterfactuals

    def _counterfactual(self, name: str, values: Floats, measured: Floats) -> Counterfactual:
        return Counterfactual(name, self._mean(values), self._mean(values - measured))

    def _leaked(self) -> list[str]:
        parts = {"validation": self.validation, "test": self.test}
        return [part for part, examples in parts.items() if leaked_targets(examples, self.ends)]

    def _notes(self, ladder: dict[str, Floats]) -> list[str]:
        notes = []
        if self.refitted is None:
            notes.append("Training on the newest events: fit with train.refit=true, and deshi gap shows what it gives.")
        if not ladder:
            notes.append("No steps back: fewer than half of the users have a training target, validation and test.")
        if self.bundle.time_unit != "ms":
            notes.append("The data have positions, no times: target age and pauses are unknown.")
        seen = seen_targets(self.bundle, self.split, self.selected.filter_seen)
        return [*notes, *(part.sentence for part in seen)]

    def _mean(self, values: Floats) -> Interval:
        return bootstrap_interval(values, self.confidence, self.samples, self.seed)


def _same(first: Examples, second: Examples) -> bool:
    pairs = ((first.users, second.users), (first.ends, second.ends), (first.target_rows, second.target_rows))
    return all(np.array_equal(left, right) for left, right in pairs)


def _with_unit(name: str, value: float) -> str:
    """A median with its unit."""
    if not name.startswith(("time", "target age")):
        return f"{value:,.0f}"
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value:,.0f} ms"

"""The work of ``deshi gap``: why validation and test differ, from the run's own student, without any training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deshi.arrays import Floats, Ints
from deshi.artifacts import write_json
from deshi.configuration.run_folders import name_of
from deshi.configuration.schemas import GapConfig
from deshi.data.splits import Examples
from deshi.evaluation.leaks import leaked_targets
from deshi.gap_analysis.covariates import Covariate, Known, covariates, unseen_share
from deshi.gap_analysis.decomposition import decompose, design
from deshi.gap_analysis.headline import headline
from deshi.gap_analysis.probe import Asker, Metric, steps_back
from deshi.gap_analysis.result import Counterfactual, GapResult, Part, Step
from deshi.gap_analysis.verdict import find_cliff, judge
from deshi.hardware import training_device
from deshi.metrics.significance import Interval, bootstrap_interval
from deshi.models.scorers import Scorer, scorer_of
from deshi.runs import Run, new_run, write_record
from deshi.types import DeshiError


@dataclass(frozen=True, eq=False)
class _Answers:
    """What the student answered: the metric of each example."""

    validation: Floats
    test: Floats
    users: tuple[Ints, Ints]


def run(cfg: GapConfig) -> GapResult:
    """Explain the gap between validation and test of ``cfg.run`` and write a run folder.

    Raises:
        DeshiError: if the run or its bundle is missing, or a part has no examples.
    """
    metric = Metric.parse(cfg.metric)
    return _Explanation(cfg, metric, Run.open(cfg.run, cfg.paths)).result()


class _Explanation:
    """One explanation, part by part."""

    def __init__(self, cfg: GapConfig, metric: Metric, run: Run) -> None:
        self.cfg, self.metric, self.run = cfg, metric, run
        self.settings = run.config.eval
        self.bundle, self.split = run.bundle, run.split
        self.final = run.scorer(str(training_device("auto")))
        self.refitted = bool(run.record["refit"])
        self.selected = self._selected() if self.refitted else self.final
        self.starts, self.ends = self._trained()
        self.validation, self.test = (self._examples(part) for part in ("validation", "test"))

    def result(self) -> GapResult:
        """Ask, compare and judge; write the run folder."""
        asker = self._asker(self.selected)
        answers = _Answers(
            asker.worth(self.validation), asker.worth(self.test), (self.validation.users, self.test.users)
        )
        cfg = self.cfg
        found = headline(answers.validation, answers.test, answers.users, cfg.samples, cfg.confidence, cfg.seed)
        parts, residue = self._parts(answers)
        ladder = self._asked(asker, answers)
        cliff = find_cliff(ladder, cfg.samples, cfg.confidence, cfg.seed)
        explained = sum(part.interval.mean for part in parts)
        verdict, sentence = judge(found.difference, found.ratio, residue, explained, cliff, self._leaked())
        folder = new_run(cfg, "gap", name_of(self.run.folder))
        result = GapResult(
            folder, str(self.metric), self.run.name, *found,
            [*parts, Part("residue", residue, "examples that are alike in all of the above")],
            self._counterfactuals(asker, answers),
            [Step(name, self._mean(worth), len(worth)) for name, worth in ladder.items()],
            verdict, sentence, self._notes(ladder), cfg.confidence,
        )  # fmt: skip
        self._write(result)
        return result

    def _trained(self) -> tuple[Ints, Ints]:
        """What the selected student was trained on: with a refit, not yet the validation events."""
        if self.refitted:
            return self.split.train_ranges(self.bundle)
        return self.run.trained_ranges()

    def _examples(self, part: str) -> Examples:
        examples = self.split.examples(self.bundle, part)
        if not len(examples):
            raise DeshiError(f"The split {self.split.name} of {self.bundle.name} has no {part} example to compare.")
        return examples

    def _selected(self) -> Scorer:
        return scorer_of(self.run.selected_student(), str(training_device("auto")))

    def _asker(self, scorer: Scorer) -> Asker:
        cfg = self.settings
        return Asker(scorer, self.bundle, self.metric, cfg.filter_seen, cfg.batch_size, str(training_device("auto")))

    def _parts(self, answers: _Answers) -> tuple[list[Part], Interval]:
        known = Known.of(self.bundle, self.starts, self.ends)
        properties = covariates(known, self.validation, self.test)
        inputs = design(properties, (answers.validation, answers.test), answers.users)
        found, residue = decompose(inputs, self.cfg.samples, self.cfg.confidence, self.cfg.seed)
        parts = [Part(one.name, value, self._note(one, known)) for one, value in zip(properties, found, strict=True)]
        return parts, residue

    def _note(self, one: Covariate, known: Known) -> str:
        before, after = float(np.nanmedian(one.validation)), float(np.nanmedian(one.test))
        note = f"median {_short(one.name, before)} at validation, {_short(one.name, after)} at test"
        if one.name == "target popularity":
            shares = [unseen_share(known, examples) for examples in (self.validation, self.test)]
            note += f"; unseen {shares[0]:.1%} and {shares[1]:.1%}"
        return note

    def _asked(self, asker: Asker, answers: _Answers) -> dict[str, Floats]:
        """The metric of each step's examples; what was answered already isn't asked again."""
        known = [(self.validation, answers.validation), (self.test, answers.test)]
        found = {}
        for name, examples in self._ladder().items():
            same = [worth for other, worth in known if _same(examples, other)]
            found[name] = same[0] if same else asker.worth(examples)
        return found

    def _ladder(self) -> dict[str, Examples]:
        for steps in range(self.cfg.steps, 0, -1):
            ladder = steps_back(self.bundle, self.split, steps)
            if ladder and len(next(iter(ladder.values()))) * 2 >= len(self.test):
                return ladder
        return {}

    def _counterfactuals(self, asker: Asker, answers: _Answers) -> list[Counterfactual]:
        """What other treatments of the newest events would have given at test."""
        found = []
        ends = np.minimum(self.split.train_end[self.test.users], self.test.ends)
        able = ends > self.test.starts
        if (ends < self.test.ends)[able].any():
            users = np.zeros(self.bundle.n_users, dtype=bool)
            users[self.test.users[able]] = True  # a part has at most one example a user
            withheld = asker.worth_withheld(self.test.of_users(users), ends[able])
            found.append(self._against("newest events withheld from the history", withheld, answers.test[able]))
        if self.refitted:
            refit = self._asker(self.final).worth(self.test)
            found.append(self._against("refit on training and validation", refit, answers.test))
        return found

    def _against(self, name: str, other: Floats, test: Floats) -> Counterfactual:
        return Counterfactual(name, self._mean(other), self._mean(other - test))

    def _leaked(self) -> list[str]:
        parts = {"validation": self.validation, "test": self.test}
        return [part for part, examples in parts.items() if leaked_targets(examples, self.ends)]

    def _notes(self, ladder: dict[str, Floats]) -> list[str]:
        notes = []
        if not self.refitted:
            notes.append("Training on the newest events: fit with train.refit=true, and deshi gap shows what it gives.")
        if not ladder:
            notes.append("No steps back: fewer than half of the users have a training target, validation and test.")
        if self.bundle.time_unit != "ms":
            notes.append("The data have positions, no times: target age and pauses are unknown.")
        return notes

    def _mean(self, worth: Floats) -> Interval:
        return bootstrap_interval(worth, self.cfg.confidence, self.cfg.samples, self.cfg.seed)

    def _write(self, result: GapResult) -> None:
        write_record(result.folder, {
            "stage": "gap", "run": str(self.run.folder), "data": self.bundle.name,
            "data_fingerprint": self.bundle.fingerprint, "split": self.split.description, "fit": self.run.record,
        })  # fmt: skip
        write_json(result.folder / "gap.json", result.as_dict())


def _same(first: Examples, second: Examples) -> bool:
    pairs = ((first.users, second.users), (first.ends, second.ends), (first.target_rows, second.target_rows))
    return all(np.array_equal(one, other) for one, other in pairs)


def _short(name: str, value: float) -> str:
    """A median with its unit."""
    if not name.startswith(("time", "target age")):
        return f"{value:,.0f}"
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value:,.0f} ms"

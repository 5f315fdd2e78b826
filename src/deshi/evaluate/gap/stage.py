"""The stage ``gap``: why validation and test differ, from the run's own student, without training anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deshi.artifacts import environment, new_run_folder, write_json
from deshi.config import load_config, save_config
from deshi.data.sequences import Ints
from deshi.data.splits import Cases
from deshi.evaluate.gap.asked import Asker, Metric, steps_back
from deshi.evaluate.gap.covariates import Covariate, Known, covariates, unseen_share
from deshi.evaluate.gap.decomposition import decompose, design
from deshi.evaluate.gap.result import Counterfactual, GapResult, Part, Step
from deshi.evaluate.gap.verdict import find_cliff, judge
from deshi.evaluate.subject import Subject, find_subject, leaked_targets
from deshi.metrics.significance import Interval, bootstrap_means, percentile_bounds
from deshi.schemas import EvaluateConfig, FitConfig, GapConfig
from deshi.students.base import Student
from deshi.students.scorers import StudentScorer
from deshi.training.fit import load_selected_student
from deshi.types import DeshiError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Answers:
    """What the student answered: the metric of each case."""

    validation: Floats
    test: Floats
    users: tuple[Ints, Ints]


def run(cfg: GapConfig) -> GapResult:
    """Explain the gap between validation and test of ``cfg.run`` and write a run folder.

    Raises:
        DeshiError: if the run or its bundle is missing, or a part has no cases.
    """
    metric = Metric.parse(cfg.metric)
    subject = find_subject(EvaluateConfig(run=cfg.run, paths=cfg.paths))
    return _Explanation(cfg, metric, subject).result()


class _Explanation:
    """One explanation, part by part."""

    def __init__(self, cfg: GapConfig, metric: Metric, subject: Subject) -> None:
        assert subject.student is not None and subject.record is not None and subject.folder is not None
        self.cfg, self.metric, self.subject = cfg, metric, subject
        self.folder, self.record = subject.folder, subject.record
        self.settings = load_config(self.folder, FitConfig).eval
        self.bundle, self.split = subject.bundle, subject.split
        self.final = subject.student
        self.refitted = bool(self.record["refit"])
        self.selected = load_selected_student(self.folder) if self.refitted else self.final
        self.starts, self.ends = self._trained()
        self.validation, self.test = (self._cases(part) for part in ("validation", "test"))

    def result(self) -> GapResult:
        """Ask, compare and judge; write the run folder."""
        asker = self._asker(self.selected)
        answers = _Answers(
            asker.worth(self.validation), asker.worth(self.test), (self.validation.users, self.test.users)
        )
        validation, test, difference, ratio = self._headline(answers)
        parts, residue = self._parts(answers)
        ladder = self._asked(asker, answers)
        cliff = find_cliff(ladder, self.cfg.samples, self.cfg.confidence, self.cfg.seed)
        explained = sum(part.interval.mean for part in parts)
        verdict, sentence = judge(difference, ratio, residue, explained, cliff, self._leaked())
        folder = new_run_folder(self.cfg.paths.runs, "gap", self.folder.name.partition("_")[2])
        result = GapResult(
            folder, str(self.metric), self.folder.name, validation, test, difference, ratio,
            [*parts, Part("residue", residue, "cases that are alike in all of the above")],
            self._counterfactuals(asker, answers), [Step(name, *self._mean(worth)) for name, worth in ladder.items()],
            verdict, sentence, self._notes(ladder),
        )  # fmt: skip
        self._write(result)
        return result

    def _trained(self) -> tuple[Ints, Ints]:
        """What the selected student was trained on: with a refit, not yet the validation events."""
        if self.refitted:
            return self.split.train_ranges(self.bundle)
        return self.subject.starts, self.subject.ends

    def _cases(self, part: str) -> Cases:
        cases = self.split.cases(self.bundle, part)
        if not len(cases):
            raise DeshiError(f"The split {self.split.name} of {self.bundle.name} has no {part} case to compare.")
        return cases

    def _asker(self, student: Student) -> Asker:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        cfg = self.settings
        return Asker(StudentScorer(student, device), self.bundle, self.metric, cfg.filter_seen, cfg.batch_size, device)

    def _headline(self, answers: _Answers) -> tuple[Interval, Interval, Interval, Interval]:
        """Validation, test, their difference and their ratio; users are resampled with all of their cases."""
        drawn = _resampled(answers, self.cfg.samples, self.cfg.seed)
        point = np.array([answers.validation.mean(), answers.test.mean()])
        return (
            self._interval(float(point[0]), drawn[:, 0]),
            self._interval(float(point[1]), drawn[:, 1]),
            self._interval(float(point[1] - point[0]), drawn[:, 1] - drawn[:, 0]),
            self._interval(_ratio(point[1], point[0]), _ratios(drawn[:, 1], drawn[:, 0])),
        )

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
            shares = [unseen_share(known, cases) for cases in (self.validation, self.test)]
            note += f"; unseen {shares[0]:.1%} and {shares[1]:.1%}"
        return note

    def _asked(self, asker: Asker, answers: _Answers) -> dict[str, Floats]:
        """The metric of each step's cases; what was answered already isn't asked again."""
        known = [(self.validation, answers.validation), (self.test, answers.test)]
        found = {}
        for name, cases in self._ladder().items():
            same = [worth for other, worth in known if _same(cases, other)]
            found[name] = same[0] if same else asker.worth(cases)
        return found

    def _ladder(self) -> dict[str, Cases]:
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
            cases = _subset(self.test, able)
            withheld = asker.worth_withheld(cases, ends[able])
            found.append(self._against("newest events withheld from the history", withheld, answers.test[able]))
        if self.refitted:
            refit = self._asker(self.final).worth(self.test)
            found.append(self._against("refit on training and validation", refit, answers.test))
        return found

    def _against(self, name: str, other: Floats, test: Floats) -> Counterfactual:
        mean, change = self._mean(other)[0], self._mean(other - test)[0]
        return Counterfactual(name, mean, change)

    def _leaked(self) -> list[str]:
        now = Subject(self.bundle, self.split, self.starts, self.ends)
        parts = {"validation": self.validation, "test": self.test}
        return [part for part, cases in parts.items() if leaked_targets(now, cases)]

    def _notes(self, ladder: dict[str, Floats]) -> list[str]:
        notes = []
        if not self.refitted:
            notes.append("Training on the newest events: fit with train.refit=true, and deshi gap shows what it gives.")
        if not ladder:
            notes.append("No steps back: fewer than half of the users have a training target, validation and test.")
        if self.bundle.time_unit != "ms":
            notes.append("The data have positions, no times: target age and pauses are unknown.")
        return notes

    def _mean(self, worth: Floats) -> tuple[Interval, int]:
        means = bootstrap_means(worth, self.cfg.samples, self.cfg.seed)
        return self._interval(float(worth.mean()), means), len(worth)

    def _interval(self, point: float, drawn: Floats) -> Interval:
        real = drawn[np.isfinite(drawn)]
        low, high = percentile_bounds(real, self.cfg.confidence) if len(real) else (np.nan, np.nan)
        return Interval(point, float(low), float(high))

    def _write(self, result: GapResult) -> None:
        save_config(result.folder, self.cfg)
        write_json(result.folder / "environment.json", environment())
        write_json(result.folder / "run.json", {
            "stage": "gap", "run": str(self.folder), "data": self.bundle.name,
            "data_fingerprint": self.bundle.fingerprint, "split": self.split.description, "fit": self.record,
        })  # fmt: skip
        write_json(result.folder / "gap.json", result.as_dict())


def _resampled(answers: _Answers, samples: int, seed: int) -> Floats:
    """``(samples, 2)`` means of validation and test over resampled users, each with the cases that it has."""
    users = np.union1d(*answers.users)
    sums = np.zeros((len(users), 4))
    for column, (own, worth) in enumerate(zip(answers.users, (answers.validation, answers.test), strict=True)):
        places = np.searchsorted(users, own)
        np.add.at(sums[:, column], places, worth)
        np.add.at(sums[:, 2 + column], places, 1.0)
    means = bootstrap_means(sums, samples, seed)
    return np.stack([_ratios(means[:, 0], means[:, 2]), _ratios(means[:, 1], means[:, 3])], axis=1)


def _same(first: Cases, second: Cases) -> bool:
    pairs = ((first.users, second.users), (first.ends, second.ends), (first.target_rows, second.target_rows))
    return all(np.array_equal(one, other) for one, other in pairs)


def _subset(cases: Cases, keep: NDArray[np.bool_]) -> Cases:
    sizes = np.diff(cases.target_offsets)
    rows = cases.target_rows[np.repeat(keep, sizes)]
    offsets = np.concatenate([[0], np.cumsum(sizes[keep])])
    return Cases(cases.users[keep], cases.starts[keep], cases.ends[keep], offsets, rows)


def _ratio(over: float, under: float) -> float:
    return float(over / under) if under else float("nan")


def _ratios(over: Floats, under: Floats) -> Floats:
    return np.divide(over, under, out=np.full(len(over), np.nan), where=under != 0)


def _short(name: str, value: float) -> str:
    """A median with its unit."""
    if not name.startswith(("time", "target age")):
        return f"{value:,.0f}"
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value:,.0f} ms"

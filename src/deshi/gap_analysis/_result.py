"""The result of a gap analysis: headline, contributions, counterfactuals, steps back and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deshi.metrics import Interval
from deshi.rendering import Block, Paragraph, Result, Table, paragraphs, percent


@dataclass(frozen=True)
class Contribution:
    """A property's contribution to the gap; all of them, the residue included, add up to it."""

    name: str
    interval: Interval
    note: str


@dataclass(frozen=True)
class Counterfactual:
    """The test metric under another treatment, and its change against the test metric as measured."""

    name: str
    test: Interval
    change: Interval


@dataclass(frozen=True)
class Step:
    """The metric of the same users at one place of their histories."""

    name: str
    interval: Interval
    n_examples: int


@dataclass(frozen=True)
class GapResult(Result):
    """A gap, explained. Intervals are percentile bootstrap intervals over users.

    Attributes:
        metric: such as ``ndcg@10``.
        run: the name of the run.
        validation: the metric on validation.
        test: the metric on test, by the student that validation selected.
        difference: test minus validation.
        ratio: test over validation.
        contributions: to the difference, the residue last.
        counterfactuals: other treatments of the newest events.
        steps: from training targets back to test, oldest first; empty where there are too few users.
        verdict: ``noise``, ``drift`` or ``suspicious``.
        sentence: the verdict's reason.
        notes: sentences about what could not be measured.
        confidence: of the intervals.
        folder: the run folder that was written; None for an analysis without files.
    """

    metric: str
    run: str
    validation: Interval
    test: Interval
    difference: Interval
    ratio: Interval
    contributions: Sequence[Contribution]
    counterfactuals: Sequence[Counterfactual]
    steps: Sequence[Step]
    verdict: str
    sentence: str
    notes: Sequence[str]
    confidence: float = 0.95
    folder: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, as written to ``gap.json``."""
        bounds = {name: [getattr(self, name).low, getattr(self, name).high] for name in ("difference", "ratio")}
        return {
            "metric": self.metric,
            "run": self.run,
            "validation": self.validation.mean,
            "test": self.test.mean,
            "difference": self.difference.mean,
            "confidence": self.confidence,
            "interval": bounds["difference"],
            "ratio": self.ratio.mean,
            "ratio_interval": bounds["ratio"],
            "contributions": [_flat(each.name, each.interval) | {"note": each.note} for each in self.contributions],
            "counterfactuals": [asdict(each) for each in self.counterfactuals],
            "steps": [_flat(step.name, step.interval) | {"n_examples": step.n_examples} for step in self.steps],
            "verdict": self.verdict,
            "sentence": self.sentence,
            "notes": list(self.notes),
        }

    def blocks(self) -> list[Block]:
        """Headline, contributions, counterfactuals, steps and the verdict."""
        tables = [self._headline(), self._contributions()]
        if self.counterfactuals:
            tables.append(self._counterfactuals())
        if self.steps:
            tables.append(self._steps())
        verdict = Paragraph(self.sentence, "alarm" if self.verdict == "suspicious" else "strong")
        written = [f"Written to {self.folder}"] if self.folder else []
        return [*tables, verdict, *paragraphs(*self.notes, *written)]

    def _headline(self) -> Table:
        interval = f"{percent(self.confidence)} interval over users"
        rows = [
            ["validation", *_cells(self.validation)],
            ["test", *_cells(self.test)],
            ["test - validation", *_cells(self.difference, signed=True)],
            ["test / validation", f"{self.ratio.mean:.3f}", f"{self.ratio.low:.3f} to {self.ratio.high:.3f}"],
        ]
        return Table(f"{self.metric} of {self.run}", ["", "value", interval], rows)

    def _contributions(self) -> Table:
        rows = [[each.name, *_cells(each.interval, signed=True), each.note] for each in self.contributions]
        columns = ["property", "contribution", "interval", "medians"]
        return Table("Where the difference comes from", columns, rows, align="lrrl")

    def _counterfactuals(self) -> Table:
        rows = [
            [each.name, f"{each.test.mean:.4f}", *_cells(each.change, signed=True)] for each in self.counterfactuals
        ]
        return Table("The newest events", ["if", "test", "change", "interval of the change"], rows)

    def _steps(self) -> Table:
        means = [step.interval.mean for step in self.steps]
        changes = ["", *(f"{after - before:+.4f}" for before, after in zip(means, means[1:], strict=False))]
        rows = [[step.name, *_cells(step.interval), change] for step, change in zip(self.steps, changes, strict=True)]
        title = f"The same {self.steps[0].n_examples:,} users, step by step"
        return Table(title, ["target", "value", "interval", "change"], rows)


def _cells(interval: Interval, signed: bool = False) -> tuple[str, str]:
    sign = "+" if signed else ""
    return f"{interval.mean:{sign}.4f}", f"{interval.low:{sign}.4f} to {interval.high:{sign}.4f}"


def _flat(name: str, interval: Interval) -> dict[str, Any]:
    return {"name": name, "value": interval.mean, "interval": [interval.low, interval.high]}

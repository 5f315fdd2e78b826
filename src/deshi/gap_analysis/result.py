"""The result of a gap analysis: headline, contributions, counterfactuals, steps back and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deshi.data.rendering import Rendered
from deshi.metrics.significance import Interval


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
class GapResult(Rendered):
    """A gap, explained. Intervals are percentile bootstrap intervals over users.

    Attributes:
        folder: the run folder that was written.
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
    """

    width: ClassVar[int] = 120

    folder: Path
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
            "counterfactuals": [asdict(counterfactual) for counterfactual in self.counterfactuals],
            "steps": [_flat(step.name, step.interval) | {"n_examples": step.n_examples} for step in self.steps],
            "verdict": self.verdict,
            "sentence": self.sentence,
            "notes": list(self.notes),
        }

    def tables(self) -> Group:
        """The explanation for a rich console."""
        shown: list[RenderableType] = [self._headline(), self._contributions()]
        if self.counterfactuals:
            shown.append(self._counterfactuals())
        if self.steps:
            shown.append(self._steps())
        style = "bold red" if self.verdict == "suspicious" else "bold"
        shown.append(Text(self.sentence, style=style))
        shown += [Text(note) for note in self.notes]
        shown.append(Text(f"Written to {self.folder}"))
        return Group(*shown)

    def _headline(self) -> Table:
        interval = f"{100 * self.confidence:.4g} % interval over users"
        table = _table(f"{self.metric} of {self.run}", "", "value", interval)
        rows = {"validation": self.validation, "test": self.test, "test - validation": self.difference}
        for name, figure in rows.items():
            table.add_row(name, *_cells(figure, signed=name.startswith("test -")))
        table.add_row("test / validation", f"{self.ratio.mean:.3f}", f"{self.ratio.low:.3f} to {self.ratio.high:.3f}")
        return table

    def _contributions(self) -> Table:
        table = _table("Where the difference comes from", "property", "contribution", "interval", "medians")
        for each in self.contributions:
            table.add_row(each.name, *_cells(each.interval, signed=True), each.note)
        return table

    def _counterfactuals(self) -> Table:
        table = _table("The newest events", "if", "test", "change", "interval of the change")
        for each in self.counterfactuals:
            table.add_row(each.name, f"{each.test.mean:.4f}", *_cells(each.change, signed=True))
        return table

    def _steps(self) -> Table:
        table = _table(
            f"The same {self.steps[0].n_examples:,} users, step by step", "target", "value", "interval", "change"
        )
        last: float | None = None
        for step in self.steps:
            change = "" if last is None else f"{step.interval.mean - last:+.4f}"
            table.add_row(step.name, *_cells(step.interval), change)
            last = step.interval.mean
        return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number == 0 or number > 2 else "right")
    return table


def _cells(interval: Interval, signed: bool = False) -> tuple[str, str]:
    sign = "+" if signed else ""
    return f"{interval.mean:{sign}.4f}", f"{interval.low:{sign}.4f} to {interval.high:{sign}.4f}"


def _flat(name: str, interval: Interval) -> dict[str, Any]:
    return {"name": name, "value": interval.mean, "interval": [interval.low, interval.high]}

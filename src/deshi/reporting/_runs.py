"""Evaluations of a report, with the names and colours under which they appear on the page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from deshi.comparison import check_measured_alike, group, named
from deshi.metrics import METRICS
from deshi.runs import Evaluation, Run
from deshi.types import DeshiError

_STAMP = re.compile(r"^\d{8}-\d{6}_")


@dataclass(frozen=True, eq=False)
class ReportedRun:
    """One evaluation on the page.

    Attributes:
        label: unique on the page.
        model: the name of its model: runs that differ only in the seed are one.
        color: the model's number.
        variant: the run's number in the model.
        evaluation: the figures.
    """

    label: str
    model: str
    color: int
    variant: int
    evaluation: Evaluation

    @property
    def trained(self) -> Run | None:
        """The run that was evaluated, None if there is none or it is gone."""
        return self.evaluation.run

    @property
    def record(self) -> dict[str, Any]:
        """The evaluation's ``run.json``."""
        return self.evaluation.record

    @property
    def name(self) -> str:
        """Its name in a command: the trained run, or the evaluation itself."""
        return str(self.record["run"] or self.evaluation.folder)

    def figure(self, part: str, metric: str) -> float | None:
        """A metric such as ``ndcg@10``, None if it was not measured."""
        return self.evaluation.metrics.get(f"{part}/{metric}")


def reported_runs(evaluations: Sequence[Evaluation], names: Sequence[str] | None = None) -> list[ReportedRun]:
    """Name and colour the evaluations; of evaluations of one run, only the newest is taken.

    Args:
        evaluations: of runs or of baselines.
        names: of the models, in their order; None: student and the settings that differ.

    Raises:
        DeshiError: if they were not measured alike, naming what differs, or there is not one name for each model.
    """
    check_measured_alike(evaluations)
    runs = []
    for color, model in enumerate(named(group(evaluations)[0], names)):
        for variant, member in enumerate(model.members):
            label = model.name if member.seed is None else f"{model.name}, seed {member.seed}"
            runs.append(ReportedRun(label, model.name, color, variant, member.evaluation))
    return [replace(run, label=label) for label, run in zip(_labels(runs), runs, strict=True)]


def baseline_names(runs: Sequence[ReportedRun]) -> list[str]:
    """The baselines that any of the runs was evaluated beside, each once."""
    return list(dict.fromkeys(name for run in runs for name in run.evaluation.baselines))


def baseline_figure(runs: Sequence[ReportedRun], name: str, part: str, metric: str) -> float | None:
    """A baseline's metric, from the first evaluation that has it."""
    values = (run.evaluation.baselines.get(name, {}).get(f"{part}/{metric}") for run in runs)
    return next((value for value in values if value is not None), None)


def baseline_ranks(runs: Sequence[ReportedRun], name: str, part: str) -> pl.DataFrame:
    """A baseline's ranks, from the first evaluation that has them.

    Raises:
        DeshiError: if none has.
    """
    for run in runs:
        if f"{part}/n_examples" in run.evaluation.baselines.get(name, {}):
            return run.evaluation.baseline_ranks(name, part)
    raise DeshiError(f"No evaluation has {name} on {part}. Run: deshi evaluate {runs[0].name} with_baselines=true")


def cut_offs(run: ReportedRun, part: str, name: str) -> list[int]:
    """The K at which a metric was measured, ascending."""
    prefix = f"{part}/{name}@"
    return sorted(int(key.removeprefix(prefix)) for key in run.evaluation.metrics if key.startswith(prefix))


def check_metric(runs: Sequence[ReportedRun], part: str, metric: str) -> None:
    """Refuse a metric that some run lacks.

    Raises:
        DeshiError: with the metrics there are, or the command that evaluates the part.
    """
    for run in runs:
        run.evaluation.ranks(part)
        if run.figure(part, metric) is None or metric.partition("@")[0] not in METRICS:
            ks = cut_offs(run, part, "ndcg")
            raise DeshiError(
                f"metric is {metric!r}, but {run.evaluation.folder} has {', '.join(METRICS)} at "
                f"{', '.join(map(str, ks))} on {part}. Name one of them, or evaluate with eval.ks=[...]."
            )


def _labels(runs: Sequence[ReportedRun]) -> list[str]:
    """The runs' names without their time; where two are the same, model and seed; at last the evaluation's name."""
    short = [_STAMP.sub("", Path(run.name).name) for run in runs]
    labels = [name if short.count(name) == 1 else run.label for name, run in zip(short, runs, strict=True)]
    counts = Counter(labels)
    return [
        f"{label} ({run.evaluation.folder.name})" if counts[label] > 1 else label
        for label, run in zip(labels, runs, strict=True)
    ]

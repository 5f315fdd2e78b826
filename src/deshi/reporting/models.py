"""The evaluations that a report is about, with the names and colours under which they appear on the page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from deshi.comparison.models import group, named
from deshi.comparison.pairing import check_measured_alike
from deshi.metrics.ranking import METRICS
from deshi.runs import Evaluation, Run
from deshi.types import DeshiError

_STAMP = re.compile(r"^\d{8}-\d{6}_")


@dataclass(frozen=True, eq=False)
class Model:
    """One evaluation on the page.

    Attributes:
        label: unique on the page.
        group: the label of what it is compared as: runs that differ only in the seed are one model.
        color: its group's place in the palette.
        variant: its place in the group.
        evaluation: the figures.
        run: that was evaluated, None if there is none or it is gone.
    """

    label: str
    group: str
    color: int
    variant: int
    evaluation: Evaluation
    run: Run | None

    @property
    def record(self) -> dict[str, Any]:
        """The evaluation's ``run.json``."""
        return self.evaluation.record

    @property
    def name(self) -> str:
        """What a command calls it: the fit run, or the evaluation itself."""
        return str(self.record["run"] or self.evaluation.folder)

    def figure(self, part: str, metric: str) -> float | None:
        """A metric such as ``ndcg@10``, None if it was not measured."""
        return self.evaluation.metrics.get(f"{part}/{metric}")


def models_of(evaluations: Sequence[Evaluation]) -> list[Model]:
    """Name and colour the evaluations; of evaluations of one run, only the newest is taken.

    Raises:
        DeshiError: if they were not measured alike, naming what differs.
    """
    check_measured_alike(evaluations)
    groups = named(group(evaluations)[0])
    found = [
        (one.name, color, variant, member.evaluation)
        for color, one in enumerate(groups)
        for variant, member in enumerate(one.members)
    ]
    seeds = [
        one.name if member.seed is None else f"{one.name}, seed {member.seed}"
        for one in groups
        for member in one.members
    ]
    labels = _labels([evaluation for *_, evaluation in found], seeds)
    return [Model(label, *one, one[-1].run) for label, one in zip(labels, found, strict=True)]


def baseline_names(models: Sequence[Model]) -> list[str]:
    """The baselines that any of the models was evaluated beside, each once."""
    return list(dict.fromkeys(name for model in models for name in model.evaluation.baselines))


def baseline_figure(models: Sequence[Model], name: str, part: str, metric: str) -> float | None:
    """A baseline's metric, from the first evaluation that has it."""
    found = (model.evaluation.baselines.get(name, {}).get(f"{part}/{metric}") for model in models)
    return next((value for value in found if value is not None), None)


def baseline_ranks(models: Sequence[Model], name: str, part: str) -> pl.DataFrame:
    """A baseline's ranks, from the first evaluation that has them.

    Raises:
        DeshiError: if none has.
    """
    for model in models:
        if f"{part}/n_examples" in model.evaluation.baselines.get(name, {}):
            return model.evaluation.baseline_ranks(name, part)
    raise DeshiError(f"No evaluation has {name} on {part}. Run: deshi evaluate {models[0].name} with_baselines=true")


def cut_offs(model: Model, part: str, name: str) -> list[int]:
    """The K at which a metric was measured, ascending."""
    prefix = f"{part}/{name}@"
    return sorted(int(key.removeprefix(prefix)) for key in model.evaluation.metrics if key.startswith(prefix))


def check_metric(models: Sequence[Model], part: str, metric: str) -> None:
    """Refuse a metric that some model lacks.

    Raises:
        DeshiError: with the metrics there are, or the command that evaluates the part.
    """
    for model in models:
        model.evaluation.ranks(part)
        if model.figure(part, metric) is None or metric.partition("@")[0] not in METRICS:
            ks = cut_offs(model, part, "ndcg")
            raise DeshiError(
                f"metric is {metric!r}, but {model.evaluation.folder} has {', '.join(METRICS)} at "
                f"{', '.join(map(str, ks))} on {part}. Name one of them, or evaluate with eval.ks=[...]."
            )


def _labels(evaluations: Sequence[Evaluation], seeds: Sequence[str]) -> list[str]:
    """The runs' names without their time; where two are the same, model and seed; at last the evaluation's name."""
    full = [Path(one.record["run"] or one.folder).name for one in evaluations]
    short = [_STAMP.sub("", name) for name in full]
    labels = [name if short.count(name) == 1 else seed for name, seed in zip(short, seeds, strict=True)]
    often = {name for name, count in Counter(labels).items() if count > 1}
    return [
        f"{name} ({one.folder.name})" if name in often else name for name, one in zip(labels, evaluations, strict=True)
    ]

"""The evaluations that a report is about, with the names and colours under which they appear on the page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.evaluate.record import Evaluation
from deshi.metrics.ranking import METRICS, case_ranks
from deshi.types import DeshiError

Floats = NDArray[np.float64]

_STAMP = re.compile(r"^\d{8}-\d{6}_")


@dataclass(frozen=True, eq=False)
class Model:
    """One evaluation on the page.

    Attributes:
        label: unique on the page.
        color: its place in the palette.
        evaluation: the figures.
        fitted: the folder of the run that was evaluated, None if there is none or it is gone.
    """

    label: str
    color: int
    evaluation: Evaluation
    fitted: Path | None

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


def models_of(evaluations: Sequence[Evaluation], runs: Path) -> list[Model]:
    """Name and colour the evaluations, in their order.

    Raises:
        DeshiError: if they are about different data or protocols, naming what differs.
    """
    _check_comparable(evaluations)
    labels = _labels(evaluations)
    return [
        Model(label, color, one, _fitted(one, runs))
        for color, (label, one) in enumerate(zip(labels, evaluations, strict=True))
    ]


def reference_names(models: Sequence[Model]) -> list[str]:
    """The reference rankers that any of the models was evaluated beside, each once."""
    return list(dict.fromkeys(name for model in models for name in model.evaluation.references))


def reference_figure(models: Sequence[Model], name: str, part: str, metric: str) -> float | None:
    """A reference ranker's metric, from the first evaluation that has it."""
    found = (model.evaluation.references.get(name, {}).get(f"{part}/{metric}") for model in models)
    return next((value for value in found if value is not None), None)


def reference_ranks(models: Sequence[Model], name: str, part: str) -> pl.DataFrame:
    """A reference ranker's ranks, from the first evaluation that has them.

    Raises:
        DeshiError: if none has.
    """
    for model in models:
        if f"{part}/n_cases" in model.evaluation.references.get(name, {}):
            return model.evaluation.reference_ranks(name, part)
    raise DeshiError(f"No evaluation has {name} on {part}. Run: deshi evaluate {models[0].name} with_references=true")


def per_case(ranks: pl.DataFrame, metric: str) -> Floats:
    """``(C,)``: a metric such as ``ndcg@10`` of every case that has a target, from the frame of ranks."""
    name, _, k = metric.partition("@")
    grouped = case_ranks(ranks["rank"].to_numpy(), ranks["case"].to_numpy())
    values = METRICS[name](grouped, int(k))
    return values[grouped.sizes > 0]


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


def _labels(evaluations: Sequence[Evaluation]) -> list[str]:
    """The runs' names without their time; with it where two are the same."""
    full = [Path(one.record["run"] or one.folder).name for one in evaluations]
    short = [_STAMP.sub("", name) for name in full]
    labels = [name if short.count(name) == 1 else whole for name, whole in zip(short, full, strict=True)]
    often = {name for name, count in Counter(labels).items() if count > 1}
    return [
        f"{name} ({one.folder.name})" if name in often else name for name, one in zip(labels, evaluations, strict=True)
    ]


def _fitted(one: Evaluation, runs: Path) -> Path | None:
    """The run's folder where it was, or under the runs of today if the whole root has moved."""
    if not one.record["run"]:
        return None
    recorded = Path(one.record["run"])
    places = (recorded, runs / "fit" / recorded.name, one.folder.parents[1] / "fit" / recorded.name)
    return next((place for place in places if (place / "config.yaml").is_file()), None)


def _check_comparable(evaluations: Sequence[Evaluation]) -> None:
    for key, name in (("data_fingerprint", "data"), ("protocol_fingerprint", "protocol")):
        first, *others = evaluations
        for other in others:
            if other.record[key] != first.record[key]:
                raise DeshiError(
                    f"{first.folder.name} and {other.folder.name} were evaluated on different {name}: "
                    f"{first.record[name]} and {other.record[name]} (fingerprints {first.record[key][:12]} and "
                    f"{other.record[key][:12]}). One page can't show both: make a report of each."
                )

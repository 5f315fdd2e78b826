"""What every section of the report draws from: the models, the question, the data behind them, the studio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from deshi.configuration.run_folders import LISTS_FILE
from deshi.configuration.schemas import ReportConfig
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples, Split
from deshi.reporting.blocks import Missing
from deshi.reporting.drawing import Pen, Studio, baseline_pen, model_pen
from deshi.reporting.models import Model, baseline_names
from deshi.runs import read_part
from deshi.types import DeshiError


@dataclass(frozen=True, eq=False)
class Data:
    """The bundle that was evaluated on, its split, and the examples of the reported part."""

    bundle: Bundle
    split: Split
    examples: Examples


@dataclass(frozen=True, eq=False)
class Context:
    """The common ground of the sections.

    Attributes:
        models: in the order of the page.
        part: ``validation`` or ``test``.
        metric: such as ``ndcg@10``, measured for every model.
        runs: the folder of all runs.
        studio: draws.
        data: None if the bundle is gone or another one.
        data_problem: why, with what to do.
        examples: how many to show.
        examples_seed: of the draw.
    """

    models: Sequence[Model]
    part: str
    metric: str
    runs: Path
    studio: Studio
    data: Data | None
    data_problem: str
    examples: int
    examples_seed: int

    @property
    def k(self) -> int:
        """The metric's K."""
        return int(self.metric.partition("@")[2])

    @property
    def pens(self) -> dict[str, Pen]:
        """How every model and baseline is drawn, by its label."""
        pens = {model.label: model_pen(model.label, model.color, model.variant) for model in self.models}
        return pens | {name: baseline_pen(name, n) for n, name in enumerate(baseline_names(self.models))}

    def color(self, label: str) -> int | None:
        """The place in the palette of the model with that label, None for anything else."""
        return next((model.color for model in self.models if model.label == label), None)


def title_of(metric: str) -> str:
    """A metric's name as it is written in texts: ``NDCG@10``, ``Recall@5``."""
    name, _, k = metric.partition("@")
    written = name.upper() if name in ("ndcg", "hr", "mrr", "map") else name.capitalize().replace("_", " ")
    return f"{written}@{k}" if k else written


def lists_of(model: Model, part: str) -> pl.DataFrame | None:
    """The lists that a model would show, a row an example in their order; None if they were not kept."""
    path = model.evaluation.folder / LISTS_FILE
    return read_part(path, part).sort("example") if path.is_file() else None


def evaluate_again(what: str, models: Sequence[Model], part: str) -> list[Missing]:
    """A block with the commands that evaluate ``models`` again, since ``what`` is lacking; none without models."""
    if not models:
        return []
    names = ", ".join(model.label for model in models)
    evaluations = "evaluation" if len(models) == 1 else "evaluations"
    return [Missing(f"The {evaluations} of {names} kept no {what}. Made by:", [_command(one, part) for one in models])]


def _command(model: Model, part: str) -> str:
    """Evaluates a model again, the parts that were evaluated before included."""
    subject = model.record["run"] or f"baseline={model.record['model']} data={model.record['data']}"
    parts = part if model.evaluation.parts == [part] else "both"
    return f"deshi evaluate {subject} part={parts} with_baselines=true"


def find_data(cfg: ReportConfig, model: Model) -> tuple[Data | None, str]:
    """The data of an evaluation, or None and a sentence about what to do."""
    try:
        return _load_data(cfg, model), ""
    except DeshiError as error:
        return None, str(error)


def _load_data(cfg: ReportConfig, model: Model) -> Data:
    bundle, split = model.evaluation.bundle, model.evaluation.split
    return Data(bundle, split, split.examples(bundle, cfg.part))

"""The content of a report: its sections, collected from what earlier stages have left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deshi.configuration.schemas import ReportConfig
from deshi.reporting import cutoffs, examples, gaps, learning, popularity, provenance, slicing, summary, warnings
from deshi.reporting.blocks import Section
from deshi.reporting.context import Context, find_data, title_of
from deshi.reporting.drawing import Studio
from deshi.reporting.models import Model, check_metric, models_of
from deshi.runs import find_evaluations


@dataclass(frozen=True)
class Content:
    """What the page shows.

    Attributes:
        title: its heading.
        subtitle: data, part, metric and protocol in a line.
        models: name, colour and runs of each, for the legend.
        warnings: what makes the figures doubtful, shown first.
        sections: in the order of the page.
    """

    title: str
    subtitle: str
    models: Sequence[tuple[str, int, Sequence[str]]]
    warnings: Sequence[str]
    sections: Sequence[Section]


def find_models(cfg: ReportConfig) -> list[Model]:
    """The evaluations that are reported on, checked.

    Raises:
        DeshiError: if a run isn't there, was not evaluated on the part or by the metric, or the runs can't share a
            page.
    """
    models = models_of(find_evaluations(cfg.paths, cfg.runs))
    check_metric(models, cfg.part, cfg.metric)
    return models


def collect(cfg: ReportConfig, models: Sequence[Model], figures: Path) -> Content:
    """Gather everything; the figures are drawn into the folder ``figures`` on the way."""
    data, problem = find_data(cfg, models[0])
    context = Context(
        models, cfg.part, cfg.metric, cfg.paths.runs, Studio(figures), data, problem, cfg.examples, cfg.examples_seed
    )
    protocol = protocol_sentence(models[0])
    sections = [
        summary.section(context, protocol),
        learning.section(context),
        cutoffs.section(context),
        slicing.section(context),
        gaps.section(context),
        popularity.section(context),
        examples.section(context),
        provenance.section(context),
    ]
    name = str(models[0].record["data"])
    subtitle = f"{len(models)} run{'s' if len(models) > 1 else ''}, {cfg.part}, {title_of(cfg.metric)}. {protocol}"
    return Content(f"Recommenders on {name}", subtitle, _legend(models), warnings.warnings_of(context), sections)


def _legend(models: Sequence[Model]) -> list[tuple[str, int, list[str]]]:
    """Models with their runs: as the page calls them, and the name of the folder where that is another."""
    runs: dict[tuple[str, int], list[str]] = {}
    for model in models:
        name, label = Path(model.name).name, model.label.removeprefix(f"{model.group}, ")
        runs.setdefault((model.group, model.color), []).append(label if label == name else f"{label} ({name})")
    return [(group, color, labels) for (group, color), labels in runs.items()]


def protocol_sentence(model: Model) -> str:
    """The protocol of an evaluation in words."""
    protocol = model.record["protocol"]
    split = str(protocol["split"]["name"]).replace("_", "-")
    candidates = protocol["candidates"]
    if candidates == "full":
        ranked = "the whole catalogue is ranked"
    else:
        ranked = "only small candidate sets are ranked"
        if isinstance(candidates, dict):
            rule = ", ".join(f"{key} {value}" for key, value in candidates.items() if key != "sha256")
            ranked = f"{ranked} ({rule})"
    seen = {True: ", items of the history are left out", False: ", items of the history stay in"}
    return f"Split {split}, {ranked}{seen.get(protocol['filter_seen'], '')}, ties: {protocol['ties']}."

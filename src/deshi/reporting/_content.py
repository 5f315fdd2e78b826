"""Content of a report: its sections, from the artifacts of earlier stages, and the page made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from deshi.configuration.schemas import ReportConfig
from deshi.metrics import metric_title
from deshi.rendering import render_template
from deshi.reporting import (
    _cutoffs,
    _examples,
    _gaps,
    _learning,
    _popularity,
    _provenance,
    _sizes,
    _slicing,
    _summary,
    _warnings,
)
from deshi.reporting._blocks import Section
from deshi.reporting._context import Context, find_data
from deshi.reporting._drawing import FigureBuilder
from deshi.reporting._runs import ReportedRun, check_metric, reported_runs
from deshi.runs import find_evaluations


@dataclass(frozen=True)
class Content:
    """Content of the page.

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

    def page(self, made: datetime) -> str:
        """One HTML file that needs nothing else; only the time ``made`` differs between two of the same content."""
        return render_template("reporting/page.html.j2", content=self, made=made)


def find_runs(cfg: ReportConfig) -> list[ReportedRun]:
    """The evaluations that are reported on, checked.

    Raises:
        DeshiError: if a run isn't there, was not evaluated on the part or by the metric, or the runs can't share a
            page.
    """
    runs = reported_runs(find_evaluations(cfg.paths, cfg.runs), cfg.names)
    check_metric(runs, cfg.part, cfg.metric)
    return runs


def collect(cfg: ReportConfig, runs: Sequence[ReportedRun], figures: Path) -> Content:
    """Gather everything; the figures are drawn into the folder ``figures`` on the way."""
    data, problem = find_data(runs[0], cfg.part)
    context = Context(
        runs, cfg.part, cfg.metric, cfg.paths.runs, FigureBuilder(figures), data, problem, cfg.examples,
        cfg.examples_seed,
    )  # fmt: skip
    protocol = protocol_sentence(runs[0])
    sections = [
        _summary.section(context, protocol),
        _sizes.section(context),
        _learning.section(context),
        _cutoffs.section(context),
        _slicing.section(context),
        _gaps.section(context),
        _popularity.section(context),
        _examples.section(context),
        _provenance.section(context),
    ]
    title = f"Recommenders on {runs[0].record['data']}"
    subtitle = f"{len(runs)} run{'s' if len(runs) > 1 else ''}, {cfg.part}, {metric_title(cfg.metric)}. {protocol}"
    return Content(title, subtitle, _legend(runs), _warnings.warnings_of(context), list(filter(None, sections)))


def _legend(runs: Sequence[ReportedRun]) -> list[tuple[str, int, list[str]]]:
    """Models with their runs: as the page calls them, and the name of the folder where that is another."""
    models: dict[tuple[str, int], list[str]] = {}
    for run in runs:
        name, label = Path(run.name).name, run.label.removeprefix(f"{run.model}, ")
        models.setdefault((run.model, run.color), []).append(label if label == name else f"{label} ({name})")
    return [(model, color, labels) for (model, color), labels in models.items()]


def protocol_sentence(run: ReportedRun) -> str:
    """The protocol of an evaluation in words."""
    protocol = run.record["protocol"]
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

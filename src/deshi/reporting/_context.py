"""Common ground of a report's sections: the runs, the metric, their data, the builder of figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from deshi.configuration.run_folders import LISTS_FILE
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples, Split
from deshi.rendering import Cell, Row
from deshi.reporting._blocks import Missing
from deshi.reporting._drawing import FigureBuilder, LineStyle, baseline_style, model_style
from deshi.reporting._runs import ReportedRun, baseline_names
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
        runs: in the order of the page.
        part: ``validation`` or ``test``.
        metric: such as ``ndcg@10``, measured for every run.
        runs_folder: the folder of all runs.
        figures: draws and keeps figures.
        data: None if the bundle is gone or another one.
        data_problem: why, with what to do.
        n_examples: how many examples to show.
        examples_seed: of the draw.
    """

    runs: Sequence[ReportedRun]
    part: str
    metric: str
    runs_folder: Path
    figures: FigureBuilder
    data: Data | None
    data_problem: str
    n_examples: int
    examples_seed: int

    @property
    def k(self) -> int:
        """The metric's K."""
        return int(self.metric.partition("@")[2])

    @cached_property
    def styles(self) -> dict[str, LineStyle]:
        """Line styles of all runs and baselines, by label."""
        styles = {run.label: model_style(run.label, run.color, run.variant) for run in self.runs}
        return styles | {name: baseline_style(name, n) for n, name in enumerate(baseline_names(self.runs))}

    def color(self, label: str) -> int | None:
        """The colour's number of the run with that label, None for a baseline."""
        return next((run.color for run in self.runs if run.label == label), None)

    def row(self, label: str, *cells: Cell | str) -> Row:
        """A table's row about a run or baseline."""
        return [Cell(label, color=self.color(label)), *cells]


def lists_of(run: ReportedRun, part: str) -> pl.DataFrame | None:
    """The lists of a run, a row an example in their order; None if they were not kept."""
    path = run.evaluation.folder / LISTS_FILE
    return read_part(path, part).sort("example") if path.is_file() else None


def evaluate_again(artifact: str, runs: Sequence[ReportedRun], part: str) -> list[Missing]:
    """A block with the commands that evaluate ``runs`` again, since an artifact is missing; none without runs."""
    if not runs:
        return []
    names = ", ".join(run.label for run in runs)
    evaluations = "evaluation" if len(runs) == 1 else "evaluations"
    commands = [_evaluate_command(run, part) for run in runs]
    return [Missing(f"The {evaluations} of {names} kept no {artifact}. Made by:", commands)]


def _evaluate_command(run: ReportedRun, part: str) -> str:
    """Evaluates a run again, the parts that were evaluated before included."""
    subject = run.record["run"] or f"baseline={run.record['model']} data={run.record['data']}"
    parts = part if run.evaluation.parts == [part] else "both"
    return f"deshi evaluate {subject} part={parts} with_baselines=true"


def find_data(run: ReportedRun, part: str) -> tuple[Data | None, str]:
    """The data of an evaluation, or None and a sentence about what to do."""
    try:
        bundle, split = run.evaluation.bundle, run.evaluation.split
    except DeshiError as error:
        return None, str(error)
    return Data(bundle, split, split.examples(bundle, part)), ""

"""Section of quality against size and latency, of students that differ in their width and its regularisation alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from deshi.comparison import Comparison, Figure, compare_evaluations, figure_cell, group
from deshi.metrics import metric_title
from deshi.rendering import Table, percent
from deshi.reporting._blocks import Block, Missing, Pictures, Section
from deshi.reporting._context import Context
from deshi.reporting._drawing import LineStyle, baseline_style, model_style
from deshi.reporting._figures import Draw, Measured, against_cost
from deshi.runs import Run
from deshi.serving.bundle import FOLDER, ServingBundle
from deshi.types import DeshiError

QUALITIES = ("ndcg", "recall")
FREE = ("student.dim", "student.dropout", "train.augment.item_drop", "train.precision")
"""Settings in which the students of one curve may differ: the width, and what goes with it: the regularisation (see
``deshi run sizes=``) and the number format that was faster."""

LEAD = (
    "What a smaller student loses, and what distillation gives back. A line joins students that differ in their width "
    "and its dropout alone, with intervals over users; the lines across are the best other model and the best "
    "baseline. Size is the number of parameters; time is the median of single requests to the exported student's "
    "engine, on one thread of the machine that exported it."
)


@dataclass(frozen=True)
class Sized:
    """A student of a curve.

    Attributes:
        model: its name on the page.
        kind: such as ``sasrec`` or ``distilled sasrec``.
        run: the name of its first run.
        parameters: of its network.
        bundle: exported from that run, None if there is none.
    """

    model: str
    kind: str
    run: str
    parameters: int
    bundle: ServingBundle | None

    @property
    def milliseconds(self) -> float | None:
        """The median time of a request."""
        latency = None if self.bundle is None else self.bundle.latency
        return None if latency is None else float(latency["p50_ms"])


def section(context: Context) -> Section | None:
    """Pictures and a table of the students of different widths; None where all have one."""
    lines = _lines(context)
    if not lines:
        return None
    names = list(dict.fromkeys(run.model for run in context.runs))
    comparison = compare_evaluations(
        [run.evaluation for run in context.runs], part=context.part, names=names, against=names[0], with_baselines=True,
        metrics=list(dict.fromkeys([context.metric, *(f"{name}@{context.k}" for name in QUALITIES)])),
    )  # fmt: skip
    blocks: list[Block] = [
        _pictures(context, comparison, lines),
        _table(context, comparison, lines),
        *_missing(lines),
    ]
    return Section("sizes", "Quality against size", LEAD, blocks)


def _lines(context: Context) -> list[list[Sized]]:
    """The students that differ in :data:`FREE` alone, where they have several sizes, ascending."""
    names = {str(run.evaluation.folder): run.model for run in context.runs}
    alike: dict[str, list[Sized]] = {}
    for group_of_seeds in group([run.evaluation for run in context.runs])[0]:
        first = group_of_seeds.first
        trained = first.evaluation.run
        if trained is None or not any(key.startswith("student.") for key in first.settings):
            continue
        settings = {key: value for key, value in first.settings.items() if key not in FREE}
        student = Sized(
            names[str(first.evaluation.folder)], first.kind, trained.name, int(trained.record["parameters"]),
            _exported(trained),
        )  # fmt: skip
        alike.setdefault(json.dumps([first.kind, settings], sort_keys=True, default=str), []).append(student)
    lines = [sorted(students, key=lambda student: student.parameters) for students in alike.values()]
    return [students for students in lines if students[0].parameters < students[-1].parameters]


def _exported(trained: Run) -> ServingBundle | None:
    """The serving bundle in a run's folder; None if there is none that can be read."""
    try:
        return ServingBundle.load(trained.folder / FOLDER, check=False)
    except DeshiError:
        return None


def _pictures(context: Context, comparison: Comparison, lines: Sequence[Sequence[Sized]]) -> Pictures:
    """Each metric against parameters and time, and all of them as one sheet ``sizes``."""
    pictures, draws = [], []
    for metric in comparison.metrics:
        for cost in ("parameters", "milliseconds"):
            draw = _draw(context, comparison, lines, metric, cost)
            if draw is not None:
                title = f"{metric_title(metric)} against {'size' if cost == 'parameters' else 'time'}"
                description = (
                    f"{metric_title(metric)} on {context.part} by {_axis(cost)}, with {percent(comparison.confidence)} "
                    "intervals over users."
                )
                name = f"sizes-{metric.partition('@')[0]}-{cost}"
                pictures.append(context.figures.picture(name, title, description, draw))
                draws.append(draw)
    context.figures.sheet("sizes", draws, columns=len(draws) // len(comparison.metrics))
    return Pictures(pictures)


def _axis(cost: str) -> str:
    return "parameters" if cost == "parameters" else "median ms of a request"


def _draw(
    context: Context, comparison: Comparison, lines: Sequence[Sequence[Sized]], metric: str, cost: str
) -> Draw | None:
    """One pair of axes; None where nothing has that cost."""
    measured = []
    for number, students in enumerate(lines):
        known = [student for student in students if getattr(student, cost) is not None]
        if known:
            figures = [comparison.figures[student.model][metric] for student in known]
            style = model_style(_name(students), number)
            measured.append(Measured(style, [float(getattr(student, cost)) for student in known], *_columns(figures)))
    levels = _levels(comparison, lines, metric)
    return against_cost(measured, levels, _axis(cost), metric_title(metric), cost == "parameters") if measured else None


def _name(students: Sequence[Sized]) -> str:
    """What a line is called: as its students where all begin alike (``plain``, ``plain-16``), else their kind."""
    shortest = min((student.model for student in students), key=len)
    return shortest if all(student.model.startswith(shortest) for student in students) else students[0].kind


def _columns(figures: Sequence[Figure]) -> tuple[list[float], list[float], list[float]]:
    """Means and both ends of the intervals."""
    return [each.mean for each in figures], [each.low for each in figures], [each.high for each in figures]


def _levels(comparison: Comparison, lines: Sequence[Sequence[Sized]], metric: str) -> list[tuple[LineStyle, float]]:
    """The best model that isn't on a line, and the best baseline."""
    drawn = {student.model for students in lines for student in students}
    others = [model for model in comparison.models if model.name not in drawn]
    levels = []
    for number, baselines in enumerate((False, True)):
        means = {
            model.name: comparison.figures[model.name][metric].mean
            for model in others
            if model.is_baseline == baselines
        }
        if means:
            best = max(means, key=lambda name: means[name])
            levels.append((baseline_style(best, number), means[best]))
    return levels


def _table(context: Context, comparison: Comparison, lines: Sequence[Sequence[Sized]]) -> Table:
    rows = []
    for students in lines:
        for student in students:
            figures = [comparison.figures[student.model][metric] for metric in comparison.metrics]
            rows.append(
                context.row(student.model, f"{student.parameters:,}", *_costs(student), *map(figure_cell, figures))
            )
    columns = ["student", "parameters", "weights", "one request", *map(metric_title, comparison.metrics)]
    return Table(f"Size, time and quality on {context.part}", columns, rows)


def _costs(student: Sized) -> tuple[str, str]:
    size = "" if student.bundle is None else f"{student.bundle.weight_bytes / 1024:,.0f} KiB"
    return size, "" if student.milliseconds is None else f"{student.milliseconds:.2f} ms"


def _missing(lines: Sequence[Sequence[Sized]]) -> list[Missing]:
    commands = [
        f"deshi export {student.run}" for students in lines for student in students if student.milliseconds is None
    ]
    return [Missing("Bytes and time are known of exported students. Made by:", commands)] if commands else []

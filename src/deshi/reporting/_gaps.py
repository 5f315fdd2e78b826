"""Section of validation against test: the explanations of `deshi gap`, or at least both figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deshi.artifacts import read_json
from deshi.comparison import is_refitted
from deshi.metrics import metric_title
from deshi.rendering import Paragraph, Table, percent
from deshi.reporting._blocks import Block, Missing, Picture, Pictures, Section
from deshi.reporting._context import Context, evaluate_again
from deshi.reporting._drawing import LineStyle, figure_name
from deshi.reporting._figures import Span, rows_height, slopes, spans
from deshi.reporting._runs import ReportedRun, baseline_figure, baseline_names

LEAD = (
    "A model is selected on validation and judged on test. Some difference is normal: the test targets are newer, and "
    "the newest event before them was not trained on. A large difference, or a test figure that is better, needs an "
    "explanation before any figure is believed."
)


def section(context: Context) -> Section:
    """The explanation of each run where there is one, and the two figures side by side."""
    pairs = _pairs(context)
    blocks: list[Block] = [Pictures([_picture(context, pairs)])] if pairs else []
    unexplained: list[ReportedRun] = []
    for run in context.runs:
        folder = _newest(context.runs_folder, run)
        if folder is not None:
            blocks += _explanation(context, run, folder)
        elif run.record["run"]:
            unexplained.append(run)
    if unexplained:
        commands = [f"deshi gap {run.name}" for run in unexplained]
        blocks.append(Missing("Why the two figures differ is explained by:", commands))
    other = "validation" if context.part == "test" else "test"
    refitted = [run.label for run in context.runs if is_refitted(run.evaluation)]
    if refitted:
        blocks.append(Paragraph(f"Refitted, so without a validation figure: {', '.join(refitted)}."))
    single = [run for run in context.runs if run.label not in (*pairs, *refitted)]
    blocks += evaluate_again(f"{other} figures", single, "both")
    return Section("gap", "Validation against test", LEAD, blocks)


def _pairs(context: Context) -> dict[str, tuple[float, float]]:
    """Validation and test figure of every run and baseline that has both."""
    parts = ("validation", "test")
    figures = {run.label: [run.figure(part, context.metric) for part in parts] for run in context.runs}
    for name in baseline_names(context.runs):
        figures[name] = [baseline_figure(context.runs, name, part, context.metric) for part in parts]
    return {label: (a, b) for label, (a, b) in figures.items() if a is not None and b is not None}


def _picture(context: Context, pairs: dict[str, tuple[float, float]]) -> Picture:
    metric = metric_title(context.metric)
    rows = [
        context.row(label, f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}", f"{b / a:.3f}" if a else "")
        for label, (a, b) in pairs.items()
    ]
    return context.figures.picture(
        "gap", f"{metric}, validation and test", f"{metric} of every model on validation (left) and test (right).",
        slopes([(context.styles[label], *pair) for label, pair in pairs.items()], ("validation", "test"), metric),
        Table(f"{metric} on both parts", ["model", "validation", "test", "difference", "test / validation"], rows),
    )  # fmt: skip


def _newest(runs: Path, run: ReportedRun) -> Path | None:
    """The newest explanation of a run."""
    if not run.record["run"]:
        return None
    name = Path(run.record["run"]).name
    folders = sorted(path.parent for path in (runs / "gap").glob("*/gap.json"))
    matches = [folder for folder in folders if Path(str(read_json(folder / "run.json").get("run"))).name == name]
    return matches[-1] if matches else None


def _explanation(context: Context, run: ReportedRun, folder: Path) -> list[Block]:
    gap: dict[str, Any] = read_json(folder / "gap.json")
    low, high = gap["interval"]
    figures = (
        f"{metric_title(gap['metric'])} is {gap['validation']:.4f} on validation and {gap['test']:.4f} on test: "
        f"{gap['difference']:+.4f}, {percent(gap.get('confidence', 0.95))} interval {low:+.4f} to {high:+.4f}, "
        f"ratio {gap['ratio']:.3f}."
    )
    blocks: list[Block] = [Paragraph(f"{run.label}. {gap['sentence']}", "strong"), Paragraph(figures)]
    return [*blocks, Pictures([_contributions(context, run, gap)])] if gap["contributions"] else blocks


def _contributions(context: Context, run: ReportedRun, gap: dict[str, Any]) -> Picture:
    base, metric, contributions = context.styles[run.label], metric_title(gap["metric"]), gap["contributions"]
    values = [
        Span(LineStyle(each["name"], base.color, base.marker), each["value"], *each["interval"])
        for each in contributions
    ]
    rows = []
    for each in contributions:
        low, high = each["interval"]
        rows.append([each["name"], f"{each['value']:+.4f}", f"{low:+.4f} to {high:+.4f}", each["note"]])
    title = f"What the difference of {run.label} is made of"
    return context.figures.picture(
        f"gap-contributions-{figure_name(run.label)}", title,
        f"The contributions to the difference between test and validation in {metric}, with intervals.",
        spans(values, f"contribution to the difference in {metric}", zero_line=True),
        Table(title, ["property", "contribution", "interval", "note"], rows, align="llll"), rows_height(len(values)),
    )  # fmt: skip

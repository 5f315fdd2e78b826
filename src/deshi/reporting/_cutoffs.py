"""Section of metric@K curves: short and long lists."""

from __future__ import annotations

from deshi.metrics import metric_title
from deshi.rendering import Table
from deshi.reporting._blocks import Picture, Pictures, Section
from deshi.reporting._context import Context
from deshi.reporting._figures import Curve, curves
from deshi.reporting._runs import baseline_figure, baseline_names, cut_offs

METRICS = ("ndcg", "recall", "hr", "mrr", "coverage")
LEAD = (
    "The same lists, cut at different lengths K. Models whose curves cross are good at different things: a short list "
    "on a screen, or a long one that another model sorts again. Coverage is the share of the catalogue that is shown "
    "to anyone."
)


def section(context: Context) -> Section:
    """A curve of every run and baseline for each metric; HR is left out where it is Recall."""
    names = [name for name in METRICS if name != "hr" or not _hr_is_recall(context)]
    pictures = [_picture(context, name) for name in names if cut_offs(context.runs[0], context.part, name)]
    return Section("cutoffs", "Metrics by list length", LEAD, [Pictures(pictures)])


def _hr_is_recall(context: Context) -> bool:
    part, ks = context.part, cut_offs(context.runs[0], context.part, "hr")
    return all(run.figure(part, f"hr@{k}") == run.figure(part, f"recall@{k}") for run in context.runs for k in ks)


def _picture(context: Context, name: str) -> Picture:
    ks = sorted({k for run in context.runs for k in cut_offs(run, context.part, name)})
    measured = {run.label: [run.figure(context.part, f"{name}@{k}") for k in ks] for run in context.runs}
    for baseline in baseline_names(context.runs):
        measured[baseline] = [baseline_figure(context.runs, baseline, context.part, f"{name}@{k}") for k in ks]
    figures = {label: values for label, values in measured.items() if any(value is not None for value in values)}
    lines = [
        Curve(context.styles[label], ks, [float("nan") if value is None else value for value in values])
        for label, values in figures.items()
    ]
    rows = [
        context.row(label, *("" if value is None else f"{value:.4f}" for value in values))
        for label, values in figures.items()
    ]
    title = f"{metric_title(name)}@K"
    return context.figures.picture(
        f"cutoffs-{name}", title, f"{metric_title(name)} at K on {context.part}, for every model.",
        curves(lines, "K", title, ks), Table(title, ["model", *map(str, ks)], rows),
    )  # fmt: skip

"""The section of metric@K curves: how the models compare at short and at long lists."""

from __future__ import annotations

from deshi.reporting.blocks import Picture, Pictures, Row, Section, Table
from deshi.reporting.context import Context, title_of
from deshi.reporting.figures import Curve, curves
from deshi.reporting.models import baseline_figure, baseline_names, cut_offs

METRICS = ("ndcg", "recall", "hr", "mrr", "coverage")
LEAD = (
    "The same lists, cut at different lengths K. Models whose curves cross are good at different things: a short list "
    "on a screen, or a long one that another model sorts again. Coverage is the share of the catalogue that is shown "
    "to anyone."
)


def section(context: Context) -> Section:
    """A curve of every model for each metric; HR is left out where it is Recall."""
    names = [name for name in METRICS if name != "hr" or not _hr_is_recall(context)]
    pictures = [_picture(context, name) for name in names if cut_offs(context.models[0], context.part, name)]
    return Section("cutoffs", "Metrics by list length", LEAD, [Pictures(pictures)])


def _hr_is_recall(context: Context) -> bool:
    ks = cut_offs(context.models[0], context.part, "hr")
    return all(
        m.figure(context.part, f"hr@{k}") == m.figure(context.part, f"recall@{k}") for m in context.models for k in ks
    )


def _picture(context: Context, name: str) -> Picture:
    ks = sorted({k for model in context.models for k in cut_offs(model, context.part, name)})
    values = {model.label: [model.figure(context.part, f"{name}@{k}") for k in ks] for model in context.models}
    for baseline in baseline_names(context.models):
        values[baseline] = [baseline_figure(context.models, baseline, context.part, f"{name}@{k}") for k in ks]
    values = {label: found for label, found in values.items() if any(value is not None for value in found)}
    shown = [
        Curve(context.pens[label], ks, [float("nan") if value is None else value for value in found])
        for label, found in values.items()
    ]
    rows = [
        Row(label, ["" if value is None else f"{value:.4f}" for value in found], context.color(label))
        for label, found in values.items()
    ]
    title = title_of(name)
    return context.studio.picture(
        f"cutoffs-{name}", f"{title}@K", f"{title} at K on {context.part}, for every model.",
        curves(shown, "K", f"{title}@K", ks), Table(f"{title}@K", ["model", *map(str, ks)], rows),
    )  # fmt: skip

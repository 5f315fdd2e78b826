"""Section of headline figures: models with intervals, paired tests, every run by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deshi.comparison import Comparison, Model, compare_evaluations, tables_of
from deshi.metrics import metric_title
from deshi.rendering import Cell, Table, paragraphs, percent
from deshi.reporting._blocks import Block, Cards, Details, Picture, Pictures, Section
from deshi.reporting._context import Context
from deshi.reporting._drawing import LineStyle, baseline_style, model_style
from deshi.reporting._figures import Span, rows_height, spans
from deshi.reporting._runs import baseline_figure, baseline_names

METRICS = ("ndcg", "recall", "hr", "mrr", "map", "coverage")
MOST_ROWS = 12
"""A longer table of tests is collapsed."""


def section(context: Context, protocol: str) -> Section:
    """Headline figures, intervals, paired tests, and the table of all runs."""
    comparison = compare_evaluations(
        [run.evaluation for run in context.runs], part=context.part, metrics=[context.metric], with_baselines=True
    )
    lead = (
        f"How well the true next item is ranked on {context.part}. {protocol} Intervals and tests say how sure a "
        f"figure is with regard to other users; the spread over seeds is shown where there are several."
    )
    figures, *tests = [_compared(context, table) for table in tables_of(comparison)]
    blocks: list[Block] = [
        _cards(context, comparison),
        Pictures([_forest(context, comparison), *_differences(context, comparison)]),
        figures,
        *paragraphs(*comparison.notes, tone="note"),
        _runs(context),
        *(Details(table.title, table) if len(table.rows) > MOST_ROWS else table for table in tests),
    ]
    return Section("summary", "Summary", lead, blocks)


def _styles(context: Context, comparison: Comparison) -> dict[str, LineStyle]:
    """Line styles of the compared models and baselines."""
    colors = {run.model: run.color for run in context.runs}
    baselines = baseline_names(context.runs)
    styles = {}
    for model in comparison.models:
        if model.name in colors:
            styles[model.name] = model_style(model.name, colors[model.name])
        else:
            number = baselines.index(model.kind) if model.kind in baselines else 0
            styles[model.name] = baseline_style(model.name, number)
    return styles


def _cards(context: Context, comparison: Comparison) -> Cards:
    metric = metric_title(context.metric)
    trained = [model for model in comparison.models if not model.is_baseline]
    baselines = [model for model in comparison.models if model.is_baseline]
    cards = [_best(f"Best model, {metric}", trained, comparison)] if trained else []
    if baselines:
        cards.append(_best(f"Best baseline, {metric}", baselines, comparison))
    examples = int(context.runs[0].evaluation.metrics[f"{context.part}/n_examples"])
    cards.append(("Examples", f"{examples:,}", f"on {context.part}"))
    if context.data is not None:
        counts = context.data.bundle.manifest["counts"]
        remark = f"{counts['users']:,} users, {counts['interactions']:,} events"
        cards.append(("Items", f"{counts['items']:,}", remark))
    return Cards(cards)


def _best(title: str, models: Sequence[Model], comparison: Comparison) -> tuple[str, str, str]:
    (metric,) = comparison.metrics
    name = max((model.name for model in models), key=lambda name: comparison.figures[name][metric].mean)
    figure = comparison.figures[name][metric]
    return title, f"{figure.mean:.4f}", f"{name}, {figure.low:.4f} to {figure.high:.4f}"


def _forest(context: Context, comparison: Comparison) -> Picture:
    """Every model's figure with its interval, the best on top."""
    (metric,) = comparison.metrics
    styles, figures = _styles(context, comparison), {name: each[metric] for name, each in comparison.figures.items()}
    values = []
    for name in sorted(figures, key=lambda name: -figures[name].mean):
        figure = figures[name]
        points = figure.by_seed if len(figure.by_seed) > 1 else ()
        values.append(Span(styles[name], figure.mean, figure.low, figure.high, points))
    seeds = " Small points are single seeds." if any(span.points for span in values) else ""
    return context.figures.picture(
        "summary", f"{metric_title(metric)} on {context.part}",
        f"Mean and {percent(comparison.confidence)} interval over users, the best on top; baselines are grey.{seeds}",
        spans(values, metric_title(metric)), height=rows_height(len(values)),
    )  # fmt: skip


def _differences(context: Context, comparison: Comparison) -> list[Picture]:
    """Every model against the best one; intervals of paired differences are narrower than the figures' own."""
    (metric,) = comparison.metrics
    best, styles = comparison.compared_with(metric), _styles(context, comparison)
    values = []
    for test in comparison.tests:
        if test.second == best:
            values.append(Span(styles[test.first], test.difference, test.low, test.high))
        elif test.first == best:
            values.append(Span(styles[test.second], -test.difference, -test.high, -test.low))
    if not values:
        return []
    values.sort(key=lambda span: -span.value)
    picture = context.figures.picture(
        "summary-differences", f"Difference to {best}, the best",
        f"Mean difference in {metric_title(metric)} for the same users, with its {percent(comparison.confidence)} "
        f"interval. An interval that reaches 0 is no proof of a difference.",
        spans(values, f"difference in {metric_title(metric)}", zero_line=True), height=rows_height(len(values)),
    )  # fmt: skip
    return [picture]


def _compared(context: Context, table: Table) -> Table:
    """A table of the comparison with the page's colours, without the column that names the one metric."""
    colors = {run.model: run.color for run in context.runs}
    kept = [number for number, name in enumerate(table.columns) if name != "Metric"]
    rows = [[row[number] for number in kept] for row in table.cells]
    return replace(
        table,
        columns=[table.columns[number] for number in kept],
        rows=[[replace(first, color=colors.get(first.text)), *others] for first, *others in rows],
        align="".join(table.sides[number] for number in kept),
    )


def _runs(context: Context) -> Table:
    """Every run by itself, on all metrics; the best of a column is bold."""
    part, k = context.part, context.k
    figures = {run.label: dict(run.evaluation.metrics) for run in context.runs}
    for name in baseline_names(context.runs):
        values = {metric: baseline_figure(context.runs, name, part, f"{metric}@{k}") for metric in METRICS}
        figures[name] = {f"{part}/{metric}@{k}": value for metric, value in values.items() if value is not None}
    keys = [f"{part}/{metric}@{k}" for metric in METRICS]
    if all(each.get(f"{part}/hr@{k}") == each.get(f"{part}/recall@{k}") for each in figures.values()):
        keys.remove(f"{part}/hr@{k}")  # one target an example: HR is Recall
    best = {key: max(each.get(key, -1.0) for each in figures.values()) for key in keys}
    rows = []
    for label, each in figures.items():
        cells = [Cell(f"{each[key]:.4f}", bold=each[key] == best[key]) if key in each else Cell("") for key in keys]
        rows.append(context.row(label, *cells))
    columns = ["model", *(metric_title(key.partition("/")[2]) for key in keys)]
    return Table(f"Every run and baseline at {k}, {part}", columns, rows)

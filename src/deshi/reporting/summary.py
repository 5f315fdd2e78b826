"""The section that answers first: which model is how good, how sure that is, and what makes it doubtful."""

from __future__ import annotations

from collections.abc import Sequence

from deshi.comparison.comparison import Comparison, Model
from deshi.comparison.compute import compare_evaluations
from deshi.comparison.tables import tables_of
from deshi.rendering import Table as ComparisonTable
from deshi.reporting.blocks import Block, Cards, Picture, Pictures, Row, Section, Table, Text
from deshi.reporting.context import Context, title_of
from deshi.reporting.drawing import Pen, baseline_pen, model_pen
from deshi.reporting.figures import Span, rows_height, spans
from deshi.reporting.models import baseline_figure, baseline_names

SHOWN = ("ndcg", "recall", "hr", "mrr", "map", "coverage")
MOST_ROWS = 12
"""A longer table of tests is collapsed."""


def section(context: Context, protocol: str) -> Section:
    """Headline figures, intervals, paired tests, and the table of all runs."""
    comparison = compare_evaluations(
        [model.evaluation for model in context.models],
        part=context.part, metrics=[context.metric], with_baselines=True,
    )  # fmt: skip
    lead = (
        f"How well the true next item is ranked on {context.part}. {protocol} Intervals and tests say how sure a "
        f"figure is with regard to other users; the spread over seeds is shown where there are several."
    )
    blocks: list[Block] = [_cards(context, comparison)]
    blocks.append(Pictures([_forest(context, comparison), *_differences(context, comparison)]))
    figures, *tests = tables_of(comparison)
    blocks += [_table_of(context, figures), Text(figures.caption, "note")]
    blocks += [Text(note, "note") for note in comparison.notes]
    blocks.append(_runs(context))
    for sheet in tests:
        blocks += [_table_of(context, sheet), Text(sheet.caption, "note")]
    return Section("summary", "Summary", lead, blocks)


def _pens(context: Context, comparison: Comparison) -> dict[str, Pen]:
    """Of models and baselines, by the comparison's labels."""
    colors = {model.group: model.color for model in context.models}
    baselines = baseline_names(context.models)
    pens = {}
    for model in comparison.models:
        if model.name in colors:
            pens[model.name] = model_pen(model.name, colors[model.name])
        else:
            number = baselines.index(model.kind) if model.kind in baselines else 0
            pens[model.name] = baseline_pen(model.name, number)
    return pens


def _cards(context: Context, comparison: Comparison) -> Cards:
    metric = title_of(context.metric)
    trained = [model for model in comparison.models if not model.is_baseline]
    baselines = [model for model in comparison.models if model.is_baseline]
    cards = [_best(f"Best model, {metric}", trained, comparison)] if trained else []
    if baselines:
        cards.append(_best(f"Best baseline, {metric}", baselines, comparison))
    examples = int(context.models[0].evaluation.metrics[f"{context.part}/n_examples"])
    cards.append(("Examples", f"{examples:,}", f"asked on {context.part}"))
    if context.data is not None:
        counts = context.data.bundle.manifest["counts"]
        remark = f"{counts['users']:,} users, {counts['interactions']:,} events"
        cards.append(("Items", f"{counts['items']:,}", remark))
    return Cards(cards)


def _best(title: str, models: Sequence[Model], comparison: Comparison) -> tuple[str, str, str]:
    (metric,) = comparison.metrics
    label = max((model.name for model in models), key=lambda name: comparison.figures[name][metric].mean)
    one = comparison.figures[label][metric]
    return title, f"{one.mean:.4f}", f"{label}, {one.low:.4f} to {one.high:.4f}"


def _forest(context: Context, comparison: Comparison) -> Picture:
    (metric,) = comparison.metrics
    pens, figures = _pens(context, comparison), {label: each[metric] for label, each in comparison.figures.items()}
    order = sorted(figures, key=lambda label: -figures[label].mean)
    shown = []
    for label in order:
        one = figures[label]
        points = one.by_seed if len(one.by_seed) > 1 else ()
        shown.append(Span(pens[label], one.mean, one.low, one.high, points))
    title = f"{title_of(metric)} on {context.part}"
    seeds = " Small points are single seeds." if any(span.points for span in shown) else ""
    return context.studio.picture(
        "summary", title,
        f"Mean and {_percent(comparison)} interval over users, the best on top; baselines are grey.{seeds}",
        spans(shown, title_of(metric)), height=rows_height(len(shown)),
    )  # fmt: skip


def _differences(context: Context, comparison: Comparison) -> list[Picture]:
    """Every model against the best one; intervals of paired differences are narrower than the figures' own."""
    (metric,) = comparison.metrics
    anchor, pens = comparison.compared_with(metric), _pens(context, comparison)
    shown = []
    for test in comparison.tests:
        if test.second == anchor:
            shown.append(Span(pens[test.first], test.difference, test.low, test.high))
        elif test.first == anchor:
            shown.append(Span(pens[test.second], -test.difference, -test.high, -test.low))
    if not shown:
        return []
    shown.sort(key=lambda span: -span.value)
    title = f"Difference to {anchor}, the best"
    picture = context.studio.picture(
        "summary-differences", title,
        f"Mean difference in {title_of(metric)} for the same users, with its {_percent(comparison)} interval. An "
        f"interval that reaches 0 is no proof of a difference.",
        spans(shown, f"difference in {title_of(metric)}", zero_line=True), height=rows_height(len(shown)),
    )  # fmt: skip
    return [picture]


def _percent(comparison: Comparison) -> str:
    return f"{100 * comparison.confidence:.4g}%"


def _table_of(context: Context, sheet: ComparisonTable) -> Table:
    """A table of the comparison without the column that names the one metric."""
    colors = {model.group: model.color for model in context.models}
    kept = [number for number, name in enumerate(sheet.columns) if name != "Metric" and number]
    rows = []
    for cells in sheet.cells:
        texts = [f"{cells[number].text}\n{cells[number].detail}".strip() for number in kept]
        bold = [place for place, number in enumerate(kept) if cells[number].bold]
        rows.append(Row(cells[0].text, texts, colors.get(cells[0].text), bold))
    columns = [sheet.columns[0], *(sheet.columns[number] for number in kept)]
    return Table(sheet.title, columns, rows, collapsed=len(rows) > MOST_ROWS)


def _runs(context: Context) -> Table:
    """Every run by itself, on all metrics; the best of a column is bold."""
    part, k = context.part, context.k
    figures = {model.label: dict(model.evaluation.metrics) for model in context.models}
    for name in baseline_names(context.models):
        found = {metric: baseline_figure(context.models, name, part, f"{metric}@{k}") for metric in SHOWN}
        figures[name] = {f"{part}/{metric}@{k}": value for metric, value in found.items() if value is not None}
    keys = [f"{part}/{metric}@{k}" for metric in SHOWN]
    if all(one.get(f"{part}/hr@{k}") == one.get(f"{part}/recall@{k}") for one in figures.values()):
        keys.remove(f"{part}/hr@{k}")  # one target an example: HR is Recall
    best = {key: max(one.get(key, -1.0) for one in figures.values()) for key in keys}
    rows = [
        Row(
            label,
            [f"{one[key]:.4f}" if key in one else "" for key in keys],
            context.color(label),
            [place for place, key in enumerate(keys) if one.get(key) == best[key]],
        )
        for label, one in figures.items()
    ]
    columns = ["model", *(title_of(key.partition("/")[2]) for key in keys)]
    return Table(f"Every run and baseline at {k}, {part}", columns, rows)

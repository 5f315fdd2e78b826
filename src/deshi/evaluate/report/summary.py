"""The section that answers first: which model is how good, how sure that is, and what makes it doubtful."""

from __future__ import annotations

from collections.abc import Sequence

from deshi.evaluate.report.blocks import Block, Cards, Picture, Pictures, Row, Section, Table
from deshi.evaluate.report.context import Context, title_of
from deshi.evaluate.report.figures import Span, rows_height, spans
from deshi.evaluate.report.models import (
    Model,
    per_case,
    reference_figure,
    reference_names,
    reference_ranks,
)
from deshi.evaluate.result import unbeaten
from deshi.metrics.significance import Interval, bootstrap_interval

SHOWN = ("ndcg", "recall", "hr", "mrr", "map", "coverage")


def warnings_of(context: Context) -> list[str]:
    """Everything that makes the figures doubtful, the worst first, each sentence with the models it is about."""
    by_sentence: dict[str, list[str]] = {}
    for model in context.models:
        for sentence in [*_leak(model), *_recorded(model)]:
            by_sentence.setdefault(sentence, []).append(model.label)
    several = len(context.models) > 1
    found = [f"{', '.join(labels)}: {text}" if several else text for text, labels in by_sentence.items()]
    return sorted(found, key=lambda text: "LEAK" not in text) + _not_beating(context)


def section(context: Context, protocol: str) -> Section:
    """Headline figures, intervals, and the table of all rankers."""
    intervals = _intervals(context)
    lead = (
        f"How well the true next item is ranked on {context.part}. {protocol} "
        f"Intervals are 95 % percentile bootstrap intervals over cases; they say how the figure would vary with other "
        f"users, not with other seeds."
    )
    blocks: list[Block] = [_cards(context, intervals), Pictures([_forest(context, intervals)]), _table(context)]
    return Section("summary", "Summary", lead, blocks)


def _leak(model: Model) -> list[str]:
    fit = model.record.get("fit") or {}
    if fit.get("train_targets") != "including_validation":
        return []
    return ["LEAK: trained on the validation targets. Validation figures and the selection by them mean nothing."]


def _recorded(model: Model) -> list[str]:
    """The evaluation's own warnings but those about references, which :func:`_not_beating` says for all at once."""
    evaluation, record = model.evaluation, model.record
    ks = sorted({int(key.partition("@")[2]) for key in evaluation.metrics if "@" in key})
    said = set(unbeaten(record["ranker"], evaluation.metrics, evaluation.references, ks))
    return [sentence for sentence in record["warnings"] if sentence not in said]


def _not_beating(context: Context) -> list[str]:
    part, metric = context.part, context.metric
    found = []
    for model in context.models:
        own = model.evaluation.metrics[f"{part}/{metric}"]
        others = {
            name: reference_figure(context.models, name, part, metric) for name in reference_names(context.models)
        }
        better = [f"{name} ({value:.4f})" for name, value in others.items() if value is not None and not own > value]
        if better:
            found.append(f"{model.label} ({own:.4f}) does not beat {', '.join(better)} on {title_of(metric)}, {part}.")
    return found


def _intervals(context: Context) -> dict[str, Interval]:
    """The metric of every ranker with its interval, by label."""
    ranks = {model.label: model.evaluation.ranks(context.part) for model in context.models}
    for name in _measured_references(context):
        ranks[name] = reference_ranks(context.models, name, context.part)
    return {label: bootstrap_interval(per_case(frame, context.metric)) for label, frame in ranks.items()}


def _measured_references(context: Context) -> list[str]:
    names = reference_names(context.models)
    return [n for n in names if reference_figure(context.models, n, context.part, context.metric) is not None]


def _cards(context: Context, intervals: dict[str, Interval]) -> Cards:
    models = [model.label for model in context.models]
    references = [label for label in intervals if label not in models]
    cards = [_best("Best run", models, intervals)]
    if references:
        cards.append(_best("Best reference", references, intervals))
    cases = int(context.models[0].evaluation.metrics[f"{context.part}/n_cases"])
    cards.append(("Cases", f"{cases:,}", f"asked on {context.part}"))
    if context.data is not None:
        counts = context.data.bundle.manifest["counts"]
        remark = f"{counts['users']:,} users, {counts['interactions']:,} events"
        cards.append(("Catalogue", f"{counts['items']:,} items", remark))
    return Cards(cards)


def _best(title: str, labels: Sequence[str], intervals: dict[str, Interval]) -> tuple[str, str, str]:
    label = max(labels, key=lambda name: intervals[name].mean)
    one = intervals[label]
    return title, f"{one.mean:.4f}", f"{label}, {one.low:.4f} to {one.high:.4f}"


def _forest(context: Context, intervals: dict[str, Interval]) -> Picture:
    title = f"{title_of(context.metric)} on {context.part}"
    order = sorted(intervals, key=lambda label: -intervals[label].mean)
    shown = [Span(context.pens[label], *_bounds(intervals[label])) for label in order]
    rows = [
        Row(label, [f"{one.mean:.4f}", f"{one.low:.4f}", f"{one.high:.4f}"], context.color(label))
        for label, one in ((label, intervals[label]) for label in order)
    ]
    return context.studio.picture(
        "summary", title,
        f"{title} of every ranker with its 95 % interval over cases, the best on top; reference rankers are grey.",
        spans(shown, title_of(context.metric)),
        Table(title, ["ranker", "mean", "low", "high"], rows), rows_height(len(shown)),
    )  # fmt: skip


def _bounds(one: Interval) -> tuple[float, float, float]:
    return one.mean, one.low, one.high


def _table(context: Context) -> Table:
    part, k = context.part, context.k
    figures = {model.label: dict(model.evaluation.metrics) for model in context.models}
    for name in _measured_references(context):
        figures[name] = {
            f"{part}/{metric}@{k}": value
            for metric in SHOWN
            if (value := reference_figure(context.models, name, part, f"{metric}@{k}")) is not None
        }
    keys = [f"{part}/{metric}@{k}" for metric in SHOWN]
    hit_rates = [one.get(f"{part}/hr@{k}") == one.get(f"{part}/recall@{k}") for one in figures.values()]
    if all(hit_rates):  # one target a case: HR is Recall
        keys.remove(f"{part}/hr@{k}")
    best = {key: max(one.get(key, float("-inf")) for one in figures.values()) for key in keys}
    rows = [
        Row(label, [_figure(one.get(key), best[key]) for key in keys], context.color(label))
        for label, one in figures.items()
    ]
    columns = ["ranker", *(title_of(key.partition("/")[2]) for key in keys)]
    return Table(f"Every ranker on {part} at {k}; * is the best of a column", columns, rows)


def _figure(value: float | None, best: float) -> str:
    if value is None:
        return ""
    return f"{value:.4f}{'*' if value == best else ''}"

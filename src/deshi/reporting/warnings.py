"""What makes the figures doubtful, in sentences for the top of the page."""

from __future__ import annotations

from deshi.comparison.warnings import evaluation_warnings, not_beating
from deshi.reporting.context import Context, title_of
from deshi.reporting.models import Model, baseline_figure, baseline_names


def warnings_of(context: Context) -> list[str]:
    """All warnings, leaks first, each with the runs that it is about."""
    by_sentence: dict[str, list[str]] = {}
    for model in context.models:
        for sentence in [*_leak(model), *evaluation_warnings(model.evaluation)]:
            by_sentence.setdefault(sentence, []).append(model.label)
    several = len(context.models) > 1
    found = [f"{', '.join(labels)}: {text}" if several else text for text, labels in by_sentence.items()]
    return sorted(found, key=lambda text: "LEAK" not in text) + _not_beating(context)


def _leak(model: Model) -> list[str]:
    fit = model.record.get("fit") or {}
    if fit.get("train_targets") != "including_validation":
        return []
    return ["LEAK: trained on the validation targets. Validation figures and the selection by them mean nothing."]


def _not_beating(context: Context) -> list[str]:
    part, metric = context.part, context.metric
    figures = {name: baseline_figure(context.models, name, part, metric) for name in baseline_names(context.models)}
    baselines = {name: value for name, value in figures.items() if value is not None}
    trained = [model for model in context.models if model.record["run"]]
    return [
        sentence
        for model in trained
        for sentence in not_beating(
            model.label, model.evaluation.metrics[f"{part}/{metric}"], baselines, f"{title_of(metric)}, {part}"
        )
    ]

"""What makes the figures doubtful, in sentences for the top of the page."""

from __future__ import annotations

from deshi.evaluate.report.context import Context, title_of
from deshi.evaluate.report.models import Model, reference_figure, reference_names
from deshi.evaluate.result import unbeaten


def warnings_of(context: Context) -> list[str]:
    """All warnings, leaks first, each with the runs that it is about."""
    by_sentence: dict[str, list[str]] = {}
    for model in context.models:
        for sentence in [*_leak(model), *_recorded(model)]:
            by_sentence.setdefault(sentence, []).append(model.label)
    several = len(context.models) > 1
    found = [f"{', '.join(labels)}: {text}" if several else text for text, labels in by_sentence.items()]
    return sorted(found, key=lambda text: "LEAK" not in text) + _not_beating(context)


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
    names = reference_names(context.models)
    references = {name: reference_figure(context.models, name, part, metric) for name in names}
    found = []
    for model in context.models:
        own = model.evaluation.metrics[f"{part}/{metric}"]
        better = [
            f"{name} ({value:.4f})" for name, value in references.items() if value is not None and not own > value
        ]
        if better and model.record["run"]:
            found.append(f"{model.label} ({own:.4f}) does not beat {', '.join(better)} on {title_of(metric)}, {part}.")
    return found

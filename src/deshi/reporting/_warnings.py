"""Warnings at the top of the page."""

from __future__ import annotations

from deshi.comparison import both_protocols
from deshi.evaluation import not_beating
from deshi.metrics import metric_title
from deshi.reporting._context import Context
from deshi.reporting._runs import ReportedRun, baseline_figure, baseline_names


def warnings_of(context: Context) -> list[str]:
    """All warnings, leaks first, each with the runs that it is about."""
    labels_of: dict[str, list[str]] = {}
    for run in context.runs:
        for sentence in [*_leak(run), *run.record["warnings"]]:
            labels_of.setdefault(sentence, []).append(run.label)
    several = len(context.runs) > 1
    warnings = [f"{', '.join(labels)}: {text}" if several else text for text, labels in labels_of.items()]
    protocols = both_protocols({run.model: run.evaluation for run in context.runs})
    return [*sorted(warnings, key=lambda text: "LEAK" not in text), *protocols, *_not_beating(context)]


def _leak(run: ReportedRun) -> list[str]:
    fit = run.record.get("fit") or {}
    if fit.get("train_targets") != "including_validation":
        return []
    return ["LEAK: trained on the validation targets. Validation figures and the selection by them mean nothing."]


def _not_beating(context: Context) -> list[str]:
    part, metric = context.part, context.metric
    figures = {name: baseline_figure(context.runs, name, part, metric) for name in baseline_names(context.runs)}
    baselines = {name: value for name, value in figures.items() if value is not None}
    subject = f"{metric_title(metric)}, {part}"
    return [
        sentence
        for run in context.runs
        if run.record["run"]
        for sentence in not_beating(run.label, run.evaluation.metrics[f"{part}/{metric}"], baselines, subject)
    ]

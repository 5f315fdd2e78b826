"""Warnings at the top of the page."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from deshi.comparison import both_protocols, is_refitted
from deshi.evaluation import kept, not_beating
from deshi.reporting._context import Context
from deshi.reporting._runs import ReportedRun, baseline_figure, baseline_names, baseline_ranks


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
    """Sentences about selected models beside selected baselines, and about refitted ones beside refitted ones."""
    protocols = [[run for run in context.runs if is_refitted(run.evaluation) is refitted] for refitted in (False, True)]
    return [sentence for runs in protocols for sentence in _not_beating_among(runs, context.part, context.metric)]


def _not_beating_among(runs: Sequence[ReportedRun], part: str, metric: str) -> list[str]:
    figures = {name: baseline_figure(runs, name, part, metric) for name in baseline_names(runs)}
    baselines = {name: value for name, value in figures.items() if value is not None}
    models = {run.label: run for run in runs if run.record["run"]}

    def ranks(name: str, part: str) -> list[pl.DataFrame]:
        if name in models:
            return kept(lambda: models[name].evaluation.ranks(part))
        return kept(lambda: baseline_ranks(runs, name, part))

    return [
        sentence
        for label, run in models.items()
        for sentence in not_beating(label, run.evaluation.metrics[f"{part}/{metric}"], baselines, metric, part, ranks)
    ]

"""A comparison: from finished evaluations to figures with intervals and paired tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from deshi.arrays import Floats
from deshi.comparison._comparison import Comparison, Figure, Model, PairTest
from deshi.comparison._models import Group, both_protocols, find_model, group, named
from deshi.comparison._pairing import check_measured_alike, per_user
from deshi.configuration.validation import flatten
from deshi.evaluation import Population, about_seen, kept, unbeaten
from deshi.metrics import (
    bootstrap_means,
    effect_size,
    holm,
    percentile_bounds,
    permutation_p_values,
    wilcoxon,
    wins_ties_losses,
)
from deshi.runs import Evaluation
from deshi.types import DeshiError

Pair = tuple[int, int]
"""Numbers of two models."""

METRICS = ("ndcg@10", "recall@10")
FEWEST_PERMUTATIONS = 10_000
GOOD_SEEDS = 3
ALONE = "Every run stands alone (each_run=true): a difference between two runs may be one between their seeds."
NO_TESTS = "There is one model, so there is nothing to test."


def compare_evaluations(
    evaluations: Sequence[Evaluation],
    *,
    part: str = "test",
    metrics: Sequence[str] = METRICS,
    against: str | None = None,
    names: Sequence[str] | None = None,
    with_baselines: bool = False,
    each_run: bool = False,
    samples: int = 2000,
    permutations: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare evaluations by user.

    Args:
        evaluations: of :func:`deshi.runs.find_evaluations`.
        part: validation or test.
        metrics: names such as ``ndcg@10``; any K, as ranks are exact.
        against: a model (its name, its kind or a run of it) that all others are compared with; None compares all pairs.
        names: of the models, in their order; None makes them.
        with_baselines: add the baselines that were evaluated beside the runs.
        each_run: don't join runs that differ only in the seed.
        samples: bootstrap resamples.
        permutations: sign flips of a permutation test; None takes as many as the number of tests needs.
        confidence: of the intervals; ``1 - confidence`` is the level of the tests.
        seed: of the resampling.

    Raises:
        DeshiError: for evaluations on other data, users or protocols, a part or model that isn't there, no evaluation.
    """
    if not evaluations:
        raise DeshiError("There is nothing to compare: give at least one run, e.g. deshi compare latest.")
    check_measured_alike(evaluations)
    unnamed, notes = group(evaluations, with_baselines, each_run)
    groups = named(unnamed, names)
    opponent = None if against is None else find_model(groups, against)
    metrics = list(dict.fromkeys(metrics))
    by_seed = per_user(groups, part, metrics)
    values = np.stack([runs.mean(axis=0) for runs in by_seed], axis=1)  # (users, models, metrics)
    pairs = _pairs([model.name for model in groups], opponent)
    flips = permutations or _enough_permutations(len(pairs) * len(metrics), confidence)
    # One set of resampled users for all models and metrics, so that the interval of a difference is a paired one.
    means = bootstrap_means(values.reshape(len(values), -1), samples, seed).reshape(-1, len(groups), len(metrics))
    record = evaluations[0].record
    doubts, facts = _about_seen(record)
    return Comparison(
        data=str(record["data"]),
        part=part,
        n_users=len(values),
        metrics=metrics,
        models=[_model(model) for model in groups],
        figures=_figures(groups, metrics, by_seed, means, confidence),
        tests=_tests([model.name for model in groups], pairs, metrics, values, means, confidence, flips, seed),
        against=opponent,
        confidence=confidence,
        samples=samples,
        permutations=flips,
        seed=seed,
        protocol=flatten(record.get("protocol") or {}),
        warnings=[*doubts, *_warnings(groups, part, doubts)],
        notes=[
            *notes,
            *facts,
            *_name_notes(named(unnamed), groups),
            *([ALONE] if each_run else _seed_notes(groups)),
            *([] if pairs else [NO_TESTS]),
        ],
    )


def _pairs(names: Sequence[str], against: str | None) -> list[Pair]:
    """All pairs, or each other model with ``against``, which is the second then."""
    numbers = range(len(names))
    if against is not None:
        opponent = names.index(against)
        return [(number, opponent) for number in numbers if number != opponent]
    return [(first, second) for first in numbers for second in numbers if first < second]


def _enough_permutations(n_tests: int, confidence: float) -> int:
    """So many that the smallest p-value possible, times the number of tests, is a fifth of the level.

    With fewer, Holm's correction could call nothing significant, however large the difference.
    """
    return max(FEWEST_PERMUTATIONS, math.ceil(5 * n_tests / (1 - confidence)))


def _model(model: Group) -> Model:
    return Model(
        name=model.name,
        kind=model.first.kind,
        seeds=tuple(member.seed for member in model.members if member.seed is not None),
        evaluations=tuple(str(member.evaluation.folder) for member in model.members),
        settings={} if model.is_baseline else dict(model.first.settings),
        is_baseline=model.is_baseline,
    )


def _figures(
    groups: Sequence[Group], metrics: Sequence[str], by_seed: Sequence[Floats], means: Floats, confidence: float
) -> dict[str, dict[str, Figure]]:
    """By model and metric: mean and spread over seeds, and the interval over users."""
    low, high = percentile_bounds(means, confidence)
    figures: dict[str, dict[str, Figure]] = {}
    for row, (model, values) in enumerate(zip(groups, by_seed, strict=True)):
        runs = values.mean(axis=1)  # (members, metrics)
        spread = runs.std(axis=0, ddof=1) if len(runs) > 1 else None
        figures[model.name] = {
            metric: Figure(
                mean=float(runs[:, column].mean()),
                std=None if spread is None else float(spread[column]),
                low=float(low[row, column]),
                high=float(high[row, column]),
                by_seed=tuple(float(value) for value in runs[:, column]),
            )
            for column, metric in enumerate(metrics)
        }
    return figures


def _tests(
    names: Sequence[str],
    pairs: Sequence[Pair],
    metrics: Sequence[str],
    values: Floats,
    means: Floats,
    confidence: float,
    permutations: int,
    seed: int,
) -> list[PairTest]:
    """All tests, metric by metric; both kinds of p-values are corrected over all of them."""
    if not pairs:
        return []
    n_users, _, n_metrics = values.shape
    cells = [(column, first, second) for column in range(n_metrics) for first, second in pairs]
    # The permutation test takes all columns (model, metric) at once: the flips are drawn once for every pair.
    flat = [(first * n_metrics + column, second * n_metrics + column) for column, first, second in cells]
    permutation = [float(p) for p in permutation_p_values(values.reshape(n_users, -1), flat, permutations, seed)]
    signed_ranks = [wilcoxon(values[:, first, column], values[:, second, column]) for column, first, second in cells]
    corrected = zip(permutation, signed_ranks, holm(permutation), holm(signed_ranks), strict=True)
    tests = []
    for (column, first, second), p_values in zip(cells, corrected, strict=True):
        a, b = values[:, first, column], values[:, second, column]
        low, high = percentile_bounds(means[:, first, column] - means[:, second, column], confidence)
        difference = float((a - b).mean()), float(low), float(high)
        key = metrics[column], names[first], names[second]
        tests.append(PairTest(*key, *difference, *p_values, effect_size(a, b), *wins_ties_losses(a, b)))
    return tests


def _about_seen(record: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Warnings and notes about seen targets and few candidates, which all evaluations of a protocol share."""
    counted = {part: counts for part, counts in record.get("population", {}).items() if "seen_targets" in counts}
    if not counted or record["protocol"]["candidates"] != "full":
        return [], []
    populations = {part: Population(**counts) for part, counts in counted.items()}
    return about_seen(populations, record["protocol"]["filter_seen"], record["n_items"])


def _warnings(groups: Sequence[Group], part: str, shared: Sequence[str]) -> list[str]:
    """Warnings of the evaluations but shared ones, with the model's name and, if it has several runs, the seed."""
    models = [model for model in groups if not model.is_added]
    sentences = []
    for model in models:
        for member in model.members:
            name = model.name if len(model.members) == 1 else f"{model.name}, seed {member.seed}"
            warnings = [text for text in member.evaluation.record["warnings"] if text not in shared]
            sentences += [f"{name}: {' '.join(warnings)}"] if warnings else []
    protocols = both_protocols({model.name: model.first.evaluation for model in models})
    return [*protocols, *sentences, *(sentence for model in models for sentence in _not_beating(model, part))]


def _not_beating(model: Group, part: str) -> list[str]:
    """Whether the model, as the mean of its runs, beats the best baseline that was evaluated beside them."""
    metrics = [member.evaluation.metrics for member in model.members]
    keys = [key for key in metrics[0] if key.startswith(f"{part}/ndcg@") and all(key in each for each in metrics)]
    means = {key: sum(each[key] for each in metrics) / len(metrics) for key in keys}
    owners = {name: member.evaluation for member in model.members for name in member.evaluation.baselines}

    def ranks(name: str, part: str) -> list[pl.DataFrame]:
        if name in owners:
            return kept(lambda: owners[name].baseline_ranks(name, part))
        return [frame for member in model.members for frame in kept(partial(member.evaluation.ranks, part))]

    baselines = {name: evaluation.baselines[name] for name, evaluation in owners.items()}
    return unbeaten(model.name, means, baselines, ranks)


def _name_notes(made: Sequence[Group], groups: Sequence[Group]) -> list[str]:
    """Which runs got the user's names: names go by order, and a shell sorts run folders by time."""
    sentences = []
    for model, unnamed in zip(groups, made, strict=True):
        if model.name != unnamed.name:
            evaluations = [member.evaluation for member in model.members]
            runs = [Path(evaluation.record.get("run") or evaluation.folder).name for evaluation in evaluations]
            sentences.append(f"{model.name} is {unnamed.name} of {', '.join(runs)}")
    return [f"Names: {'; '.join(sentences)}."] if sentences else []


def _seed_notes(groups: Sequence[Group]) -> list[str]:
    """How little is known about other seeds."""
    trained = [model for model in groups if not model.is_baseline]
    single = [model.name for model in trained if len(model.members) == 1]
    few = [model.name for model in trained if 1 < len(model.members) < GOOD_SEEDS]
    notes = []
    if single:
        notes.append(f"One seed of {', '.join(single)}: the spread over seeds is unknown, a test covers users only.")
    if few:
        notes.append(
            f"Two seeds of {', '.join(few)}: the spread over seeds is weakly known; train {GOOD_SEEDS} or more."
        )
    if len({len(model.members) for model in trained}) > 1:
        notes.append("The models have different numbers of seeds; an average over more seeds varies less.")
    return notes

"""The comparison itself: from finished evaluations to figures with intervals and paired tests, as plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deshi.arrays import Floats
from deshi.comparison.comparison import Comparison, Figure, Model, PairTest
from deshi.comparison.models import Group, find_opponent, flatten, group, labelled
from deshi.comparison.pairing import check_measured_alike, per_user
from deshi.evaluation.result import headline_k
from deshi.evaluation.warnings import not_beating, own_warnings
from deshi.metrics.significance import (
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
    labels: Sequence[str] | None = None,
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
        against: a model (label, ranker or run) that all others are compared with; None compares all pairs.
        labels: names of the models, in their order; None makes them.
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
    found, notes = group(evaluations, with_baselines, each_run)
    groups = labelled(found, labels)
    anchor = None if against is None else find_opponent(groups, against)
    columns = list(dict.fromkeys(metrics))
    by_seed = per_user(groups, part, columns)
    values = np.stack([one.mean(axis=0) for one in by_seed], axis=1)  # (users, models, metrics)
    pairs = _pairs([one.label for one in groups], anchor)
    flips = permutations or _enough_permutations(len(pairs) * len(columns), confidence)
    means = bootstrap_means(values.reshape(len(values), -1), samples, seed).reshape(-1, len(groups), len(columns))
    record = evaluations[0].record
    return Comparison(
        data=str(record["data"]),
        part=part,
        n_users=len(values),
        metrics=columns,
        models=[_model(one) for one in groups],
        figures=_figures(groups, columns, by_seed, means, confidence),
        tests=_tests([one.label for one in groups], pairs, columns, values, means, confidence, flips, seed),
        against=anchor,
        confidence=confidence,
        samples=samples,
        permutations=flips,
        seed=seed,
        protocol=flatten(record.get("protocol") or {}),
        warnings=_warnings(groups, part),
        notes=[
            *notes,
            *_label_notes(labelled(found), groups),
            *([ALONE] if each_run else _seed_notes(groups)),
            *([] if pairs else [NO_TESTS]),
        ],
    )


def _pairs(labels: Sequence[str], against: str | None) -> list[Pair]:
    numbers = range(len(labels))
    if against is not None:
        anchor = labels.index(against)
        return [(one, anchor) for one in numbers if one != anchor]
    return [(one, other) for one in numbers for other in numbers if one < other]


def _enough_permutations(n_tests: int, confidence: float) -> int:
    """So many that the smallest p-value possible, times the number of tests, is a fifth of the level.

    With fewer, Holm's correction could call nothing significant, however large the difference.
    """
    return max(FEWEST_PERMUTATIONS, math.ceil(5 * n_tests / (1 - confidence)))


def _model(one: Group) -> Model:
    return Model(
        label=one.label,
        ranker=one.first.ranker,
        seeds=tuple(member.seed for member in one.members if member.seed is not None),
        evaluations=tuple(str(member.evaluation.folder) for member in one.members),
        settings={} if one.is_baseline else dict(one.first.settings),
        baseline=one.is_baseline,
    )


def _figures(
    groups: Sequence[Group], metrics: Sequence[str], by_seed: Sequence[Floats], means: Floats, confidence: float
) -> dict[str, dict[str, Figure]]:
    low, high = percentile_bounds(means, confidence)
    figures: dict[str, dict[str, Figure]] = {}
    for row, (one, values) in enumerate(zip(groups, by_seed, strict=True)):
        runs = values.mean(axis=1)  # (members, metrics)
        spread = runs.std(axis=0, ddof=1) if len(runs) > 1 else None
        figures[one.label] = {
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
    labels: Sequence[str],
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
    cells = [(column, one, other) for column in range(n_metrics) for one, other in pairs]
    flat = [(one * n_metrics + column, other * n_metrics + column) for column, one, other in cells]
    flipped = permutation_p_values(values.reshape(n_users, -1), flat, permutations, seed)
    ranked = [wilcoxon(values[:, one, column], values[:, other, column]) for column, one, other in cells]
    corrected, ranked_corrected = holm([float(p) for p in flipped]), holm(ranked)
    tests = []
    for number, (column, one, other) in enumerate(cells):
        first, second = values[:, one, column], values[:, other, column]
        low, high = percentile_bounds(means[:, one, column] - means[:, other, column], confidence)
        wins, ties, losses = wins_ties_losses(first, second)
        tests.append(
            PairTest(
                metric=metrics[column],
                first=labels[one],
                second=labels[other],
                difference=float((first - second).mean()),
                low=float(low),
                high=float(high),
                permutation_p=float(flipped[number]),
                wilcoxon_p=ranked[number],
                permutation_holm=corrected[number],
                wilcoxon_holm=ranked_corrected[number],
                effect_size=effect_size(first, second),
                wins=wins,
                ties=ties,
                losses=losses,
            )
        )
    return tests


def _warnings(groups: Sequence[Group], part: str) -> list[str]:
    """What the evaluations warn of, with the model's label and, if it has several runs, the seed first."""
    found = []
    for one in groups:
        for member in one.members if not one.is_added else ():
            name = one.label if len(one.members) == 1 else f"{one.label}, seed {member.seed}"
            sentences = own_warnings(member.evaluation)
            found += [f"{name}: {' '.join(sentences)}"] if sentences else []
    return [*found, *(sentence for one in groups if not one.is_added for sentence in _not_beating(one, part))]


def _not_beating(one: Group, part: str) -> list[str]:
    """Whether the model, as the mean of its runs, beats the baselines that were evaluated beside them."""
    metrics = [member.evaluation.metrics for member in one.members]
    ks = [int(key.rpartition("@")[2]) for key in metrics[0] if key.startswith(f"{part}/ndcg@")]
    key = f"{part}/ndcg@{headline_k(ks)}" if ks else ""
    if any(key not in figures for figures in metrics):
        return []
    beside = {name: each for member in one.members for name, each in member.evaluation.baselines.items()}
    baselines = {name: each[key] for name, each in beside.items() if key in each}
    own = sum(figures[key] for figures in metrics) / len(metrics)
    return not_beating(one.label, own, baselines, f"{key.partition('/')[2].upper()}, {part}")


def _label_notes(made: Sequence[Group], groups: Sequence[Group]) -> list[str]:
    """Which runs got the user's labels: labels go by order, and a shell sorts run folders by time."""
    named = []
    for one, other in zip(groups, made, strict=True):
        if one.label != other.label:
            found = [member.evaluation for member in one.members]
            runs = [Path(evaluation.record.get("run") or evaluation.folder).name for evaluation in found]
            named.append(f"{one.label} is {other.label} of {', '.join(runs)}")
    return [f"Labels: {'; '.join(named)}."] if named else []


def _seed_notes(groups: Sequence[Group]) -> list[str]:
    """How little is known about other seeds."""
    trained = [one for one in groups if not one.is_baseline]
    single = [one.label for one in trained if len(one.members) == 1]
    few = [one.label for one in trained if 1 < len(one.members) < GOOD_SEEDS]
    notes = []
    if single:
        notes.append(f"One seed of {', '.join(single)}: the spread over seeds is unknown, a test covers users only.")
    if few:
        notes.append(
            f"Two seeds of {', '.join(few)}: the spread over seeds is weakly known; train {GOOD_SEEDS} or more."
        )
    if len({len(one.members) for one in trained}) > 1:
        notes.append("The models have different numbers of seeds; an average over more seeds varies less.")
    return notes

"""The headline of a gap: validation, test, their difference and their ratio, with intervals over users."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deshi.arrays import Floats, Ints
from deshi.metrics import Interval, bootstrap_means, percentile_interval


class Headline(NamedTuple):
    """Four figures with their intervals; those of difference and ratio are paired by user."""

    validation: Interval
    test: Interval
    difference: Interval
    ratio: Interval


def headline(
    validation: Floats, test: Floats, users: tuple[Ints, Ints], samples: int, confidence: float, seed: int
) -> Headline:
    """Compare the metric of the validation examples ``(V,)`` with that of the test examples ``(T,)``.

    Users are resampled, each with the examples that it has: a part may lack some of them. The ratio is NaN if
    validation is 0.

    Args:
        validation: the metric of each example.
        test: the metric of each example.
        users: of the examples, ``(V,)`` and ``(T,)``.
        samples: of the bootstrap.
        confidence: of the intervals.
        seed: of the resampling.
    """
    # A row a user: sum of the metric on validation and on test, number of examples on validation and on test. A mean
    # over resampled users' examples is then a ratio of two resampled means, paired over the parts.
    all_users = np.union1d(*users)
    sums = np.zeros((len(all_users), 4))
    for column, (part_users, values) in enumerate(zip(users, (validation, test), strict=True)):
        rows = np.searchsorted(all_users, part_users)
        np.add.at(sums[:, column], rows, values)
        np.add.at(sums[:, 2 + column], rows, 1.0)
    resampled = bootstrap_means(sums, samples, seed)
    validation_means, test_means = (_ratio(resampled[:, part], resampled[:, 2 + part]) for part in (0, 1))
    before, after = float(validation.mean()), float(test.mean())
    return Headline(
        percentile_interval(before, validation_means, confidence),
        percentile_interval(after, test_means, confidence),
        percentile_interval(after - before, test_means - validation_means, confidence),
        percentile_interval(
            after / before if before else float("nan"), _ratio(test_means, validation_means), confidence
        ),
    )


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator != 0)

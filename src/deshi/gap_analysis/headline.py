"""The headline of a gap: validation, test, their difference and their ratio, with intervals over users."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deshi.arrays import Floats, Ints
from deshi.metrics.significance import Interval, bootstrap_means, percentile_interval


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
        users: whose examples they are, ``(V,)`` and ``(T,)``.
        samples: of the bootstrap.
        confidence: of the intervals.
        seed: of the resampling.
    """
    everybody = np.union1d(*users)
    sums = np.zeros((len(everybody), 4))
    for column, (own, worth) in enumerate(zip(users, (validation, test), strict=True)):
        places = np.searchsorted(everybody, own)
        np.add.at(sums[:, column], places, worth)
        np.add.at(sums[:, 2 + column], places, 1.0)
    drawn = bootstrap_means(sums, samples, seed)
    before, after = (_over(drawn[:, part], drawn[:, 2 + part]) for part in (0, 1))
    first, second = float(validation.mean()), float(test.mean())
    return Headline(
        percentile_interval(first, before, confidence),
        percentile_interval(second, after, confidence),
        percentile_interval(second - first, after - before, confidence),
        percentile_interval(second / first if first else float("nan"), _over(after, before), confidence),
    )


def _over(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole != 0)

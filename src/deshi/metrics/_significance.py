"""Statistics of per-example metrics: bootstrap intervals, paired tests and their correction, effect sizes.

The examples are the sampling unit: what is estimated is how the figures would vary had other users come from the same
population. Other seeds or other data are not covered. Assumptions and formulas are in ``docs/compare.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from deshi.arrays import Floats
from deshi.types import DeshiError

CELLS = 1 << 20
"""Cells of a block of resampling weights (samples x examples): 8 MiB of float64."""

DECIMALS = 12
"""Differences are rounded to this: equal metrics that were summed in another order must stay ties."""


@dataclass(frozen=True)
class Interval:
    """A mean and the interval around it."""

    mean: float
    low: float
    high: float


def bootstrap_interval(values: Floats, confidence: float = 0.95, samples: int = 2000, seed: int = 0) -> Interval:
    """The mean of ``values`` ``(C,)`` with its percentile bootstrap interval over examples.

    Args:
        values: a metric's value for each example.
        confidence: the interval's nominal coverage, between 0 and 1.
        samples: number of resamples.
        seed: of the resampling.

    Raises:
        DeshiError: for no examples, NaN values or a confidence outside of (0, 1).
    """
    checked = _checked(values)
    return percentile_interval(float(checked.mean()), bootstrap_means(checked, samples, seed), confidence)


def percentile_interval(point: float, drawn: Floats, confidence: float = 0.95) -> Interval:
    """A figure with the percentile interval of its resampled values ``(samples,)``.

    Resamples in which the figure doesn't exist (a ratio over 0) are left out; without any other the bounds are NaN.
    """
    real = drawn[np.isfinite(drawn)]
    low, high = percentile_bounds(real, confidence) if len(real) else (np.nan, np.nan)
    return Interval(point, float(low), float(high))


def percentile_bounds(means: Floats, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """The ends of the percentile interval of resampled means ``(samples,)`` or ``(samples, M)``, ``()`` or ``(M,)``."""
    if not 0 < confidence < 1:
        raise DeshiError(f"confidence is {confidence}, expected a number between 0 and 1, such as 0.95.")
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high


def bootstrap_means(values: Floats, samples: int = 2000, seed: int = 0) -> Floats:
    """Means over resampled examples, ``(samples,)`` for ``values`` ``(C,)`` and ``(samples, M)`` for ``(C, M)``.

    A resample draws C examples with replacement, the same ones for all columns: the difference of two columns is the
    paired bootstrap of their difference. The weights are made in blocks, so the memory doesn't grow with ``samples``.

    Raises:
        DeshiError: for no examples, NaN values or fewer than one sample.
    """
    checked = _checked(values)
    generator, n_examples = np.random.default_rng(seed), len(checked)
    blocks = [_resample(generator, size, n_examples) @ checked / n_examples for size in _blocks(samples, n_examples)]
    means: Floats = np.concatenate(blocks)
    return means


def paired_permutation(first: Floats, second: Floats, samples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of the paired permutation test on the mean difference: random sign flips.

    Args:
        first: ``(C,)`` a metric of one model.
        second: ``(C,)`` the same metric and examples of another.
        samples: number of random sign vectors.
        seed: of the signs.

    Returns:
        ``(b + 1) / (samples + 1)`` with b the number of flips whose mean is at least as far from 0: never 0.
    """
    differences = _differences(first, second)
    return float(permutation_p_values(differences[:, None], [(0, None)], samples, seed)[0])


def permutation_p_values(
    values: Floats, pairs: Sequence[tuple[int, int | None]], samples: int = 10_000, seed: int = 0
) -> Floats:
    """:func:`paired_permutation` for many pairs of columns at once, ``(P,)``.

    A flip's signs are the same for every pair, so each column is multiplied by the signs once, however many pairs it
    is in. Every p-value is that of its pair alone; only their Monte Carlo errors are correlated.

    Args:
        values: ``(C, M)`` per-example metrics, a column each.
        pairs: column numbers; None as the second is a column of zeros.
        samples: number of random sign vectors.
        seed: of the signs.
    """
    checked = _checked(values)
    # Examples of zeros, such as users whom no model serves, change no sum. A last column of zeros stands for None.
    used = checked[checked.any(axis=1)]
    padded = np.concatenate([used, np.zeros((len(used), 1))], axis=1)
    first = np.array([column for column, _ in pairs], dtype=np.int64)
    second = np.array([-1 if column is None else column for _, column in pairs], dtype=np.int64)
    totals = padded.sum(axis=0)
    observed = np.abs(totals[first] - totals[second])
    # Metrics take few values: many flips tie with the observed sum, and rounding must not break the ties.
    bound = observed - 1e-9 * np.abs(padded).sum(axis=0).max()
    generator, reached = np.random.default_rng(seed), np.zeros(len(pairs), dtype=np.int64)
    for size in _blocks(samples, len(padded)):
        # signs are 2 c - 1 of coins c in {0, 1}: sum_i (2 c_i - 1) x_i = 2 sum_i c_i x_i - sum_i x_i, for all columns
        sums = 2.0 * (_coins(generator, size, len(padded)) @ padded) - totals
        reached += (np.abs(sums[:, first] - sums[:, second]) >= bound).sum(axis=0)
    p_values: Floats = (reached + 1) / (samples + 1)
    return p_values


def wilcoxon(first: Floats, second: Floats) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test of ``(C,)`` pairs; 1 if all are equal.

    Zero differences take part in the ranking and are then left out (Pratt), as most examples are ties at small K.
    """
    from scipy import stats  # a second of import time, for this test alone

    differences = _differences(first, second)
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="pratt").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values in the order given, comparable with the level of the family.

    Raises:
        DeshiError: for a value outside of 0 .. 1.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise DeshiError(f"p-values are {list(p_values)}, expected numbers from 0 to 1.")
    # the smallest of m is multiplied by m, the next by m - 1, ...; none becomes smaller than those before it
    order = np.argsort(values, kind="stable")
    scaled = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]


def effect_size(first: Floats, second: Floats) -> float:
    """Cohen's d of the paired differences: their mean over their standard deviation (C - 1).

    0 if all are equal, and signed infinity if all differ by the same amount.
    """
    differences = _differences(first, second)
    mean = float(differences.mean())
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    if spread < 1e-12:
        return 0.0 if mean == 0 else float(np.copysign(np.inf, mean))
    return mean / spread


def wins_ties_losses(first: Floats, second: Floats) -> tuple[int, int, int]:
    """The numbers of examples in which ``first`` is greater than, equal to and less than ``second``, both ``(C,)``."""
    differences = _differences(first, second)
    return int((differences > 0).sum()), int((differences == 0).sum()), int((differences < 0).sum())


def _differences(first: Floats, second: Floats) -> Floats:
    if np.shape(first) != np.shape(second) or np.ndim(first) != 1:
        raise DeshiError(
            f"A paired test got values of shapes {np.shape(first)} and {np.shape(second)}, expected both (C,): "
            f"the same examples in the same order."
        )
    difference: Floats = np.round(_checked(first) - _checked(second), DECIMALS)
    return difference


def _checked(values: Floats) -> Floats:
    checked = np.asarray(values, dtype=np.float64)
    if not len(checked):
        raise DeshiError("There is no example: statistics need at least one. Check the split and the part.")
    bad = int((~np.isfinite(checked)).sum())
    if bad:
        raise DeshiError(f"{bad} of {checked.size} values are NaN or infinite. Leave examples without targets out.")
    return checked


def _blocks(samples: int, n_examples: int) -> Iterator[int]:
    """Sizes of blocks of samples that add up to ``samples``: of both numbers alone, so a seed draws the same again."""
    if samples < 1:
        raise DeshiError(f"samples is {samples}, expected a number from 1; intervals need about 1000.")
    step = max(1, CELLS // max(1, n_examples))
    for begin in range(0, samples, step):
        yield min(step, samples - begin)


def _resample(generator: np.random.Generator, size: int, n_examples: int) -> Floats:
    """``(size, C)``: how often each example is in each resample."""
    drawn = generator.integers(0, n_examples, size=(size, n_examples))
    drawn += np.arange(size)[:, None] * n_examples  # one count for all resamples: each has its own range of numbers
    counts = np.bincount(drawn.ravel(), minlength=size * n_examples)
    return counts.reshape(size, n_examples).astype(np.float64)


def _coins(generator: np.random.Generator, size: int, n_examples: int) -> Floats:
    """``(size, C)`` of 0 and 1, each bit of a random byte for one example."""
    random_bytes = generator.integers(0, 256, size=(size, -(-n_examples // 8)), dtype=np.uint8)
    return np.unpackbits(random_bytes, axis=1, count=n_examples).astype(np.float64)

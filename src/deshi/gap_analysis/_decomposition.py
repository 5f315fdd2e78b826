"""The Oaxaca-Blinder decomposition of the gap: the part that differing examples explain, and the residue.

The metric of an example is regressed on groups (quantiles) of its properties and on the part that it belongs to. With
an intercept and the part among the regressors, the difference of the parts' means is exactly the sum, over properties,
of (difference of the groups' shares) times (the groups' coefficients), plus the coefficient of the part: the residue,
the gap between examples that are alike. Oaxaca 1973 and Blinder 1973, pooled coefficients as in Jann 2008
(https://doi.org/10.1177/1536867X0800800401). Associations, not causes: a property gets the credit for what goes
with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deshi.arrays import Floats, Ints
from deshi.gap_analysis._covariates import Covariate
from deshi.metrics import Interval, percentile_interval

GROUPS = 8
RIDGE = 1e-9
"""Times the number of examples: only so that properties that coincide don't make the system singular."""


@dataclass(frozen=True)
class Design:
    """The regression's inputs, a row an example, validation before test.

    Attributes:
        columns: ``(N, P)`` intercept, the part (1 for test) and the groups of every property.
        slices: the columns of each property.
        values: ``(N,)`` the metric.
        users: ``(N,)`` the user of each example: what is resampled.
    """

    columns: Floats
    slices: Sequence[slice]
    values: Floats
    users: Ints


def design(properties: Sequence[Covariate], values: tuple[Floats, Floats], users: tuple[Ints, Ints]) -> Design:
    """Group every property by quantiles of both parts together, NaN a group of its own.

    Args:
        properties: of the examples.
        values: the metric of the validation examples ``(V,)`` and of the test examples ``(T,)``.
        users: the users of both.
    """
    sizes = [len(part_values) for part_values in values]
    # first columns: the intercept, and 1 for test
    blocks = [np.ones((sum(sizes), 1)), np.repeat([0.0, 1.0], sizes)[:, None]]
    slices, width = [], 2
    for covariate in properties:
        block = _groups(np.concatenate([covariate.validation, covariate.test]))
        blocks.append(block)
        slices.append(slice(width, width + block.shape[1]))
        width += block.shape[1]
    return Design(np.hstack(blocks), slices, np.concatenate(values), np.concatenate(users))


def decompose(inputs: Design, samples: int, confidence: float, seed: int) -> tuple[list[Interval], Interval]:
    """Each property's contribution to the gap (test minus validation) and the residue, with bootstrap intervals.

    Returns:
        An interval over users for each property, in their order, and the residue's; their means add up to the gap.
    """
    estimates = _contributions(inputs, np.ones(len(inputs.values)))
    generator = np.random.default_rng(seed)
    # A resample draws users with replacement; an example weighs as often as its user was drawn.
    _, owner = np.unique(inputs.users, return_inverse=True)
    n_users = int(owner.max()) + 1
    resampled = np.empty((samples, len(estimates)))
    for sample in range(samples):
        times = np.bincount(generator.integers(n_users, size=n_users), minlength=n_users)
        resampled[sample] = _contributions(inputs, times[owner].astype(np.float64))
    intervals = [
        percentile_interval(float(estimate), resampled[:, column], confidence)
        for column, estimate in enumerate(estimates)
    ]
    return intervals[:-1], intervals[-1]


def _contributions(inputs: Design, weights: Floats) -> Floats:
    """The properties' contributions and, last, the residue, for weighted examples."""
    columns, is_test = inputs.columns, inputs.columns[:, 1]
    # 1. weighted least squares, pooled over both parts: (X' W X + ridge) b = X' W m
    weighted = columns * weights[:, None]
    gram = weighted.T @ columns
    gram += np.eye(len(gram)) * RIDGE * weights.sum()
    coefficients = np.linalg.solve(gram, weighted.T @ inputs.values)
    # 2. the parts' weighted means: of the groups (their shares of the examples) and of the metric
    on_test, on_validation = weights * is_test, weights * (1 - is_test)
    shift = on_test @ columns / on_test.sum() - on_validation @ columns / on_validation.sum()
    gap = on_test @ inputs.values / on_test.sum() - on_validation @ inputs.values / on_validation.sum()
    # 3. a property contributes the change of its groups' shares times their coefficients; the residue is the remainder
    contributions = [float(shift[group] @ coefficients[group]) for group in inputs.slices]
    return np.array([*contributions, gap - sum(contributions)])


def _groups(values: Floats) -> Floats:
    """``(N, G)`` 0 or 1: the quantile group of each value, the last column for NaN."""
    real = ~np.isnan(values)
    # inner edges of the quantile groups; equal edges are one, so that a property of few values has fewer groups
    edges = np.unique(np.quantile(values[real], np.linspace(0, 1, GROUPS + 1)[1:-1])) if real.any() else np.zeros(0)
    group = np.where(real, np.searchsorted(edges, np.where(real, values, 0), side="right"), len(edges) + 1)
    columns = np.zeros((len(values), len(edges) + 2))
    columns[np.arange(len(values)), group] = 1  # a one-hot row an example; groups without an example are dropped
    return columns[:, columns.any(0)]

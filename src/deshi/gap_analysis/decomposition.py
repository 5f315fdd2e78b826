"""The Oaxaca-Blinder decomposition of the gap: what differing examples explain, and what they leave over.

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
from deshi.gap_analysis.covariates import Covariate
from deshi.metrics.significance import Interval, percentile_interval

GROUPS = 8
RIDGE = 1e-9
"""Times the number of examples: only so that properties that coincide don't make the system singular."""


@dataclass(frozen=True)
class Design:
    """The regression's inputs, a row an example, validation before test.

    Attributes:
        columns: ``(N, P)`` intercept, the part (1 for test) and the groups of every property.
        slices: the columns of each property.
        worth: ``(N,)`` the metric.
        users: ``(N,)`` whose example it is: what is resampled.
    """

    columns: Floats
    slices: Sequence[slice]
    worth: Floats
    users: Ints


def design(properties: Sequence[Covariate], worth: tuple[Floats, Floats], users: tuple[Ints, Ints]) -> Design:
    """Group every property by quantiles of both parts together, NaN a group of its own.

    Args:
        properties: of the examples.
        worth: the metric of the validation examples ``(V,)`` and of the test examples ``(T,)``.
        users: the users of both.
    """
    sizes = [len(values) for values in worth]
    blocks = [np.ones((sum(sizes), 1)), np.repeat([0.0, 1.0], sizes)[:, None]]
    slices, width = [], 2
    for one in properties:
        block = _groups(np.concatenate([one.validation, one.test]))
        blocks.append(block)
        slices.append(slice(width, width + block.shape[1]))
        width += block.shape[1]
    return Design(np.hstack(blocks), slices, np.concatenate(worth), np.concatenate(users))


def decompose(inputs: Design, samples: int, confidence: float, seed: int) -> tuple[list[Interval], Interval]:
    """Each property's part of the gap (test minus validation) and the residue, with bootstrap intervals over users.

    Returns:
        An interval a property, in their order, and the residue's; their means add up to the gap.
    """
    whole = _parts(inputs, np.ones(len(inputs.worth)))
    generator = np.random.default_rng(seed)
    _, owner = np.unique(inputs.users, return_inverse=True)
    count = int(owner.max()) + 1
    drawn = np.empty((samples, len(whole)))
    for sample in range(samples):
        times = np.bincount(generator.integers(count, size=count), minlength=count)
        drawn[sample] = _parts(inputs, times[owner].astype(np.float64))
    found = [percentile_interval(float(part), drawn[:, place], confidence) for place, part in enumerate(whole)]
    return found[:-1], found[-1]


def _parts(inputs: Design, weights: Floats) -> Floats:
    """The properties' parts and, last, the residue for weighted examples."""
    columns, is_test = inputs.columns, inputs.columns[:, 1]
    weighted = columns * weights[:, None]
    gram = weighted.T @ columns
    gram += np.eye(len(gram)) * RIDGE * weights.sum()
    coefficients = np.linalg.solve(gram, weighted.T @ inputs.worth)
    on_test, on_validation = weights * is_test, weights * (1 - is_test)
    shift = on_test @ columns / on_test.sum() - on_validation @ columns / on_validation.sum()
    gap = on_test @ inputs.worth / on_test.sum() - on_validation @ inputs.worth / on_validation.sum()
    parts = [float(shift[place] @ coefficients[place]) for place in inputs.slices]
    return np.array([*parts, gap - sum(parts)])


def _groups(values: Floats) -> Floats:
    """``(N, G)`` 0 or 1: the quantile group of each value, the last column for NaN."""
    real = ~np.isnan(values)
    edges = np.unique(np.quantile(values[real], np.linspace(0, 1, GROUPS + 1)[1:-1])) if real.any() else np.zeros(0)
    group = np.where(real, np.searchsorted(edges, np.where(real, values, 0), side="right"), len(edges) + 1)
    columns = np.zeros((len(values), len(edges) + 2))
    columns[np.arange(len(values)), group] = 1
    return columns[:, columns.any(0)]

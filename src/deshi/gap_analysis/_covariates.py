"""Properties of examples that may differ between validation and test, measured on the training events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deshi.arrays import Floats, Ints
from deshi.data.bundle import Bundle
from deshi.data.ranges import inside
from deshi.data.splits import Examples


@dataclass(frozen=True)
class Covariate:
    """One property of every example, of both parts.

    Attributes:
        name: as shown.
        note: how it is measured.
        validation: ``(V,)`` values, NaN where it doesn't exist (an unseen target has no popularity).
        test: ``(T,)`` values.
    """

    name: str
    note: str
    validation: Floats
    test: Floats


@dataclass(frozen=True)
class TrainingItems:
    """The items' counts and first times among the events that were trained on.

    Attributes:
        bundle: the data.
        counts: ``(n_items,)`` training events of each item.
        first: ``(n_items,)`` time of its first training event in milliseconds, NaN without one or without times.
    """

    bundle: Bundle
    counts: Ints
    first: Floats

    @classmethod
    def of(cls, bundle: Bundle, starts: Ints, ends: Ints) -> TrainingItems:
        """Count the events ``[starts[u], ends[u])`` of every user."""
        rows = np.flatnonzero(inside(starts, ends, bundle.n_interactions))
        items = np.asarray(bundle.items)[rows]
        first = np.full(bundle.n_items, np.inf)
        if bundle.time_unit == "ms":
            np.minimum.at(first, items, np.asarray(bundle.timestamps)[rows].astype(np.float64))
        return cls(bundle, np.bincount(items, minlength=bundle.n_items), np.where(np.isinf(first), np.nan, first))


def covariates(trained: TrainingItems, validation: Examples, test: Examples) -> list[Covariate]:
    """All covariates that the data have; those that need times are left out where there are only positions.

    For an example with several targets, a property of the target is its mean over them.
    """
    properties = [
        ("target popularity", "training events of the target; an unseen target is a group of its own", _popularity),
        (
            "history length",
            "events before the target",
            lambda _, examples: (examples.ends - examples.starts).astype(np.float64),
        ),
    ]
    if trained.bundle.time_unit == "ms":
        properties += [
            ("target age", "time since the target's first training event", _age),
            ("time since the previous event", "between the history's last event and the target", _pause),
            ("time in the user's life", "between the user's first event and the target", _life),
        ]
    return [Covariate(name, note, value(trained, validation), value(trained, test)) for name, note, value in properties]


def unseen_share(trained: TrainingItems, examples: Examples) -> float:
    """The share of targets that have no training event."""
    return float((trained.counts[np.asarray(trained.bundle.items)[examples.target_rows]] == 0).mean())


def _popularity(trained: TrainingItems, examples: Examples) -> Floats:
    counts = trained.counts[np.asarray(trained.bundle.items)[examples.target_rows]].astype(np.float64)
    return _mean(np.where(counts > 0, counts, np.nan), examples)


def _age(trained: TrainingItems, examples: Examples) -> Floats:
    first = trained.first[np.asarray(trained.bundle.items)[examples.target_rows]]
    return _mean(trained.bundle.timestamps[examples.target_rows] - first, examples)


def _pause(trained: TrainingItems, examples: Examples) -> Floats:
    return _since(trained.bundle, examples, examples.ends - 1)


def _life(trained: TrainingItems, examples: Examples) -> Floats:
    return _since(trained.bundle, examples, examples.starts)


def _since(bundle: Bundle, examples: Examples, rows: Ints) -> Floats:
    """Milliseconds from the events ``rows`` ``(C,)`` to each example's targets."""
    passed = bundle.timestamps[examples.target_rows] - bundle.timestamps[rows[examples.owners]]
    return _mean(passed.astype(np.float64), examples)


def _mean(values: Floats, examples: Examples) -> Floats:
    """The mean of the targets' values ``(T,)`` in each example, without NaN; NaN if there is none."""
    owner = examples.owners
    real = ~np.isnan(values)
    sums = np.bincount(owner[real], weights=values[real], minlength=len(examples))
    sizes = np.bincount(owner[real], minlength=len(examples))
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), np.nan)

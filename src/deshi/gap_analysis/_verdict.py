"""The verdict on a gap, noise, drift or suspicious, with its reason in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deshi.arrays import Floats
from deshi.metrics import Interval, bootstrap_means, percentile_interval

Verdict = Literal["noise", "drift", "suspicious"]

PUBLISHED = "published models on ML-1M: test/validation 0.93 to 0.94"


@dataclass(frozen=True)
class Cliff:
    """A step of the ladder at which the metric falls by more than at any other, beyond chance.

    Attributes:
        before: the step above it, the last one that looks like training.
        after: the step below it.
        fall: how much the metric falls there.
        excess: by how much this is more than the next largest fall of the ladder, an interval over users.
    """

    before: str
    after: str
    fall: float
    excess: Interval


def find_cliff(ladder: Mapping[str, Floats], samples: int, confidence: float, seed: int) -> Cliff | None:
    """The ladder's cliff, if there is one: the end of the targets that the model has memorised.

    Args:
        ladder: the metric ``(C,)`` of the same users at one step after the other, oldest first.
        samples: of the bootstrap over users.
        confidence: of the interval.
        seed: of the resampling.
    """
    names = list(ladder)
    if len(names) < 3:
        return None
    values = np.stack([ladder[name] for name in names], axis=1)
    falls = (values[:, :-1] - values[:, 1:]).mean(0)
    largest = int(falls.argmax())
    # The excess over the second largest fall, resampled over users; which fall is second may change with the resample.
    means = bootstrap_means(values, samples, seed)
    resampled = means[:, :-1] - means[:, 1:]
    second = np.delete(resampled, largest, axis=1).max(1)
    estimate = float(falls[largest] - np.delete(falls, largest).max())
    excess = percentile_interval(estimate, resampled[:, largest] - second, confidence)
    if excess.low <= 0:
        return None
    return Cliff(names[largest], names[largest + 1], float(falls[largest]), excess)


def judge(
    difference: Interval,
    ratio: Interval,
    residue: Interval,
    explained: float,
    cliff: Cliff | None,
    leaked: Sequence[str],
) -> tuple[Verdict, str]:
    """The verdict and its sentence.

    Args:
        difference: test minus validation.
        ratio: test over validation.
        residue: the part of the difference that differing examples don't explain.
        explained: the sum of the properties' contributions.
        cliff: of the ladder.
        leaked: the parts whose targets were trained on, by the run's own record.
    """
    figures = f"test/validation is {ratio.mean:.2f} ({ratio.low:.2f} to {ratio.high:.2f}; {PUBLISHED})"
    if leaked:
        return "suspicious", f"Suspicious: the run trained on the {' and '.join(leaked)} targets; {figures}."
    if cliff is not None and cliff.after == "test":
        return "suspicious", (
            f"Suspicious: the metric falls by {cliff.fall:.4f} between validation and test, more than at any step "
            f"before it: the model predicts validation targets like training targets; {figures}. Run deshi audit."
        )
    if cliff is not None and cliff.after.startswith("train"):
        return "suspicious", (
            f"Suspicious: the metric falls by {cliff.fall:.4f} from {cliff.before} to {cliff.after}, inside the "
            f"training part: {cliff.after} was not trained on, the range stops short; {figures}. Run deshi audit."
        )
    if difference.low <= 0 <= difference.high:
        return "noise", f"Noise: the difference lies within what other users would give; {figures}."
    if difference.low > 0:
        return "drift", f"Drift in the test's favour: test is better than validation, not worse; {figures}."
    share = min(max(explained / difference.mean, 0.0), 1.0)
    remainder = (
        "the remainder goes with the distance to the training events"
        if residue.high < 0
        else "the remainder may be noise"
    )
    return "drift", (
        f"Drift: no sign of a leak; examples of another kind explain {share:.0%} of the difference, {remainder}; "
        f"{figures}."
    )

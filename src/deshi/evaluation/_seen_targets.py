"""Repeated consumption: targets that their user had before, and examples with few candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deshi.data.bundle import Bundle
from deshi.data.splits import PARTS, Examples, Split

MANY = 0.05
"""From this share of seen targets on, lists without seen items are doubted."""

FEW = 100
"""With fewer candidates an example is easy for any model."""


@dataclass(frozen=True)
class SeenTargets:
    """Targets of one part that are in the history of their example.

    Attributes:
        part: ``validation`` or ``test``.
        seen: their number.
        targets: of the part.
        filter_seen: whether seen items are left out of lists.
    """

    part: str
    seen: int
    targets: int
    filter_seen: bool

    @property
    def is_doubtful(self) -> bool:
        """Whether lists leave out so many targets that the setting should be another."""
        return self.filter_seen and self.seen > 0 and self.seen >= MANY * self.targets

    @property
    def sentence(self) -> str:
        """The count, its effect and, where it is doubtful, what to set; empty without a seen target."""
        if not self.seen:
            return ""
        share = f"{100 * self.seen / self.targets:.{0 if self.seen >= 0.01 * self.targets else 2}f} %"
        if self.is_doubtful:
            return (
                f"{share} of {self.part} targets ({self.seen:,} of {self.targets:,}) were consumed before by the same "
                "user; a list without seen items can't hold them, so they are misses: set eval.filter_seen=false in "
                "training and evaluation, so that seen items stay in figures and in served lists."
            )
        effect = "lists leave seen items out, so they are misses" if self.filter_seen else "seen items stay in lists"
        return (
            f"{self.seen:,} of {self.targets:,} {self.part} targets ({share}) were consumed before by the same user; "
            f"{effect}."
        )


def seen_targets(bundle: Bundle, split: Split, filter_seen: bool) -> list[SeenTargets]:
    """The seen targets of validation and test, where there are any."""
    counts = [
        SeenTargets(part, int(examples.seen_targets(bundle.items).sum()), len(examples.target_rows), filter_seen)
        for part in PARTS
        for examples in (split.examples(bundle, part),)
    ]
    return [count for count in counts if count.seen]


def few_candidates(bundle: Bundle, examples: Examples, filter_seen: bool) -> np.ndarray:
    """``(C,)`` bool, the examples with fewer than :data:`FEW` candidates in the whole catalogue."""
    if bundle.n_items < FEW:
        return np.ones(len(examples), dtype=bool)
    lengths = (examples.ends - examples.starts) * filter_seen
    few = np.zeros(len(examples), dtype=bool)
    for number in np.flatnonzero(bundle.n_items - lengths < FEW):  # only a history so long can leave so few
        history = bundle.items[examples.starts[number] : examples.starts[number] + lengths[number]]
        few[number] = bundle.n_items - len(np.unique(history)) < FEW
    return few

"""Who and what a part's figures are about: new users, cold items, targets that were seen, examples of few candidates.

A split by a global clock leaves new users and cold items behind; figures are about what remains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from deshi.arrays import Ints
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples, Split
from deshi.evaluation._seen_targets import FEW, SeenTargets, few_candidates


@dataclass(frozen=True)
class Population:
    """Counts of the events of one part of a split.

    Attributes:
        events: of the part.
        examples: made of them.
        targets: events that are targets of an example.
        cold_targets: targets whose item has no training event.
        new_users: users with events in the part and no history before it; they have no example.
        events_of_new_users: their events.
        seen_targets: targets that are in their example's history.
        few_candidates: examples that have fewer than 100 candidates in the whole catalogue.
    """

    events: int
    examples: int
    targets: int
    cold_targets: int
    new_users: int
    events_of_new_users: int
    seen_targets: int
    few_candidates: int

    def note(self, part: str) -> str | None:
        """A sentence about new users and cold targets; None if there are none."""
        clauses = []
        if self.new_users:
            clauses.append(
                f"{self.events_of_new_users:,} of {self.events:,} {part} events have no example, since their "
                f"{self.new_users:,} users have no history before the part"
            )
        if self.cold_targets:
            clauses.append(f"{self.cold_targets:,} of {self.targets:,} {part} targets are cold (no training event)")
        return f"{'; '.join(clauses)}." if clauses else None

    def plain(self) -> dict[str, int]:
        """The counts by name, for ``run.json``."""
        return asdict(self)


def population(
    bundle: Bundle, split: Split, part: str, examples: Examples, counts: Ints, filter_seen: bool
) -> Population:
    """Count the events, users and targets of one part.

    Args:
        bundle: the data.
        split: of it.
        part: ``validation`` or ``test``.
        examples: of the part.
        counts: ``(n_items,)`` events of each item among those trained on.
        filter_seen: whether items of the history are no candidates.
    """
    begins, ends = (split.train_end, split.valid_end) if part == "validation" else (split.valid_end, bundle.offsets[1:])
    sizes = ends - begins
    new = (begins == bundle.offsets[:-1]) & (sizes > 0)
    cold = counts[bundle.items[examples.target_rows]] == 0
    return Population(
        events=int(sizes.sum()),
        examples=len(examples),
        targets=len(cold),
        cold_targets=int(cold.sum()),
        new_users=int(new.sum()),
        events_of_new_users=int(sizes[new].sum()),
        seen_targets=int(examples.seen_targets(bundle.items).sum()),
        few_candidates=int(few_candidates(bundle, examples, filter_seen).sum()),
    )


def about_seen(populations: Mapping[str, Population], filter_seen: bool, n_items: int) -> tuple[list[str], list[str]]:
    """Warnings and notes about targets that were seen before and about examples with few candidates.

    Args:
        populations: by part, ranked among the whole catalogue.
        filter_seen: whether items of the history were no candidates.
        n_items: of the catalogue.
    """
    warnings: list[str] = []
    notes: list[str] = []
    for name, part in populations.items():
        seen = SeenTargets(name, part.seen_targets, part.targets, filter_seen)
        if seen.sentence:
            (warnings if seen.is_doubtful else notes).append(seen.sentence)
        if part.few_candidates and n_items >= FEW:
            notes.append(
                f"{part.few_candidates:,} of {part.examples:,} {name} examples have fewer than {FEW} candidates "
                "(n_candidates in ranks.parquet): they are easy for any model."
            )
    if n_items < FEW:
        notes.append(f"The catalogue has {n_items:,} items: among fewer than {FEW} candidates any model looks good.")
    return warnings, notes

"""Events of a part without an example, and targets without a training event: new users and cold items.

A split by a global clock leaves both behind; figures are about what remains.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from deshi.arrays import Ints
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples, Split


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
    """

    events: int
    examples: int
    targets: int
    cold_targets: int
    new_users: int
    events_of_new_users: int

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


def population(bundle: Bundle, split: Split, part: str, examples: Examples, counts: Ints) -> Population:
    """Count the events, users and targets of one part.

    Args:
        bundle: the data.
        split: of it.
        part: ``validation`` or ``test``.
        examples: of the part.
        counts: ``(n_items,)`` events of each item among those trained on.
    """
    begins, ends = (split.train_end, split.valid_end) if part == "validation" else (split.valid_end, bundle.offsets[1:])
    sizes = ends - begins
    new = (begins == bundle.offsets[:-1]) & (sizes > 0)
    cold = counts[bundle.items[examples.target_rows]] == 0
    return Population(
        int(sizes.sum()), len(examples), len(cold), int(cold.sum()), int(new.sum()), int(sizes[new].sum())
    )

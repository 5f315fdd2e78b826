"""Who is asked and who isn't: new users, cold items. A global clock leaves both behind, and figures must say so."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from deshi.arrays import Ints
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples, Split


@dataclass(frozen=True)
class Population:
    """The events of one part of a split, and what became of them.

    Attributes:
        events: of the part.
        examples: questions made of them.
        targets: events that are asked for.
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
        """A sentence about what isn't asked or can't be known; None if there is nothing to say."""
        said = []
        if self.new_users:
            said.append(
                f"{self.events_of_new_users:,} of {self.events:,} {part} events have no example, since their "
                f"{self.new_users:,} users have no history before the part"
            )
        if self.cold_targets:
            said.append(f"{self.cold_targets:,} of {self.targets:,} {part} targets are cold (no training event)")
        return f"{'; '.join(said)}." if said else None

    def plain(self) -> dict[str, int]:
        """The counts by name, for ``run.json``."""
        return asdict(self)


def population(bundle: Bundle, split: Split, part: str, examples: Examples, counts: Ints) -> Population:
    """Count one part.

    Args:
        bundle: the data.
        split: of it.
        part: ``validation`` or ``test``.
        examples: of the part.
        counts: ``(n_items,)`` events of each item among those trained on.
    """
    begins, stops = (
        (split.train_end, split.valid_end) if part == "validation" else (split.valid_end, bundle.offsets[1:])
    )
    sizes = stops - begins
    new = (begins == bundle.offsets[:-1]) & (sizes > 0)
    cold = counts[bundle.items[examples.target_rows]] == 0
    return Population(
        int(sizes.sum()), len(examples), len(cold), int(cold.sum()), int(new.sum()), int(sizes[new].sum())
    )

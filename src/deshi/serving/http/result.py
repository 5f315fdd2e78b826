"""Results of ``recommend`` and ``serve``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deshi.rendering import Block, Result, paragraphs


@dataclass(frozen=True)
class RecommendResult(Result):
    """Answered histories.

    Attributes:
        output: the file that was written.
        users: histories answered.
        rows: lines of it.
        events: of the histories.
        unknown_events: of them, those whose item the bundle doesn't know; they were left out.
        unknown_items: distinct items among these.
        popular_users: users without any known item, answered by popularity.
        short_users: users with fewer than ``k`` items, since no more were left.
        empty_users: of them, those without any item.
        seconds: that all of it took.
    """

    output: Path
    users: int
    rows: int
    events: int
    unknown_events: int
    unknown_items: int
    popular_users: int
    short_users: int
    empty_users: int
    seconds: float

    def blocks(self) -> Sequence[Block]:
        """The counts, and a warning about empty lists."""
        sentences = [f"{self.users:,} users answered in {self.seconds:.1f} s, {self.rows:,} rows."]
        if self.unknown_events:
            sentences.append(
                f"{self.unknown_events:,} of {self.events:,} events were left out: the bundle doesn't know their "
                f"{self.unknown_items:,} items."
            )
        if self.popular_users:
            sentences.append(f"{self.popular_users:,} users have no known item and got the most popular ones.")
        if self.short_users:
            sentences.append(
                f"{self.short_users:,} users got fewer items than asked for: no more are allowed or unseen."
            )
        warnings = []
        if self.empty_users:
            empty = f"{self.empty_users:,} of {self.users:,} users got no item at all"
            warnings.append(f"{empty}. Lists hold seen items too with filter_seen=false.")
        return [*paragraphs(*warnings, tone="warning"), *paragraphs(*sentences, f"Written to {self.output}")]


@dataclass(frozen=True)
class ServeResult(Result):
    """A service that has stopped.

    Attributes:
        bundle: name of the bundle that answered last.
        version: of that bundle.
        seconds: that it was up.
    """

    bundle: str
    version: str
    seconds: float

    def blocks(self) -> Sequence[Block]:
        """One line."""
        return paragraphs(f"Served {self.bundle}, version {self.version}, for {self.seconds:.0f} s; stopped.")

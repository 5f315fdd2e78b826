"""Results of ``recommend`` and ``serve``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deshi.data.raw import BadRowReport
from deshi.rendering import Block, Result, paragraphs, percent


@dataclass(frozen=True)
class ItemCounts:
    """A file of item ids: their number, and how many of them the bundle doesn't know."""

    ids: int
    unknown: int


@dataclass(frozen=True)
class RecommendResult(Result):
    """Answered histories.

    Attributes:
        output: the file that was written, or the address of the object.
        users: histories answered.
        rows: lines of it.
        input_rows: rows of the input, malformed ones included.
        bad_rows: the malformed ones, which were left out.
        events: of the histories.
        unknown_events: of them, those whose item the bundle doesn't know; they were left out.
        unknown_items: distinct items among these.
        unknown_examples: a few of them.
        allowed: the file of allowed items, if there was one.
        excluded: the file of excluded items, if there was one.
        popular_users: users without any known item, answered by popularity.
        short_users: users with fewer than ``k`` items, since no more were left.
        empty_users: of them, those without any item.
        seconds: that all of it took.
    """

    output: Path | str
    users: int
    rows: int
    input_rows: int
    bad_rows: BadRowReport
    events: int
    unknown_events: int
    unknown_items: int
    unknown_examples: Sequence[str]
    allowed: ItemCounts | None
    excluded: ItemCounts | None
    popular_users: int
    short_users: int
    empty_users: int
    seconds: float

    def blocks(self) -> Sequence[Block]:
        """The counts, and a warning about empty lists."""
        sentences = [
            f"{self.input_rows:,} rows read: {self.events:,} events of {self.users:,} users, "
            f"{self.bad_rows.skipped:,} malformed rows skipped.",
            f"Unknown: {_share(self.unknown_events, self.events)} events were left out"
            + (f" ({self.unknown_items:,} items such as {self.unknown_examples[0]!r})." if self.unknown_items else "."),
            f"{_share(self.popular_users, self.users)} users have no known item and got the most popular ones.",
        ]
        for name, items in (("allowed", self.allowed), ("excluded", self.excluded)):
            if items is not None:
                sentences.append(f"{_share(items.unknown, items.ids)} {name} items are unknown.")
        if self.short_users:
            sentences.append(
                f"{self.short_users:,} users got fewer items than asked for: no more are allowed or unseen."
            )
        sentences.append(f"{self.users:,} users answered in {self.seconds:.1f} s, {self.rows:,} rows.")
        warnings = [f"Malformed row in {example}" for example in self.bad_rows.examples]
        if self.empty_users:
            empty = f"{self.empty_users:,} of {self.users:,} users got no item at all"
            warnings.append(f"{empty}. Lists hold seen items too with filter_seen=false.")
        return [*paragraphs(*warnings, tone="warning"), *paragraphs(*sentences, f"Written to {self.output}")]


def _share(count: int, total: int) -> str:
    """``3 of 12 (25.0 %)``."""
    return f"{count:,} of {total:,} ({percent(count / total)})" if total else "0 of 0"


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

"""What several models recommend after one history, side by side, and why their lists differ."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from deshi.serving.engine import Engine, RequestError

DEPTH = 1000
"""The truth's place is looked for in so long a list."""

TIMED = 3
"""Answers of which the median time is shown: the first one after a pause is slower."""


@dataclass(frozen=True)
class Listed:
    """A model's list for the page.

    Attributes:
        label: the model's.
        items: ids, best first.
        milliseconds: for one answer; None for a list that lies in a file.
        rank: the truth's place from 1, or None if it isn't among the first ``depth`` or there is no truth.
        depth: how far it was looked for.
        note: what is to be said about the list, or nothing.
    """

    label: str
    items: list[str]
    milliseconds: float | None
    rank: int | None
    depth: int
    note: str = ""


def ask(label: str, engine: Engine, history: Sequence[str], k: int, truth: str | None) -> Listed:
    """An engine's list, the time of an answer and the place of the truth."""
    times = []
    for _ in range(TIMED):
        begin = time.perf_counter()
        answer = engine.recommend(history, k)
        times.append(time.perf_counter() - begin)
    items = [item.item_id for item in answer.items]
    depth = min(DEPTH, engine.n_items)
    deep = items if truth is None else [item.item_id for item in engine.recommend(history, depth).items]
    note = "No known item in the history: this is what is popular." if answer.fallback else ""
    return Listed(label, items, round(median(times) * 1000, 3), place(truth, deep), depth, note)


def place(truth: str | None, items: Sequence[str]) -> int | None:
    """The truth's place in a list, from 1; None if it isn't there."""
    return items.index(truth) + 1 if truth is not None and truth in items else None


def compared(catalogue: Engine, lists: Sequence[Listed], truth: str | None) -> dict[str, Any]:
    """The page's answer.

    Args:
        catalogue: knows titles and training events.
        lists: of all models.
        truth: the item id that came next, or None if nobody knows.
    """
    return {
        "truth": None if truth is None else shown(catalogue, truth),
        "models": [
            {
                "label": one.label,
                "items": [shown(catalogue, item) for item in one.items],
                "milliseconds": one.milliseconds,
                "rank": one.rank,
                "depth": one.depth,
                "note": one.note,
                "events": median([shown(catalogue, item)["events"] for item in one.items] or [0]),
                "shared": {other.label: len({*one.items} & {*other.items}) for other in lists},
            }
            for one in lists
        ],
        "reasons": reasons(catalogue, lists, truth),
    }


def shown(catalogue: Engine, item_id: str) -> dict[str, Any]:
    """An item with its title and its training events; one that the catalogue doesn't know has none."""
    try:
        found = catalogue.item(item_id)
    except RequestError:
        return {"item_id": item_id, "title": None, "events": 0}
    return {"item_id": item_id, "title": found.title, "events": int(found.score)}


def reasons(catalogue: Engine, lists: Sequence[Listed], truth: str | None) -> list[str]:
    """Sentences about overlap, popularity and the truth."""
    filled = [one for one in lists if one.items]
    said = []
    for number, one in enumerate(filled):
        for other in filled[number + 1 :]:
            both = len({*one.items} & {*other.items})
            said.append(f"{one.label} and {other.label} share {both} of {min(len(one.items), len(other.items))} items.")
    if len(filled) > 1:
        events = {one.label: median([shown(catalogue, item)["events"] for item in one.items]) for one in filled}
        most, least = max(events, key=events.__getitem__), min(events, key=events.__getitem__)
        if events[most] > events[least]:
            said.append(
                f"{most} recommends the most popular items (median {events[most]:,.0f} training events), {least} the "
                f"least popular ones ({events[least]:,.0f})."
            )
    if truth is not None and filled:
        found = [one for one in filled if one.rank is not None]
        best = min(found, key=lambda one: one.rank or 0, default=None)
        said.append(
            "No model has what came next in its list."
            if best is None
            else f"What came next stands highest in the list of {best.label}: place {best.rank:,}."
        )
    return said

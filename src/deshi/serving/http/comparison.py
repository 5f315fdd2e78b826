"""The lists of several models after one history, side by side, with the differences in words."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

from deshi.serving.engine import Engine, RequestError

DEPTH = 1000
"""Length of the list in which the rank of the true next item is looked for."""

TIMED = 3
"""Answers whose median time is shown: the first one after a pause is slower."""


@dataclass(frozen=True)
class ModelList:
    """A model's list for the page.

    Attributes:
        label: the model's.
        items: ids, best first.
        milliseconds: for one answer; None for a list that lies in a file.
        rank: the true next item's rank from 1; None if it isn't among the first ``depth``, or isn't known.
        depth: length of the list in which it was looked for.
        note: a sentence about the list, or nothing.
    """

    label: str
    items: list[str]
    milliseconds: float | None
    rank: int | None
    depth: int
    note: str = ""


def label_of(engine: Engine, engines: Mapping[str, Engine]) -> str:
    """A model's label: its name, with its version where one of ``engines`` has the same name."""
    name = engine.bundle.name
    return f"{name} ({engine.bundle.version})" if name in engines else name


def list_of_engine(label: str, engine: Engine, history: Sequence[str], k: int, truth: str | None) -> ModelList:
    """An engine's list, the time of an answer and the rank of the true next item."""
    times = []
    for _ in range(TIMED):
        begin = time.perf_counter()
        answer = engine.recommend(history, k)
        times.append(time.perf_counter() - begin)
    items = [item.item_id for item in answer.items]
    depth = min(DEPTH, engine.n_items)
    deep = items if truth is None else [item.item_id for item in engine.recommend(history, depth).items]
    note = "No known item in the history: this is what is popular." if answer.fallback else ""
    return ModelList(label, items, round(median(times) * 1000, 3), rank_of(truth, deep), depth, note)


def rank_of(truth: str | None, items: Sequence[str]) -> int | None:
    """The rank of the true next item in a list, from 1; None if it isn't there."""
    return items.index(truth) + 1 if truth is not None and truth in items else None


def compared(catalogue: Engine, lists: Sequence[ModelList], truth: str | None) -> dict[str, Any]:
    """The page's answer.

    Args:
        catalogue: knows titles and training events.
        lists: of all models.
        truth: the item id that came next, or None if it isn't known.
    """
    return {
        "truth": None if truth is None else shown(catalogue, truth),
        "models": [
            {
                "label": model.label,
                "items": [shown(catalogue, item) for item in model.items],
                "milliseconds": model.milliseconds,
                "rank": model.rank,
                "depth": model.depth,
                "note": model.note,
                "events": _median_events(catalogue, model),
                "shared": {other.label: len({*model.items} & {*other.items}) for other in lists},
            }
            for model in lists
        ],
        "reasons": reasons(catalogue, lists, truth),
    }


def shown(catalogue: Engine, item_id: str) -> dict[str, Any]:
    """An item with its title and its training events; one that the catalogue doesn't know has none."""
    try:
        item = catalogue.item(item_id)
    except RequestError:
        return {"item_id": item_id, "title": None, "events": 0}
    return {"item_id": item_id, "title": item.title, "events": int(item.score)}


def reasons(catalogue: Engine, lists: Sequence[ModelList], truth: str | None) -> list[str]:
    """Sentences about overlap, popularity and the true next item."""
    filled = [model for model in lists if model.items]
    sentences = []
    for first, second in combinations(filled, 2):
        shared, size = len({*first.items} & {*second.items}), min(len(first.items), len(second.items))
        sentences.append(f"{first.label} and {second.label} share {shared} of {size} items.")
    if len(filled) > 1:
        events = {model.label: _median_events(catalogue, model) for model in filled}
        most, least = max(events, key=events.__getitem__), min(events, key=events.__getitem__)
        if events[most] > events[least]:
            sentences.append(
                f"{most} recommends the most popular items (median {events[most]:,.0f} training events), {least} the "
                f"least popular ones ({events[least]:,.0f})."
            )
    if truth is not None and filled:
        ranked = [(model.rank, model.label) for model in filled if model.rank is not None]
        rank, label = min(ranked, key=lambda pair: pair[0], default=(0, ""))
        sentences.append(
            f"What came next stands highest in the list of {label}: place {rank:,}."
            if ranked
            else "No model has what came next in its list."
        )
    return sentences


def _median_events(catalogue: Engine, model: ModelList) -> float:
    return median([shown(catalogue, item)["events"] for item in model.items] or [0])

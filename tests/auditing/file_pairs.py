"""Synthetic pairs of files: users who follow a planted order of items, and rankers that know it, guess or count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from deshi.auditing._pair import PairAudit, audit_pair


@dataclass(frozen=True, eq=False)
class PairFrames:
    """The contents of the files, before they are written.

    Attributes:
        events: user_id, item_id, timestamp; a user's events one after the other.
        lists: user_id, item_id, score; best first, the users one after the other.
        test: targets, or None.
        train: training events, or None.
        options: further arguments of ``audit_pair``.
    """

    events: pl.DataFrame
    lists: pl.DataFrame
    test: pl.DataFrame | None = None
    train: pl.DataFrame | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def but(self, **changes: Any) -> PairFrames:
        """The same with other contents."""
        return replace(self, **changes)

    def options_and(self, **more: object) -> PairFrames:
        """The same with further arguments of ``audit_pair``."""
        return replace(self, options=(*self.options, *more.items()))


@dataclass(frozen=True, eq=False)
class World:
    """Users, items and the order that is planted in them.

    Attributes:
        histories: ``(users, length)`` item indices; no user has an item twice.
        after: ``(items,)`` the item that likely follows each item.
        weights: ``(items,)`` how popular the items are.
        item_ids: of the items.
        user_ids: of the users.
    """

    histories: np.ndarray
    after: np.ndarray
    weights: np.ndarray
    item_ids: np.ndarray
    user_ids: np.ndarray


def make_world(seed: int = 0, users: int = 300, items: int = 400, length: int = 12) -> World:
    """Draw users who take the planted next item half of the time, else a popular one."""
    random = np.random.default_rng(seed)
    weights = 1 / (10 + random.permutation(items))
    after = random.permutation(items)
    draws = np.log(weights) + random.gumbel(size=(users, items))
    order = np.argsort(-draws, axis=1)
    histories = np.zeros((users, length), dtype=int)
    for user in range(users):
        taken: set[int] = set()
        fresh = iter(order[user])
        item = int(next(fresh))
        for position in range(length):
            histories[user, position] = item
            taken.add(item)
            follower = int(after[item])
            if follower in taken or random.random() < 0.5:
                follower = next(int(fallback) for fallback in fresh if int(fallback) not in taken)
            item = follower
    # Ids that are no indices: numbers from 1001 in an order that says nothing about popularity or order of appearance.
    return World(histories, after, weights, 1001 + np.arange(items), 1 + np.arange(users))


Scorer = Callable[[World, np.random.Generator], np.ndarray]


def good(world: World, random: np.random.Generator, at: int = 1) -> np.ndarray:
    """Scores ``(users, items)`` of one who knows what follows the event before the last ``at``."""
    scores = np.log(world.weights) + random.normal(0, 0.8, size=(len(world.histories), len(world.after)))
    last = world.histories[:, -1 - at]
    scores[np.arange(len(scores)), world.after[last]] += 4
    return scores


def popular(world: World, random: np.random.Generator) -> np.ndarray:
    """How often the items are in the histories before the target."""
    counts = np.bincount(world.histories[:, :-1].ravel(), minlength=len(world.after))
    return np.tile(counts + random.random(len(counts)) * 0.5, (len(world.histories), 1))


def frames_of(world: World, scores: np.ndarray, top: int | None = 50, seen_from_end: int | None = 1) -> PairFrames:
    """The contents of the files for a ranker with these scores.

    Args:
        world: users and items.
        scores: ``(users, items)``.
        top: length of the lists; None is all items.
        seen_from_end: items up to this position from the end are left out; None leaves out nothing.
    """
    users, length = world.histories.shape
    masked = scores.copy()
    if seen_from_end is not None:
        seen = world.histories[:, : length - seen_from_end]
        np.put_along_axis(masked, seen, -np.inf, axis=1)
    order = np.argsort(-masked, axis=1)[:, :top]
    values = np.take_along_axis(masked, order, axis=1)
    rows, columns = np.nonzero(np.isfinite(values))
    lists = pl.DataFrame(
        {
            "user_id": world.user_ids[rows],
            "item_id": world.item_ids[order[rows, columns]],
            "score": values[rows, columns],
        }
    )
    return PairFrames(events_of(world), lists)


def events_of(world: World) -> pl.DataFrame:
    """The interactions with timestamps in seconds, an hour apart."""
    users, length = world.histories.shape
    times = 1_600_000_000 + 3600 * np.arange(length)[None, :] + 7 * np.arange(users)[:, None]
    return pl.DataFrame(
        {
            "user_id": np.repeat(world.user_ids, length),
            "item_id": world.item_ids[world.histories.ravel()],
            "timestamp": times.ravel(),
        }
    )


def good_pair(seed: int = 0, top: int | None = 50, seen_from_end: int | None = 1, **size: int) -> PairFrames:
    """A clean pair of the ranker that knows the planted order."""
    world = make_world(seed, **size)
    return frames_of(world, good(world, np.random.default_rng(seed + 1)), top, seen_from_end)


def with_rank(frames: PairFrames, keep_score: bool = False) -> PairFrames:
    """The same with ranks from 1 in the place of (or beside) the scores."""
    lists = frames.lists.with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id"))
    return frames.but(lists=lists if keep_score else lists.drop("score"))


def audit(folder: Path, frames: PairFrames, ending: str = "csv") -> PairAudit:
    """Write the files and audit them."""
    paths: dict[str, Any] = {}
    for name, frame in {
        "interactions": frames.events, "predictions": frames.lists, "test": frames.test, "train": frames.train
    }.items():  # fmt: skip
        if frame is not None:
            paths[name] = folder / f"{name}.{ending}"
            frame.write_csv(paths[name]) if ending == "csv" else frame.write_parquet(paths[name])
    return audit_pair(**paths, **dict(frames.options))


def names_of(result: PairAudit, *severities: str) -> set[str]:
    """The names of the findings of these severities (all if none is given)."""
    return {problem.name for problem in result.findings if not severities or problem.severity in severities}

"""A bundle and a teacher's lists for the tests of foreign formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from deshi.data.bundle import Bundle
from tiny_bundles import random_sequences, tiny_bundle

ITEMS, USERS, K = 40, 30, 5


@dataclass(frozen=True)
class Taught:
    """A bundle, rows with a next event, and lists on them in which the true next item is often first."""

    bundle: Bundle
    rows: np.ndarray
    items: np.ndarray
    scores: np.ndarray


def taught(folder: Path, titles: Sequence[str | None] | None = None, seed: int = 0) -> Taught:
    """Random histories of 4 to 16 items; lists of ``K`` items with falling scores."""
    names = list(titles) if titles else [f"Title {item}" for item in range(ITEMS)]
    table = pl.DataFrame({"item_id": [f"i{item}" for item in range(ITEMS)], "title": names})
    bundle = tiny_bundle(folder, random_sequences(USERS, ITEMS, 4, 16, seed), n_items=ITEMS, items=table)
    random = np.random.default_rng(seed)
    rows = np.setdiff1d(np.arange(bundle.n_interactions), bundle.offsets[1:] - 1)
    items = np.stack([random.choice(ITEMS, K, replace=False) for _ in rows])
    for place, following in enumerate(np.asarray(bundle.items)[rows + 1]):
        if place % 3 and following not in items[place]:
            items[place, 0] = following
    scores = -np.sort(random.random((len(rows), K)).astype(np.float32), axis=1)
    return Taught(bundle, rows, items, scores)


def distances(data: Taught, seed: int = 0) -> np.ndarray:
    """``(M, N)``: from what was generated to each item; small for the true next item, popular items smaller."""
    random = np.random.default_rng(seed)
    matrix = random.random((len(data.rows), ITEMS)) + np.linspace(0, 1.5, ITEMS)
    matrix[np.arange(len(data.rows)), np.asarray(data.bundle.items)[data.rows + 1]] *= 0.1
    return matrix

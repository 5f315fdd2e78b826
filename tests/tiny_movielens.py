"""A tiny data set in the original format of MovieLens 100K."""

from __future__ import annotations

from pathlib import Path

import numpy as np

USERS, ITEMS, LENGTH = 60, 40, 14

SMALL = (
    "student.dim=16",
    "student.max_length=10",
    "train.max_epochs=2",
    "train.progress=false",
    "train.threads=1",
    "train.precision=fp32",
)
"""A student that trains in a second."""


def write_tiny_movielens(folder: Path) -> Path:
    """Write ``u.data`` and ``u.item``: users who walk through the items, each at a pace of their own."""
    random = np.random.default_rng(0)
    rows = []
    for user in range(1, USERS + 1):
        start, pace = int(random.integers(ITEMS)), int(random.integers(1, 4))
        for step in range(LENGTH):
            item = (start + pace * step) % ITEMS + 1
            rows.append((user, item, int(random.integers(1, 6)), 880_000_000 + 1000 * step + user))
    order = random.permutation(len(rows))
    lines = ["\t".join(str(field) for field in rows[place]) for place in order]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "u.data").write_text("\n".join(lines) + "\n", encoding="latin-1")
    genres = "|".join(["0"] * 18 + ["1"])
    titles = [
        f"{item}|Film {item} (1990)|01-Jan-1990||http://example.org/{item}|{genres}" for item in range(1, ITEMS + 1)
    ]
    (folder / "u.item").write_text("\n".join(titles) + "\n", encoding="latin-1")
    return folder

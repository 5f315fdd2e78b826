"""Tiny bundles for tests, with predictable indices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch

from deshi.data.bundle import Bundle, write_bundle
from deshi.data.vocabulary import Events
from deshi.types import PAD, Batch


def tiny_bundle(
    tmp_path: Path,
    sequences: Sequence[Sequence[int]] | Sequence[Sequence[str]],
    timestamps: Sequence[Sequence[int]] | None = None,
    n_items: int | None = None,
    name: str = "tiny",
    time_unit: str = "ms",
    items: pl.DataFrame | None = None,
) -> Bundle:
    """A bundle at ``tmp_path / name`` with one user (``u0``, ``u1``, ...) per sequence.

    Integers are the item indices themselves (ids ``i0``, ``i1``, ...; ``n_items`` may exceed the largest). Strings are
    item ids and are numbered in sorted order. Without ``timestamps``, a user's events are 1000 ms apart.
    """
    flat = [int(item) for sequence in sequences for item in sequence if not isinstance(item, str)]
    names = [item for sequence in sequences for item in sequence if isinstance(item, str)]
    if not flat:
        item_ids = sorted(set(names))
        flat = [item_ids.index(name) for name in names]
    else:
        item_ids = [f"i{index}" for index in range(n_items or max(flat) + 1)]
    users = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
    times = timestamps or [[1000 * place for place in range(len(sequence))] for sequence in sequences]
    frame = pl.DataFrame(
        {"user": users, "item": flat, "timestamp": [moment for row in times for moment in row]},
        schema={"user": pl.Int32, "item": pl.Int32, "timestamp": pl.Int64},
    )
    user_ids = pl.Series([f"u{user}" for user in range(len(sequences))])
    return write_bundle(
        tmp_path / name, name, Events(user_ids, pl.Series(item_ids), frame), items=items, time_unit=time_unit
    )


def random_sequences(n_users: int, n_items: int, shortest: int, longest: int, seed: int = 0) -> list[list[int]]:
    """Random histories of item indices without repeats inside a user; the same seed gives the same histories."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(shortest, longest + 1, n_users)
    return [generator.choice(n_items, length, replace=False).tolist() for length in lengths]


def ring_bundle(folder: Path, n_users: int, n_items: int = 30) -> Bundle:
    """A bundle at ``folder / data / tiny`` of users who walk around a ring: an item is followed by its neighbour."""
    draw = np.random.default_rng(0)
    starts = draw.integers(0, n_items, n_users)
    walks = [[int((start + k) % n_items) for k in range(draw.integers(4, 20))] for start in starts]
    return tiny_bundle(folder / "data", walks, n_items=n_items)


def batch_of(*rows: list[int], users: list[int] | None = None) -> Batch:
    """Histories of item indices as a batch, of users 0, 1, ... or of those that are given."""
    width = max(len(row) for row in rows)
    items = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    nothing = torch.full_like(items, PAD)
    numbers = torch.arange(len(rows)) if users is None else torch.tensor(users)
    return Batch(numbers, items, torch.tensor([len(row) for row in rows]), nothing, nothing)

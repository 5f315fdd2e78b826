"""Small teachers, data and stores for the tests of the soft-label store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deshi.data.bundle import Bundle
from deshi.models.item_table import ItemEmbedding
from deshi.models.sasrec import SASRec
from deshi.models.scorers import Scorer, SequentialScorer
from deshi.types import PAD, Batch
from tiny_bundles import random_sequences, tiny_bundle

META = {"name": "tester", "run": "none"}


class Hashed(Scorer):
    """A scorer whose scores depend on the whole history and have no ties; asked history by history only.

    Attributes:
        asked: rows (of the last event) in the order in which they were asked.
    """

    def __init__(self, n_items: int, levels: int = 0) -> None:
        self.n_items, self.levels = n_items, levels
        self.asked: list[int] = []

    def of(self, history: Sequence[int]) -> np.ndarray:
        """``(n_items,)`` the scores after one history; with ``levels`` many of them tie."""
        generator = np.random.default_rng([1 + item for item in history])
        if self.levels:
            return generator.integers(0, self.levels, self.n_items).astype(np.float32)
        return generator.normal(size=self.n_items).astype(np.float32)

    def scores(self, batch: Batch) -> Tensor:
        lengths = batch.lengths.tolist()
        self.asked += batch.rows[torch.arange(len(lengths)), batch.lengths - 1].tolist()
        rows = [self.of(items[:length]) for items, length in zip(batch.items.tolist(), lengths, strict=True)]
        return torch.from_numpy(np.stack(rows))


def sasrec(n_items: int, max_length: int, seed: int = 0) -> SequentialScorer:
    """An untrained SASRec with weights large enough to tell histories apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = SASRec(n_items, 8, max_length, blocks=1, heads=1, dropout=0.0)
        assert isinstance(student.items, ItemEmbedding)
        with torch.no_grad():
            student.items.weight[1:] *= 20
    return SequentialScorer(student)


def shop(folder: Path, users: int = 12, items: int = 30, longest: int = 14, seed: int = 0) -> Bundle:
    """Random histories of 1 to ``longest`` events without repeats."""
    return tiny_bundle(folder, random_sequences(users, items, 1, longest, seed), n_items=items)


def expected_list(
    scores: np.ndarray, history: Sequence[int], k: int, filter_seen: bool
) -> tuple[list[int], list[float]]:
    """One ranked list in plain Python: the reference that the writer is held against."""
    seen = set(history) if filter_seen else set()
    order = sorted((item for item in range(len(scores)) if item not in seen), key=lambda item: (-scores[item], item))
    best = order[:k]
    padding = k - len(best)
    return best + [PAD] * padding, [float(scores[item]) for item in best] + [0.0] * padding

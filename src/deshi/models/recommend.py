"""The best items after histories in memory, as a frame, by the rules of the exported engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from deshi.arrays import Ints
from deshi.data.example_batches import padded_rows
from deshi.data.histories import Histories
from deshi.data.sequences import history_batches
from deshi.metrics import best_items, best_items_of_blocks
from deshi.models.scorers import Scorer
from deshi.types import ITEM, PAD, TITLE, USER, DeshiError

BATCH = 128
"""Histories that are scored together."""

SCHEMA = pl.Schema({USER: pl.String, ITEM: pl.String, "score": pl.Float32, "rank": pl.Int32, TITLE: pl.String})


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The items that are recommended.

    Attributes:
        items: ``item_id`` and ``title`` (or null), in index order.
        counts: ``(n_items,)`` training events; histories without a known item are answered by them.
    """

    items: pl.DataFrame
    counts: Ints


def recommend(
    scorer: Scorer, catalogue: Catalogue, histories: Histories, k: int = 10, filter_seen: bool = True
) -> pl.DataFrame:
    """The ``k`` items that are most likely to come next after each history.

    Args:
        scorer: of the catalogue's items.
        catalogue: the items.
        histories: to be continued.
        k: length of a list.
        filter_seen: whether the items of a history are left out.

    Returns:
        ``user_id``, ``item_id``, ``score``, ``rank`` (1 is best) and ``title``, in the order of the histories; equal
        scores by the items' index; scores of a history without a known item are training events.

    Raises:
        DeshiError: for a ``k`` below 1.
    """
    if k < 1:
        raise DeshiError(f"k is {k}, expected at least 1.")
    k = min(k, catalogue.items.height)
    items = np.full((len(histories), k), PAD, dtype=np.int64)
    scores = np.zeros((len(histories), k), dtype=np.float32)
    lengths = np.diff(histories.offsets)
    popular = torch.from_numpy(catalogue.counts.astype(np.float32))[None]
    items[lengths == 0], scores[lengths == 0] = (part.numpy() for part in best_items(popular, None, k))
    rows = np.flatnonzero(lengths)
    starts, ends = histories.offsets[rows], histories.offsets[rows + 1]
    for members, batch in history_batches(histories.items, rows, starts, ends, max(lengths.max(initial=1), 1), BATCH):
        seen: Tensor | None = None
        if filter_seen:
            seen = torch.from_numpy(padded_rows(histories.items, starts[members], ends[members]))
        blocks = scorer.score_blocks(batch)
        if blocks is None:
            best, values = best_items(scorer.scores(batch).float().cpu(), seen, k)
        else:
            seen = None if seen is None else seen.to(blocks.device)
            best, values = (part.cpu() for part in best_items_of_blocks(blocks, seen, k))
        items[rows[members]], scores[rows[members]] = best.numpy(), values.numpy()
    return _frame(items, scores, catalogue, histories)


def _frame(items: Ints, scores: np.ndarray, catalogue: Catalogue, histories: Histories) -> pl.DataFrame:
    row, rank = (items != PAD).nonzero()
    table = catalogue.items
    columns = {
        USER: histories.users.gather(row),
        ITEM: table[ITEM].gather(items[row, rank]),
        "score": scores[row, rank],
        "rank": (rank + 1).astype(np.int32),
        TITLE: table[TITLE].cast(pl.String).gather(items[row, rank]),
    }
    return pl.DataFrame(columns, schema=SCHEMA)

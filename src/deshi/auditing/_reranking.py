"""Ranks computed again from a scorer, by the mean rank of ties and by the rule that favours the target."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor

from deshi.data.bundle import Bundle
from deshi.data.example_batches import ExampleBatches
from deshi.data.splits import Examples
from deshi.evaluation import RankCollector
from deshi.models.scorers import Scorer
from deshi.types import PAD


def recompute(
    scorer: Scorer, bundle: Bundle, examples: Examples, filter_seen: bool = True, batch_size: int = 512
) -> pl.DataFrame:
    """A row a target: ``example``, ``user``, ``target``, ``rank``, ``optimistic`` and ``n_candidates``.

    ``rank`` is the mean rank of ties, ``optimistic`` is ``1 + (candidates that score higher)``. An example with a NaN
    score has NaN ranks.

    Args:
        scorer: what is evaluated.
        bundle: the data.
        examples: of one part of a split.
        filter_seen: take the items of the history out of the candidates.
        batch_size: examples scored at a time.
    """
    collector, undefined = RankCollector(), np.zeros(len(examples), dtype=bool)
    for batch in ExampleBatches(bundle, examples, bundle.n_interactions, batch_size, filter_seen):
        scores = scorer.scores(batch.histories)
        undefined[batch.numbers.numpy()] = scores.isnan().any(1).numpy()
        scores = torch.where(scores.isnan(), 0.0, scores)
        collector.add(batch, [scores, _nudged(scores, batch.targets)])
    collected, owners = collector.collected(), examples.owners
    fair, optimistic = np.where(undefined[owners], np.nan, collected.ranks.numpy())
    return pl.DataFrame(
        {
            "example": owners,
            "user": examples.users[owners],
            "target": np.asarray(bundle.items)[examples.target_rows].astype(np.int64),
            "rank": fair,
            "optimistic": optimistic,
            "n_candidates": collected.n_candidates.numpy()[owners],
        }
    )


def _nudged(scores: Tensor, targets: Tensor) -> Tensor:
    """The scores with every target's raised by the least possible step, so that it wins its ties."""
    nudged = scores.clone()
    row, column = (targets != PAD).nonzero(as_tuple=True)
    items = targets[row, column]
    nudged[row, items] = torch.nextafter(scores[row, items], torch.tensor(torch.inf, dtype=scores.dtype))
    return nudged

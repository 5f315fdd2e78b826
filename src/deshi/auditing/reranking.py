"""Ranks computed again from a scorer, by the mean rank of ties and by the rule that favours the target."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor

from deshi.data.bundle import Bundle
from deshi.data.datamodule import padded_rows
from deshi.data.sequences import history_batches
from deshi.data.splits import Examples
from deshi.metrics.ranks import rank_rows
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
        examples: the questions.
        filter_seen: take the items of the history out of the candidates, never the targets.
        batch_size: examples scored at a time.
    """
    n_targets = len(examples.target_rows)
    ranks, best = np.full(n_targets, np.nan), np.full(n_targets, np.nan)
    candidates = np.zeros(len(examples), dtype=np.int64)
    offsets, wanted = examples.target_offsets, np.asarray(bundle.items)[examples.target_rows]
    for numbers, batch in history_batches(
        bundle.items, examples.users, examples.starts, examples.ends, bundle.n_interactions, batch_size
    ):
        scores = scorer.scores(batch)
        lost = scores.isnan().any(1)
        scores = torch.where(scores.isnan(), 0.0, scores)
        targets = torch.from_numpy(padded_rows(wanted, offsets[numbers], offsets[numbers + 1]))
        places = padded_rows(np.arange(n_targets), offsets[numbers], offsets[numbers + 1])
        seen = batch.items if filter_seen else None
        fair, counts, _ = rank_rows(scores, targets, seen)
        lucky, _, _ = rank_rows(_nudged(scores, targets), targets, seen)
        for values, found in ((ranks, fair), (best, lucky)):
            found[lost] = torch.nan
            values[places[places != PAD]] = found.numpy()[places != PAD]
        candidates[numbers] = counts.numpy()
    example = examples.owners
    return pl.DataFrame(
        {"example": example, "user": examples.users[example], "target": wanted.astype(np.int64), "rank": ranks,
         "optimistic": best, "n_candidates": candidates[example]}
    )  # fmt: skip


def _nudged(scores: Tensor, targets: Tensor) -> Tensor:
    """The scores with every target's raised by the least possible step, so that it wins its ties."""
    nudged = scores.clone()
    row, column = (targets != PAD).nonzero(as_tuple=True)
    items = targets[row, column]
    nudged[row, items] = torch.nextafter(scores[row, items], torch.tensor(torch.inf, dtype=scores.dtype))
    return nudged

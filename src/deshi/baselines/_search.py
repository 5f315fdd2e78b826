"""The choice of a baseline's settings by NDCG@10 on validation: one small grid after the other."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from deshi.data.example_batches import ExampleBatch
from deshi.metrics import metrics_from_ranks, rank_rows
from deshi.models.scorers import Scorer
from deshi.types import PAD

log = logging.getLogger(__name__)

Grid = Mapping[str, Sequence[Any]]


def validation_ndcg(scorer: Scorer, validation: Sequence[ExampleBatch]) -> float:
    """NDCG@10 of a scorer over validation examples."""
    ranks, examples = [], []
    for batch in validation:
        has_target = batch.targets != PAD
        ranks.append(rank_rows(scorer.scores(batch.histories), batch.targets, batch.seen)[0][has_target])
        examples.append(batch.numbers[:, None].expand_as(batch.targets)[has_target])
    return metrics_from_ranks(torch.cat(ranks), (10,), torch.cat(examples))["ndcg@10"]


def best_settings(
    start: Mapping[str, Any], grids: Sequence[Grid], quality: Callable[[dict[str, Any]], float]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The best settings that a search by coordinates finds.

    Args:
        start: the settings to begin with.
        grids: values of some settings, tried in all combinations, the others as they were best in the grids before.
        quality: of settings, higher is better. Equal ones: the first that was tried.

    Returns:
        The best settings, and all that were tried, each with its ``ndcg@10``.
    """
    tried: dict[tuple[Any, ...], float] = {}
    best, names = dict(start), list(start)
    for grid in grids:
        combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        for settings in [best | changes for changes in combinations]:
            key = tuple(settings.values())
            if key not in tried:
                tried[key] = quality(settings)
        best = dict(zip(names, max(tried, key=tried.__getitem__), strict=True))
    value = tried[tuple(best.values())]
    log.info("settings %s: validation NDCG@10 %.4f, the best of %d", best, value, len(tried))
    return best, [dict(zip(names, key, strict=True)) | {"ndcg@10": ndcg} for key, ndcg in tried.items()]

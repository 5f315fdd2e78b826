"""Exact ranks, best items and softmax over catalogues whose scores are computed block by block of items.

The matrix ``(B, N)`` of all scores is never held. A target's rank counts the candidates that score above it, so its own
score must be known first: a first pass over the blocks takes the targets' scores, a second one counts. Both passes
compute the same products, so that a target ties with itself and with its equals, as in :mod:`deshi.metrics._ranks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from deshi.metrics._best_items import best_items
from deshi.metrics._ranks import candidate_scores, check_ids, refuse_nan
from deshi.types import PAD, check_shape

BLOCK_ITEMS = 16_384
"""Items of a block: with a hundred rows the scores of a block stay in a CPU's cache."""


@dataclass(frozen=True, eq=False)
class ScoreBlocks:
    """The scores ``(B, N)`` of all items, computed anew in every pass, a block of items at a time.

    Attributes:
        compute: gives the scores ``(B, end - first)`` floating of the items from ``first`` up to ``end``.
        n_rows: ``B``.
        n_items: ``N``.
        device: of the scores.
        width: items of a block.
    """

    compute: Callable[[int, int], Tensor]
    n_rows: int
    n_items: int
    device: torch.device
    width: int = BLOCK_ITEMS

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """The first item and the scores ``(B, W)`` of each block."""
        for first in range(0, self.n_items, self.width):
            yield first, self.compute(first, min(first + self.width, self.n_items))

    def holding(self, items: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Those of the blocks that hold one of the items; ``PAD`` is in none."""
        for block in (items[items != PAD] // self.width).unique().tolist():
            first = block * self.width
            yield first, self.compute(first, min(first + self.width, self.n_items))

    def scores_of(self, items: Tensor) -> Tensor:
        """The scores ``(B, T)`` of items ``(B, T)``, NaN where ``PAD``, to the bit those of the blocks."""
        values = torch.full(items.shape, torch.nan, device=self.device)
        for first, scores in self.holding(items):
            rows, columns = ((items >= first) & (items < first + self.width)).nonzero(as_tuple=True)
            values[rows, columns] = scores[rows, items[rows, columns] - first].to(values.dtype)
        return values


def product_blocks(hidden: Tensor, table: Tensor) -> ScoreBlocks:
    """The scores of states ``(B, D)`` by an item table ``(N, D)`` of any format; products are in fp32."""

    def compute(first: int, end: int) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return hidden.float() @ table[first:end].float().T

    return ScoreBlocks(compute, len(hidden), len(table), hidden.device)


@torch.no_grad()
def rank_blocks(
    blocks: ScoreBlocks, targets: Tensor, seen: Tensor | None = None, top_k: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`deshi.metrics.rank_rows` of scores that come in blocks: the same ranks, candidates and best items.

    Args:
        blocks: of ``B`` rows.
        targets: ``(B, T)`` int64, ``PAD`` where a row has fewer targets.
        seen: ``(B, S)`` int64 items that are no candidates, padded with ``PAD``; None for none.
        top_k: how many of the best candidates to return.

    Raises:
        ShapeError, ScoreError: as :func:`deshi.metrics.rank_rows`.
    """
    check_shape("targets", targets, (blocks.n_rows, "T"))
    check_ids("targets", targets, blocks.n_items)
    if seen is not None:
        check_shape("seen", seen, (blocks.n_rows, "S"))
        check_ids("seen", seen, blocks.n_items)
    target_scores = blocks.scores_of(targets)
    higher = torch.zeros(targets.shape, dtype=torch.int64, device=blocks.device)
    not_lower, counts = torch.zeros_like(higher), torch.zeros(blocks.n_rows, dtype=torch.int64, device=blocks.device)
    best = _BestItems(blocks, top_k)
    for first, scores in blocks:
        refuse_nan(scores)
        candidates = _without(scores, seen, first, torch.nan)
        some_seen = candidates is not scores
        counts += scores.shape[1] - (candidates.isnan().sum(1) if some_seen else 0)
        for column in range(targets.shape[1]):
            level = target_scores[:, column, None]
            higher[:, column] += (candidates > level).sum(1)
            not_lower[:, column] += (candidates >= level).sum(1)
        if top_k:
            best.add(torch.where(candidates.isnan(), -torch.inf, candidates) if some_seen else candidates, first)
    # 1 + higher + (not_lower - higher - 1) / 2: the target ties with itself, which is no other candidate
    ranks = (higher + not_lower + 1).double() / 2
    ranks = ranks.masked_fill(_are_seen(targets, seen), torch.inf).masked_fill(targets == PAD, torch.nan)
    return ranks, counts, best.items


@torch.no_grad()
def best_items_of_blocks(blocks: ScoreBlocks, seen: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """:func:`deshi.metrics.best_items` of scores that come in blocks: items ``(B, k)`` and their scores ``(B, k)``."""
    best = _BestItems(blocks, k)
    for first, scores in blocks:
        best.add(_without(scores, seen, first, -torch.inf), first)
    return best.items, best.scores.masked_fill(best.items == PAD, 0.0)


@torch.no_grad()
def softmax_of_blocks(blocks: ScoreBlocks, targets: Tensor, seen: Tensor | None = None) -> Tensor:
    """:func:`deshi.metrics.softmax_of_rows` of scores that come in blocks, for targets ``(B,)``."""
    target = blocks.scores_of(targets[:, None])[:, 0]
    target = target.masked_fill(_are_seen(targets[:, None], seen)[:, 0], -torch.inf)
    best = torch.full_like(target, -torch.inf)
    tied, normaliser = torch.zeros_like(target), torch.full_like(target, -torch.inf, dtype=torch.float64)
    for first, scores in blocks:
        candidates = _without(scores, seen, first, -torch.inf)
        maximum = candidates.amax(1)
        ties = (candidates == maximum[:, None]).sum(1).to(tied.dtype)
        tied = torch.where(maximum > best, ties, torch.where(maximum == best, tied + ties, tied))
        best = torch.maximum(best, maximum)
        normaliser = torch.logaddexp(normaliser, candidates.logsumexp(1).double())
    hit = torch.where((target == best) & best.isfinite(), 1 / tied.double(), 0.0)
    return torch.stack([best.double() - normaliser, target.double() - normaliser, hit], 1)


class _BestItems:
    """The best items of each row so far, equal scores by smaller item index."""

    def __init__(self, blocks: ScoreBlocks, k: int) -> None:
        self.items = torch.full((blocks.n_rows, k), PAD, dtype=torch.int64, device=blocks.device)
        self.scores = torch.full((blocks.n_rows, k), -torch.inf, device=blocks.device)

    def add(self, scores: Tensor, first: int) -> None:
        """Take a block's scores ``(B, W)``, minus infinity for what is no candidate; later blocks come later."""
        k = self.items.shape[1]
        if not bool((scores.amax(1) > self.scores[:, -1]).any()):
            return
        items, values = best_items(scores, None, k)
        values = values.to(self.scores.dtype).masked_fill(items == PAD, -torch.inf)
        # a stable sort leaves equal scores in the order of their blocks, which is that of their indices
        joined, order = torch.cat([self.scores, values], 1).sort(dim=1, descending=True, stable=True)
        items = torch.cat([self.items, torch.where(items == PAD, PAD, items + first)], 1).gather(1, order)
        self.items, self.scores = items[:, :k], joined[:, :k]


def _without(scores: Tensor, seen: Tensor | None, first: int, fill: float) -> Tensor:
    """The block's scores with ``fill`` at seen items; the same tensor if there is none in it."""
    if seen is None:
        return scores
    inside = (seen >= first) & (seen < first + scores.shape[1])
    return candidate_scores(scores, torch.where(inside, seen - first, PAD), fill) if bool(inside.any()) else scores


def _are_seen(items: Tensor, seen: Tensor | None) -> Tensor:
    """``(B, T)`` whether each item is among its row's seen ones."""
    if seen is None:
        return torch.zeros_like(items, dtype=torch.bool)
    return torch.stack([(seen == column[:, None]).any(1) for column in items.T], 1)

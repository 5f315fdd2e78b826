"""Ranks, lists and softmax of scores in blocks are those of the whole matrix, ties and seen items included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deshi.metrics import (
    ScoreBlocks,
    ScoreError,
    best_items,
    best_items_of_blocks,
    product_blocks,
    rank_blocks,
    rank_rows,
    softmax_of_blocks,
    softmax_of_rows,
)
from deshi.types import PAD

ROWS, ITEMS = 9, 103


def blocks_of(scores: Tensor, width: int) -> ScoreBlocks:
    n_rows, n_items = scores.shape
    return ScoreBlocks(lambda first, end: scores[:, first:end].clone(), n_rows, n_items, scores.device, width)


def problem(seed: int, tied: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Scores with many ties or none, targets with padding, seen items with padding that hold some targets."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(ROWS, ITEMS, generator=generator)
    if tied:
        scores = (scores * 2).round() / 2
    targets = torch.randint(PAD, ITEMS, (ROWS, 3), generator=generator)
    seen = torch.randint(PAD, ITEMS, (ROWS, 8), generator=generator)
    seen[0, 0] = targets[0, 0] = 5
    return scores, targets, seen


@pytest.mark.parametrize("width", [1, 7, 50, ITEMS, 1000])
@pytest.mark.parametrize("tied", [False, True])
def test_ranks_are_those_of_the_whole_matrix(width: int, tied: bool) -> None:
    """To the digit: ranks with mean ranks of ties, numbers of candidates, and the best items' scores."""
    scores, targets, seen = problem(width, tied)
    for left_out in (None, seen):
        ranks, counts, best = rank_rows(scores, targets, left_out, top_k=12)
        block_ranks, block_counts, block_best = rank_blocks(blocks_of(scores, width), targets, left_out, top_k=12)
        assert torch.equal(ranks.nan_to_num(-1), block_ranks.nan_to_num(-1)) and torch.equal(counts, block_counts)
        assert torch.equal(scores.gather(1, best), scores.gather(1, block_best))


@pytest.mark.parametrize("width", [1, 7, 50])
def test_best_items_keep_their_rule_for_ties(width: int) -> None:
    """Equal scores by smaller index, also across blocks; fewer candidates than places end in padding."""
    scores, _, seen = problem(width, tied=True)
    scores[1, 4:] = -torch.inf
    for k in (5, 120):
        expected, values = best_items(scores, seen, k)
        items, block_values = best_items_of_blocks(blocks_of(scores, width), seen, k)
        assert torch.equal(items, expected) and torch.equal(block_values, values)


def test_softmax_is_that_of_the_whole_rows() -> None:
    """Log-probabilities of best candidate and target, and shared hits."""
    scores, targets, seen = problem(3, tied=True)
    targets = targets[:, 0].clamp(min=0)
    for left_out in (None, seen):
        expected = softmax_of_rows(scores, targets, left_out)
        torch.testing.assert_close(softmax_of_blocks(blocks_of(scores, 10), targets, left_out), expected)


def test_products_rank_equal_vectors_alike() -> None:
    """Items with the same vector tie wherever their blocks begin: mean rank, as when all are scored at once."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(5, 16, generator=generator).repeat(60, 1)
    hidden = torch.randn(4, 16, generator=generator)
    targets = torch.tensor([[0], [101], [202], [299]])
    blocks = ScoreBlocks(product_blocks(hidden, table).compute, 4, len(table), hidden.device, width=64)
    assert torch.equal(rank_blocks(blocks, targets)[0], rank_rows(hidden @ table.T, targets)[0])


def test_what_cannot_be_ranked_is_refused() -> None:
    """A NaN in any block and ids outside of the catalogue are errors, as for whole rows."""
    scores, targets, seen = problem(1, tied=False)
    wrong = targets.clone()
    wrong[2, 1] = ITEMS
    with pytest.raises(ScoreError, match="targets holds 1 ids outside"):
        rank_blocks(blocks_of(scores, 9), wrong)
    scores[3, 50] = torch.nan
    with pytest.raises(ScoreError, match="1 of .* scores are NaN"):
        rank_blocks(blocks_of(scores, 9), targets, seen)

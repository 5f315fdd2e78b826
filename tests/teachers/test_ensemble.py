"""The mathematics of an ensemble: scales, weights, unanswered items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import pytest
import torch

from deshi.data.example_batches import ExampleBatch
from deshi.evaluation import RankCollector
from deshi.teachers._weight_search import MOST_WEIGHTS, Pool, search_weights, weight_vectors
from deshi.teachers.ensemble import Scale, combined, normalised
from deshi.types import PAD, Batch

ROW = torch.tensor([[1.0, 3.0, 2.0, 6.0]])


def test_scales_by_hand() -> None:
    """Each scale on one row, against numbers worked out by hand."""
    torch.testing.assert_close(normalised(ROW, "zscore")[0], (ROW[0] - 3) / math.sqrt(3.5))
    weights = [math.exp(value - 6) for value in ROW[0].tolist()]
    torch.testing.assert_close(normalised(ROW, "softmax")[0], torch.tensor(weights) / sum(weights))
    torch.testing.assert_close(normalised(ROW, "log_softmax"), normalised(ROW, "softmax").log())
    torch.testing.assert_close(normalised(ROW, "reciprocal_rank")[0], torch.tensor([1 / 64, 1 / 62, 1 / 63, 1 / 61]))


@pytest.mark.parametrize("scale", ["softmax", "log_softmax", "zscore", "reciprocal_rank"])
def test_unanswered_items_are_worst_and_silent_rows_say_nothing(scale: Scale) -> None:
    """Teachers from files score minus infinity where they know nothing: that must not become NaN or rule the sum."""
    scores = torch.tensor([[1.0, -torch.inf, 2.0], [-torch.inf] * 3])
    found = normalised(scores, scale)
    assert bool(found.isfinite().all())
    assert found[0, 1] <= found[0, 0] < found[0, 2]
    if scale != "reciprocal_rank":
        assert float(found[1].max() - found[1].min()) == 0.0


def test_a_shift_and_a_stretch_of_a_member_change_no_z_score() -> None:
    """Members have scores of any size: that is what the scale is for."""
    torch.testing.assert_close(normalised(7 * ROW - 3, "zscore"), normalised(ROW, "zscore"))


def test_combined_is_the_weighted_sum() -> None:
    """By hand, with a member of weight 0 whose NaN must not matter."""
    parts = [torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, 0.0]]), torch.tensor([[math.nan, math.nan]])]
    assert combined(parts, [0.5, 0.25, 0.0]).tolist() == [[3.0, 1.0]]


def test_weight_vectors_cover_the_simplex() -> None:
    """All corners, each vector once, sums of 1, and never more than can be tried."""
    two = list(weight_vectors(2, 10))
    assert len(two) == 11 and [1.0, 0.0] in two and [0.0, 1.0] in two and [0.5, 0.5] in two
    for members in (3, 5, 9):
        found = list(weight_vectors(members, 10))
        assert len({tuple(one) for one in found}) == len(found) <= MOST_WEIGHTS
        assert all(sum(one) == pytest.approx(1) for one in found)
        assert all([float(place == corner) for place in range(members)] in found for corner in range(members))


def _example_batches(generator: torch.Generator, parts: int) -> tuple[ExampleBatch, list[torch.Tensor]]:
    """300 examples among 400 items with two targets, the second one missing at times, and random scores."""
    targets = torch.randint(400, (300, 2), generator=generator)
    targets[::4, 1] = PAD
    seen = torch.randint(400, (300, 4), generator=generator)
    column, row = torch.zeros(300, 1, dtype=torch.int64), torch.ones(300, dtype=torch.int64)
    histories = Batch(row, column, row, column, column)
    scores = [torch.randn(300, 400, generator=generator) for _ in range(parts)]
    for part in scores:  # members that know something, so that ranks among the best are frequent
        part.scatter_add_(1, targets.clamp(min=0), torch.rand(300, 2, generator=generator) * 4)
    return ExampleBatch(torch.arange(300), histories, targets, seen), scores


def test_pool_ranks_are_the_full_ones() -> None:
    """Among the members' best candidates NDCG@10 is that of the full ranking, seen targets and repeats included."""
    batch, parts = _example_batches(torch.Generator().manual_seed(1), 2)
    vectors = [[1.0, 0.0], [0.5, 0.5], [1.0, 3.0]]
    pool, ranks = Pool(), RankCollector()
    pool.add(batch, parts)
    ranks.add(batch, [combined(parts, weights) for weights in vectors])
    expected = [metrics["ndcg@10"] for metrics in ranks.collected().metrics()]
    assert pool.ndcg(vectors) == pytest.approx(expected, abs=1e-9)


def test_evidence_has_a_free_weight_and_the_search_finds_it() -> None:
    """A distribution plus four times the evidence: the sum to one of the others must not bind the evidence."""
    batch, parts = _example_batches(torch.Generator().manual_seed(2), 2)
    hidden = parts[0] + 4 * parts[1]
    batch = batch._replace(targets=hidden.argmax(1, keepdim=True), seen=torch.full((300, 1), PAD))
    pool = Pool()
    pool.add(batch, parts)
    (best, value), *_ = search_weights(pool, [False, True], 10)
    assert best == [1.0, 4.0] and value == pytest.approx(1.0)


def test_many_members_are_searched_by_moves() -> None:
    """Six members have more weights than can be tried at once: moves from the grid's best still find a mixture."""
    batch, parts = _example_batches(torch.Generator().manual_seed(3), 6)
    hidden = 0.5 * parts[0] + 0.3 * parts[3] + 0.2 * parts[5]
    batch = batch._replace(targets=hidden.argmax(1, keepdim=True), seen=torch.full((300, 1), PAD))
    pool = Pool()
    pool.add(batch, parts)
    (best, value), *others = search_weights(pool, [False] * 6, 10)
    assert sum(best) == pytest.approx(1) and value > 0.97
    assert len(others) < 1000 and all(ndcg <= value for _, ndcg in others)


class _Landscape(Pool):
    """NDCG@10 by a table: the grid's best vector is a hilltop of its own, the way to the peak starts from another."""

    heights: ClassVar[dict[tuple[float, ...], float]] = {
        (0.5, 2.0, 0.5): 0.5,
        (1.0, 7.0, 0.0): 0.4,
        (1.0, 8.0, 0.0): 0.6,
    }

    def ndcg(self, vectors: Sequence[Sequence[float]]) -> list[float]:
        return [self.heights.get(tuple(vector), 0.0) for vector in vectors]


def test_the_search_goes_on_from_several_vectors() -> None:
    """The grid has the hilltop and the second best vector only; the peak is a move away from the second best."""
    (best, value), *_ = search_weights(_Landscape(), [False, True, False], 10)
    assert (best, value) == ([1.0, 8.0, 0.0], 0.6)

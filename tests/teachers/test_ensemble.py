"""The mathematics of an ensemble: scales, weights, unanswered items."""

from __future__ import annotations

import math

import pytest
import torch

from deshi.teachers.ensemble import MOST_WEIGHTS, Scale, combined, normalised, weight_vectors

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

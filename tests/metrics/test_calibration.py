"""Calibration: probabilities from scores, and the error of those that promise too much or too little."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deshi.metrics import reliability, softmax_of_rows
from deshi.types import PAD, DeshiError, ShapeError


def test_softmax_by_hand() -> None:
    """Scores log 1, log 2, log 5: the best has 5/8, the target 2/8; without the seen best 2/3 and right."""
    scores = torch.log(torch.tensor([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]]))
    softmax = softmax_of_rows(scores, torch.tensor([1, 1]), torch.tensor([[PAD], [2]]))
    assert softmax[:, :2].exp().numpy() == pytest.approx(np.array([[5 / 8, 2 / 8], [2 / 3, 2 / 3]]))
    assert softmax[:, 2].tolist() == [0.0, 1.0]


def test_a_seen_target_is_never_right() -> None:
    """As in the ranking: it is no candidate, so it has no probability; without any candidate nothing is defined."""
    softmax = softmax_of_rows(torch.zeros(2, 4), torch.tensor([2, 2]), torch.tensor([[2, 3, PAD, PAD], [0, 1, 2, 3]]))
    assert softmax[0].exp().tolist() == pytest.approx([1 / 2, 0, 1])
    assert softmax[0, 2] == 0 and softmax[1, :2].isnan().all() and softmax[1, 2] == 0


def test_constant_scores_are_calibrated() -> None:
    """Who says 1/n of everything is right in 1/n of the cases: a tie counts as its share, not as a hit."""
    softmax = softmax_of_rows(torch.full((600, 5), 3.0), torch.zeros(600, dtype=torch.int64)).numpy()
    assert np.allclose(softmax[:, 2], 0.2)
    assert reliability(np.exp(softmax[:, 0]), softmax[:, 2]).error == pytest.approx(0, abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(2, 9), st.integers(0, 9999))
def test_against_torch(rows: int, items: int, seed: int) -> None:
    """Row blocks and masks change nothing of torch's own log-softmax over the candidates."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-3, 4, (rows, items), generator=generator).float()
    targets = torch.randint(0, items, (rows,), generator=generator)
    seen = torch.randint(-1, items, (rows, 3), generator=generator)
    hidden = torch.zeros(rows, items + 1, dtype=torch.bool).scatter_(1, seen.where(seen != PAD, items), True)[:, :-1]
    logs = torch.log_softmax(scores.double().masked_fill(hidden, -torch.inf), 1)
    softmax = softmax_of_rows(scores, targets, seen)
    assert torch.allclose(softmax[:, 0], logs.amax(1), atol=1e-5, equal_nan=True)
    assert torch.allclose(softmax[:, 1], logs.gather(1, targets[:, None])[:, 0], atol=1e-5, equal_nan=True)
    best = (logs == logs.amax(1, keepdim=True)) & logs.isfinite()
    assert torch.allclose(softmax[:, 2], best[torch.arange(rows), targets].double() / best.sum(1).clamp(min=1))


def test_reliability_by_hand() -> None:
    """Two bins of two examples: 0.15 promised and 0.5 kept, 0.85 promised and 1.0 kept."""
    bins = reliability(np.array([0.1, 0.9, 0.2, 0.8]), np.array([0.0, 1.0, 1.0, 1.0]), bins=2)
    assert bins.n_examples.tolist() == [2, 2]
    assert bins.confidence == pytest.approx([0.15, 0.85]) and bins.accuracy == pytest.approx([0.5, 1.0])
    assert bins.error == pytest.approx((0.35 + 0.15) / 2)


def test_equal_confidences_share_a_bin() -> None:
    """Their order says nothing, so a border between them would only add noise to the error."""
    bins = reliability(np.full(30, 0.5), np.tile([0.0, 1.0], 15))
    assert bins.n_examples.tolist() == [30] and bins.error == 0.0


def test_sharper_scores_promise_too_much() -> None:
    """Outcomes drawn from a softmax are calibrated for it, and not for its logits times four."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4000, 20))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = torch.from_numpy((chances.cumsum(1) > generator.random((4000, 1))).argmax(1))
    errors = []
    for factor in (1.0, 4.0):
        softmax = softmax_of_rows(torch.from_numpy(logits * factor), targets).numpy()
        errors.append(reliability(np.exp(softmax[:, 0]), softmax[:, 2]).error)
    assert errors[0] < 0.03 < 0.3 < errors[1]


def test_what_is_no_probability_is_refused() -> None:
    """A logit in the place of a probability would give a number that looks like an error."""
    assert np.isnan(reliability(np.zeros(0), np.zeros(0)).error)
    for confidence in (np.array([1.5]), np.array([np.nan])):
        with pytest.raises(DeshiError, match="expected probabilities"):
            reliability(confidence, np.zeros(1))
    with pytest.raises(DeshiError, match="shape"):
        reliability(np.zeros(2), np.zeros(3))
    with pytest.raises(ShapeError):
        softmax_of_rows(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64))

"""Metrics beyond accuracy against hand values, plain loops and their bounds."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deshi.metrics import beyond_accuracy, coverage, gini, intra_list_diversity, novelty, popularity_lift
from deshi.types import PAD, DeshiError

LISTS = np.array([[0, 1, 2], [0, PAD, PAD], [PAD, PAD, PAD]])
COUNTS = np.array([7, 3, 1, 0])


def test_coverage() -> None:
    """Padding is no item, the list's end doesn't count, and no list gives no figure."""
    assert coverage(LISTS, 1, 4) == 0.25
    assert coverage(LISTS, 3, 4) == 0.75
    assert np.isnan(coverage(LISTS[:0], 1, 4))
    with pytest.raises(DeshiError, match="coverage at 4"):
        coverage(LISTS, 4, 4)


def test_gini_by_hand() -> None:
    """Exposures 0, 1, 1, 2 of four items: (-3*0 - 1 + 1 + 3*2) / (4*4); one item alone takes all but 1/n."""
    assert gini(LISTS, 3, 4) == pytest.approx(6 / 16)
    assert gini(LISTS, 1, 4) == pytest.approx(0.75)
    assert gini(np.array([[0, 1], [2, 3]]), 2, 4) == 0.0
    assert np.isnan(gini(LISTS[2:], 3, 4))


def test_novelty_by_hand() -> None:
    """Counts 7, 3, 1, 0 and one more each make shares of 8, 4, 2 and 1 in 15; unseen items stay finite."""
    bits = np.log2(15) - np.array([3.0, 2.0, 1.0, 0.0])
    assert novelty(LISTS, 3, COUNTS)[:2] == pytest.approx([bits[:3].mean(), bits[0]])
    assert np.isnan(novelty(LISTS, 3, COUNTS)[2])
    assert novelty(np.array([[3]]), 1, COUNTS) == pytest.approx([np.log2(15)])


def test_popularity_lift_by_hand() -> None:
    """Lists of mean popularity 11/3 and 7 over histories of 2 and 7; a history of unknown items has no ratio."""
    lift = popularity_lift(LISTS, 3, COUNTS, np.array([2.0, 7.0, 1.0]))
    assert lift[:2] == pytest.approx([11 / 6, 1.0]) and np.isnan(lift[2])
    assert np.isnan(popularity_lift(LISTS, 3, COUNTS, np.zeros(3))).all()


def test_intra_list_diversity_by_hand() -> None:
    """Right angles are 1 apart, opposites 2, the same direction 0; a zero vector is 1 from everything."""
    vectors = np.array([[1, 0], [0, 3], [-2, 0], [0, 0]], dtype=np.float32)
    lists = np.array([[0, 1, 2], [0, 2, PAD], [0, 0, PAD], [0, 3, PAD], [0, PAD, PAD]])
    diversity = intra_list_diversity(lists, 3, vectors)
    assert diversity[:4] == pytest.approx([4 / 3, 2.0, 0.0, 1.0]) and np.isnan(diversity[4])


def test_everything_at_every_k() -> None:
    """A figure that has no value anywhere is left out instead of written as NaN."""
    history = np.array([2.0, 7.0, 0.0])
    without = beyond_accuracy(LISTS, [1, 3], COUNTS, history)
    assert set(without) == {f"{name}@{k}" for name in ("gini", "novelty", "popularity_lift") for k in (1, 3)}
    assert without["popularity_lift@3"] == pytest.approx((11 / 6 + 1) / 2)
    with_vectors = beyond_accuracy(LISTS, [1, 3], COUNTS, history, np.eye(4, dtype=np.float32))
    assert set(with_vectors) - set(without) == {"ild@3"} and with_vectors["ild@3"] == pytest.approx(1.0)
    assert beyond_accuracy(LISTS[:0], [1], COUNTS, history[:0]) == {}


@st.composite
def shown(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists of distinct items with padding on the right, item counts and item vectors."""
    n_items, k = draw(st.integers(2, 9)), draw(st.integers(1, 6))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    lists = np.full((draw(st.integers(1, 7)), k), PAD)
    for row in lists:
        size = int(generator.integers(0, min(k, n_items) + 1))
        row[:size] = generator.choice(n_items, size, replace=False)
    return lists, generator.integers(0, 20, n_items), generator.normal(size=(n_items, 3)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(shown())
def test_against_plain_loops(example: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """The vectorised formulas are those of the definitions, and stay inside their bounds."""
    lists, counts, vectors = example
    k, n = lists.shape[1], len(counts)
    real = [[int(item) for item in row if item != PAD] for row in lists]
    exposure = [sum(item in row for row in real) for item in range(n)]
    if sum(exposure):
        apart = sum(abs(a - b) for a in exposure for b in exposure)
        assert gini(lists, k, n) == pytest.approx(apart / (2 * n * sum(exposure)))
        assert -1e-12 <= gini(lists, k, n) <= 1 - 1 / n + 1e-12
    bits = novelty(lists, k, counts)
    apart_in = intra_list_diversity(lists, k, vectors)
    for row, information, distance in zip(real, bits, apart_in, strict=True):
        if row:
            shares = [(counts[item] + 1) / (counts.sum() + n) for item in row]
            assert information == pytest.approx(-np.mean(np.log2(shares))) and information >= 0
        pairs = [
            1 - vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b])
            for a, b in combinations(row, 2)
        ]
        assert distance == pytest.approx(np.mean(pairs), abs=1e-5) if pairs else np.isnan(distance)


@settings(max_examples=30, deadline=None)
@given(shown(), st.integers(2, 5))
def test_lift_is_a_ratio(example: tuple[np.ndarray, np.ndarray, np.ndarray], factor: int) -> None:
    """Counting every training event several times changes no ratio of popularities."""
    lists, counts, _ = example
    history = np.full(len(lists), 4.0)
    once = popularity_lift(lists, lists.shape[1], counts, history)
    assert np.allclose(once, popularity_lift(lists, lists.shape[1], counts * factor, history * factor), equal_nan=True)

"""Metrics at K from ranks: hand values, bounds, empty truths and agreement with ranx."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deshi.metrics import METRICS, example_ranks, metrics_from_ranks, metrics_per_example
from deshi.types import DeshiError


def test_hand_values_with_one_target() -> None:
    """Three users at ranks 1, 3 and 20: each metric by hand."""
    metrics = metrics_from_ranks(np.array([1.0, 3.0, 20.0]), [10])
    assert metrics["hr@10"] == metrics["recall@10"] == pytest.approx(2 / 3)
    assert metrics["ndcg@10"] == pytest.approx((1 + 1 / math.log2(4)) / 3)
    assert metrics["mrr@10"] == metrics["map@10"] == pytest.approx((1 + 1 / 3) / 3)


def test_hand_values_with_several_targets() -> None:
    """One example with targets at ranks 2, 5 and 30, given in another order."""
    metrics = metrics_from_ranks(np.array([30.0, 2.0, 5.0]), [5], examples=np.array([0, 0, 0]))
    assert metrics["hr@5"] == 1.0
    assert metrics["recall@5"] == pytest.approx(2 / 3)
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert metrics["ndcg@5"] == pytest.approx((1 / math.log2(3) + 1 / math.log2(6)) / ideal)
    assert metrics["mrr@5"] == pytest.approx(1 / 2)
    assert metrics["map@5"] == pytest.approx((1 / 2 + 2 / 5) / 3)


def test_more_targets_than_k() -> None:
    """NDCG and MAP of a perfect list are 1 even if it can't hold all the targets."""
    metrics = metrics_from_ranks(np.array([1.0, 2.0, 3.0]), [2], examples=np.zeros(3, np.int64))
    assert metrics["ndcg@2"] == metrics["map@2"] == 1.0
    assert metrics["recall@2"] == pytest.approx(2 / 3)


def test_a_tie_on_the_border_is_outside() -> None:
    """A mean rank of 10.5 isn't among the best 10."""
    assert metrics_from_ranks(np.array([10.5]), [10])["hr@10"] == 0.0


def test_empty_truth_is_nan_and_leaves_the_mean_alone() -> None:
    """An example without targets has no score; calling it 0 would blame the model for the data."""
    per_example = metrics_per_example(example_ranks(np.array([1.0]), np.array([1]), n_examples=3), [5])
    for name, values in per_example.items():
        assert np.isnan(values[[0, 2]]).all() and values[1] == 1.0, name
    assert metrics_from_ranks(np.array([1.0]), [5], np.array([1]), n_examples=3)["ndcg@5"] == 1.0
    assert math.isnan(metrics_from_ranks(np.array([]), [5])["ndcg@5"])
    assert math.isnan(metrics_from_ranks(np.array([]), [5], np.array([]), n_examples=2)["hr@5"])


@pytest.mark.parametrize(
    ("ranks", "examples"), [([0.0], [0]), ([float("nan")], [0]), ([1.0], [3]), ([1.0], [-1]), ([1.0, 2.0], [0])]
)
def test_impossible_ranks_are_refused(ranks: list[float], examples: list[int]) -> None:
    """A rank below 1 would count as a hit at every K."""
    with pytest.raises(DeshiError):
        example_ranks(np.array(ranks), np.array(examples), n_examples=2)


def test_k_below_one_is_refused() -> None:
    """A list of no items has no metric."""
    with pytest.raises(DeshiError, match="expected numbers from 1"):
        metrics_from_ranks(np.array([1.0]), [0])


@st.composite
def tied_lists(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Mean ranks of random targets in random lists with ties, and their examples."""
    ranks, examples = [], []
    for example in range(draw(st.integers(1, 4))):
        scores = np.array(draw(st.lists(st.integers(0, 3), min_size=1, max_size=10)))
        for target in draw(st.lists(st.integers(0, len(scores) - 1), max_size=len(scores), unique=True)):
            higher, equal = (scores > scores[target]).sum(), (scores == scores[target]).sum()
            ranks.append(1 + higher + (equal - 1) / 2)
            examples.append(example)
    return np.array(ranks, dtype=np.float64), np.array(examples, dtype=np.int64)


@settings(deadline=None)
@given(tied_lists(), st.integers(1, 12))
def test_bounds_and_monotony(lists: tuple[np.ndarray, np.ndarray], k: int) -> None:
    """Every metric lies in 0 .. 1, and hit rate, recall and MRR grow with K."""
    grouped = example_ranks(*lists, n_examples=5)
    small, large = metrics_per_example(grouped, [k]), metrics_per_example(grouped, [k + 1])
    full = grouped.sizes > 0
    for name in METRICS:
        values = small[f"{name}@{k}"]
        assert np.isnan(values[~full]).all()
        assert ((values[full] >= 0) & (values[full] <= 1)).all()
        if name in ("hr", "recall", "mrr"):
            assert (large[f"{name}@{k + 1}"][full] >= values[full]).all()


@settings(deadline=None)
@given(tied_lists(), st.integers(0, 99))
def test_order_of_targets_does_not_matter(lists: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    """The metrics are functions of sets of targets and of users."""
    ranks, examples = lists
    order = np.random.default_rng(seed).permutation(len(ranks))
    here = metrics_from_ranks(ranks, [3], examples, n_examples=5)
    there = metrics_from_ranks(ranks[order], [3], examples[order], n_examples=5)
    assert here == pytest.approx(there, nan_ok=True)


def test_agrees_with_ranx() -> None:
    """An independent library computes the same figures on random lists (its MAP divides by all targets)."""
    ranx = pytest.importorskip("ranx")
    generator = np.random.default_rng(3)
    qrels: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    ranks, examples, sizes = [], [], []
    for example in range(60):
        scores = generator.permutation(40).astype(float)
        targets = generator.choice(40, size=generator.integers(1, 8), replace=False)
        qrels[f"q{example}"] = {f"d{t}": 1 for t in targets}
        run[f"q{example}"] = {f"d{item}": float(score) for item, score in enumerate(scores)}
        ranks += [1.0 + (scores > scores[t]).sum() for t in targets]
        examples += [example] * len(targets)
        sizes.append(len(targets))
    per_example = metrics_per_example(example_ranks(np.array(ranks), np.array(examples)), [5, 10])
    for k in (5, 10):
        names = {"ndcg": f"ndcg@{k}", "recall": f"recall@{k}", "hr": f"hit_rate@{k}", "mrr": f"mrr@{k}"}
        for ours, theirs in names.items():
            expected = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), theirs)
            assert per_example[f"{ours}@{k}"].mean() == pytest.approx(expected, abs=1e-12), theirs
        over_all = per_example[f"map@{k}"] * np.minimum(sizes, k) / np.array(sizes)
        expected = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), f"map@{k}")
        assert over_all.mean() == pytest.approx(expected, abs=1e-12)

"""Statistics of per-example metrics against hand values, exhaustive enumeration, scipy and simulations."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from deshi.metrics import (
    Interval,
    _significance,
    bootstrap_interval,
    bootstrap_means,
    effect_size,
    holm,
    paired_permutation,
    percentile_bounds,
    percentile_interval,
    permutation_p_values,
    wilcoxon,
    wins_ties_losses,
)
from deshi.types import DeshiError

A = np.array([1.0, 0.5, 0.0, 0.25, 1.0])
B = np.array([0.5, 0.5, 0.25, 0.0, 0.0])


def enumerated(differences: np.ndarray) -> float:
    """The exact p-value: all sign vectors."""
    observed = abs(differences.sum())
    signs = itertools.product((-1, 1), repeat=len(differences))
    sums = [abs(np.dot(sign, differences)) for sign in signs]
    return float(np.mean(np.array(sums) >= observed - 1e-12))


def test_hand_values() -> None:
    """Differences 0.5, 0, -0.25, 0.25 and 1: mean 0.3, deviation 0.4809, three wins, a tie, a loss."""
    assert wins_ties_losses(A, B) == (3, 1, 1)
    assert effect_size(A, B) == pytest.approx(0.3 / np.sqrt((0.04 + 0.09 + 0.3025 + 0.0025 + 0.49) / 4))
    assert effect_size(B, A) == -effect_size(A, B)


def test_equal_and_constant_differences_have_an_effect_size() -> None:
    """A model compared with its copy must not end in a division by zero."""
    assert effect_size(A, A) == 0.0 and wins_ties_losses(A, A) == (0, 5, 0)
    assert effect_size(A + 1, A) == np.inf and effect_size(A, A + 1) == -np.inf
    assert effect_size(A[:1], B[:1]) == np.inf
    assert wilcoxon(A, A) == 1.0 and paired_permutation(A, A) == 1.0


def test_sums_in_another_order_are_ties() -> None:
    """Seeds that are averaged in another order differ in the last bit: no win for anybody."""
    first, second = np.array([0.1 + 0.2 + 0.3]), np.array([0.3 + 0.2 + 0.1])
    assert first[0] != second[0] and wins_ties_losses(first, second) == (0, 1, 0)


@pytest.mark.parametrize("seed", range(4))
def test_permutation_is_the_exhaustive_one(seed: int) -> None:
    """For few examples all sign vectors can be counted; the random ones must agree within their error."""
    generator = np.random.default_rng(seed)
    first, second = generator.choice([0.0, 0.25, 0.5, 1.0], (2, 9))
    exact = enumerated(first - second)
    error = 4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4
    assert paired_permutation(first, second, samples=20_000, seed=seed) == pytest.approx(exact, abs=error)


def test_permutation_is_never_zero_and_two_sided() -> None:
    """The observed sign vector is one of the possible ones, so the smallest p-value is 1 / (samples + 1)."""
    first = np.linspace(1, 2, 200, dtype=np.float64)
    assert paired_permutation(first, np.zeros(200), samples=99) == pytest.approx(0.01)
    assert paired_permutation(A, B, seed=1) == paired_permutation(B, A, seed=1)


def test_many_pairs_are_each_what_they_are_alone() -> None:
    """The shared product over columns is only faster."""
    values = np.random.default_rng(0).random((50, 3))
    p_values = permutation_p_values(values, [(0, 1), (2, 1), (0, None)], samples=500, seed=3)
    alone = [paired_permutation(values[:, a], values[:, b], 500, 3) for a, b in [(0, 1), (2, 1)]]
    assert p_values[:2].tolist() == alone
    assert p_values[2] == paired_permutation(values[:, 0], np.zeros(50), 500, 3)


def test_examples_of_zeros_change_nothing() -> None:
    """Most users are served by no model at small K; leaving them out is only faster."""
    values = np.random.default_rng(0).random((50, 2))
    longer = np.concatenate([values, np.zeros((30, 2))])
    assert permutation_p_values(longer, [(0, 1)], 500) == permutation_p_values(values, [(0, 1)], 500)
    assert permutation_p_values(np.zeros((5, 2)), [(0, 1)], 500) == 1.0


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with another memory bound must give the same figures; the last block may be shorter."""
    values = np.random.default_rng(0).random((50, 2))
    means, p = bootstrap_means(values, 30), permutation_p_values(values, [(0, 1)], 30)
    monkeypatch.setattr(_significance, "CELLS", 7 * 50)
    np.testing.assert_allclose(bootstrap_means(values, 30), means)
    assert permutation_p_values(values, [(0, 1)], 30) == p


@pytest.mark.parametrize("zeros", [0, 30])
def test_wilcoxon_is_scipys(zeros: int) -> None:
    """With and without ties between the models; Pratt's rule matters only with them."""
    first = np.random.default_rng(0).random(80)
    second = np.random.default_rng(1).random(80) * 0.8
    second[:zeros] = first[:zeros]
    difference = np.round(first - second, 12)
    assert wilcoxon(first, second) == stats.wilcoxon(difference, zero_method="pratt").pvalue
    dropped = stats.wilcoxon(difference, zero_method="wilcox").pvalue
    assert bool(wilcoxon(first, second) == pytest.approx(dropped, rel=1e-6)) == (zeros == 0)


def test_holm_by_hand() -> None:
    """0.01 x 4, 0.02 x 3, then 0.03 x 2 and 0.04 x 1, neither below the 0.06 before it."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_holm_refuses_what_is_no_probability(bad: float) -> None:
    """A NaN would silently sort to the end and pass."""
    with pytest.raises(DeshiError, match="from 0 to 1"):
        holm([0.5, bad])


def test_bootstrap_resamples_all_columns_alike() -> None:
    """The difference of two columns is the paired bootstrap only if both see the same examples."""
    values = np.random.default_rng(0).random((100, 2))
    means = bootstrap_means(np.column_stack([values, values[:, 0] - values[:, 1]]), 50, seed=4)
    assert means.shape == (50, 3)
    np.testing.assert_allclose(means[:, 0] - means[:, 1], means[:, 2], atol=1e-12)
    np.testing.assert_allclose(bootstrap_means(values[:, 0], 50, seed=4), means[:, 0])


def test_the_same_seed_gives_the_same_interval() -> None:
    """A table must come out the same the next day, and differently with another seed."""
    values = np.random.default_rng(0).random(100)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    wide, narrow = (bootstrap_interval(values, confidence) for confidence in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.mean == values.mean() < narrow.high < wide.high


def test_the_interval_covers_the_truth() -> None:
    """A 95 % interval that holds the truth in 80 % of the draws would make noise look like a result."""
    generator = np.random.default_rng(0)
    ranks, hits = generator.integers(1, 11, (300, 1000)), generator.random((300, 1000)) < 0.3
    truth = 0.3 * np.mean(1 / np.log2(1 + np.arange(1, 11)))
    low, high = percentile_bounds(bootstrap_means(hits / np.log2(1 + ranks), samples=1000), 0.95)
    assert 0.92 <= np.mean((low <= truth) & (truth <= high)) <= 0.98


def test_p_values_are_uniform_where_there_is_no_difference() -> None:
    """Two equally good models must look different at the 5 % level in 5 % of the cases."""
    generator = np.random.default_rng(0)
    first, second = generator.random((2, 300, 200))
    columns = np.concatenate([first, second], axis=0).T
    p = permutation_p_values(columns, [(draw, 300 + draw) for draw in range(300)], samples=1000)
    ranked = [wilcoxon(first[draw], second[draw]) for draw in range(300)]
    for p_values in (p, np.array(ranked)):
        assert stats.kstest(p_values, "uniform").pvalue > 0.01
        assert 0.02 <= (p_values <= 0.05).mean() <= 0.09


def test_a_planted_difference_is_found() -> None:
    """Models whose hit rates are 0.30 and 0.36 on the same 2,000 users differ."""
    generator = np.random.default_rng(0)
    first = (generator.random(2000) < 0.30).astype(float)
    second = np.where(generator.random(2000) < 0.09, 1.0, first)
    assert paired_permutation(first, second) < 0.001 and wilcoxon(first, second) < 0.001
    assert effect_size(second, first) > 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_permutation(A, B[:3]), r"shapes \(5,\) and \(3,\)"),
        (lambda: wilcoxon(np.ones((2, 2)), np.ones((2, 2))), r"expected both \(C,\)"),
        (lambda: bootstrap_interval(np.array([1.0, np.nan])), "1 of 2 values are NaN"),
        (lambda: bootstrap_interval(np.array([])), "no example"),
        (lambda: bootstrap_interval(A, confidence=95), "confidence is 95"),
        (lambda: bootstrap_means(A, samples=0), "samples is 0"),
        (lambda: paired_permutation(A, B, samples=0), "samples is 0"),
    ],
)
def test_what_cannot_be_tested_is_refused(call: Callable[[], object], message: str) -> None:
    """NaN that spreads through a mean would be printed as a figure."""
    with pytest.raises(DeshiError, match=message):
        call()


def test_an_interval_leaves_out_what_does_not_exist() -> None:
    """A ratio over zero hits exists in some resamples only."""
    drawn = np.array([np.nan, 1.0, 2.0, 3.0, np.inf])
    assert percentile_interval(2.0, drawn, 0.5) == Interval(2.0, 1.5, 2.5)
    assert np.isnan(percentile_interval(2.0, np.array([np.nan]), 0.5).low)

"""Exact ranks: hand cases, ties, the seen filter, refusals, and properties that must hold for any scores."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deshi.metrics import ScoreError, exact_ranks, metrics_from_ranks, rank_rows
from deshi.types import PAD, ShapeError

INF = float("inf")


def ranks(scores: list[list[float]], targets: list[int], seen: list[list[int]] | None = None) -> list[float]:
    filtered = None if seen is None else torch.tensor(seen)
    return exact_ranks(torch.tensor(scores), torch.tensor(targets), filtered).tolist()


def naive(scores: torch.Tensor, target: int, seen: set[int]) -> float:
    if target in seen:
        return INF
    candidates = [float(scores[j]) for j in range(len(scores)) if j != target and j not in seen]
    target_score = float(scores[target])
    higher = sum(score > target_score for score in candidates)
    return 1 + higher + sum(score == target_score for score in candidates) / 2


def test_hand_example() -> None:
    """Ranks count from 1 and the best score is the best rank."""
    assert ranks([[0.1, 0.5, 0.3, 0.4], [4.0, 3.0, 2.0, 1.0]], [2, 0]) == [3.0, 1.0]


def test_ties_take_the_mean_rank() -> None:
    """A tie is neither won nor lost: the place is the mean of the places that the tied items take."""
    assert ranks([[0.9, 0.5, 0.5, 0.1], [0.5, 0.5, 0.5, 0.9]], [1, 0]) == [2.5, 3.0]


@pytest.mark.parametrize("constant", [0.0, 7.0, INF, -INF])
def test_constant_scores_are_at_chance_level(constant: float) -> None:
    """A dead scorer must never look good, also with infinities: its mean rank is the middle of the list."""
    scores = torch.full((5, 21), constant)
    assert exact_ranks(scores, torch.arange(5)).tolist() == [11.0] * 5


def test_minus_infinity_shares_the_last_places() -> None:
    """An item that a scorer can't score ties with the other such items, behind every scored one."""
    assert ranks([[1.0, -INF, -INF, 2.0]], [1]) == [3.5]


def test_seen_items_are_no_candidates() -> None:
    """Seen items leave the list, repeats count once and padding is no item."""
    assert ranks([[0.9, 0.8, 0.7, 0.6]], [3], [[0, 0, 1, PAD]]) == [2.0]
    assert ranks([[0.5, 0.5, 0.5, 0.5]], [3], [[0, 1, PAD, PAD]]) == [1.5]


def test_a_seen_target_is_a_miss() -> None:
    """No served list without seen items can hold it, so no K may count it as a hit, also with nothing else left."""
    assert ranks([[0.9, 0.8, 0.7]], [1], [[0, 1]]) == [INF]
    assert ranks([[0.9, 0.8, 0.7]], [1], [[0, 1, 2]]) == [INF]
    metrics = metrics_from_ranks(torch.tensor([INF, 1.0]), [1, 1000])
    assert set(metrics.values()) == {0.5}, "a miss is 0 for every metric, and never NaN"


def test_seen_filter_does_not_write_into_the_scores() -> None:
    """The caller's scores are used again elsewhere."""
    scores = torch.tensor([[0.9, 0.8, 0.7]])
    exact_ranks(scores, torch.tensor([2]), torch.tensor([[0, PAD]]))
    assert scores.tolist() == torch.tensor([[0.9, 0.8, 0.7]]).tolist()


def test_several_targets_of_a_row() -> None:
    """Two targets of one row can't both hold rank 1, and a seen one takes no place from the others."""
    ranks, counts, best = rank_rows(
        torch.tensor([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4]]),
        torch.tensor([[1, 2, 3], [3, PAD, PAD]]),
        torch.tensor([[0, 1, PAD], [2, 2, PAD]]),
        top_k=4,
    )
    assert ranks[0].tolist() == [INF, 1.0, 2.0]
    assert ranks[1, 0] == 1.0 and ranks[1, 1].isnan()
    assert counts.tolist() == [2, 3]
    assert best.tolist() == [[2, 3, PAD, PAD], [3, 1, 0, PAD]]


def test_top_items_longer_than_the_catalogue_are_padded() -> None:
    """Asking for more items than exist gives padding, not an error."""
    best = rank_rows(torch.tensor([[0.1, 0.2]]), torch.tensor([[0]]), top_k=3)[2]
    assert best.tolist() == [[1, 0, PAD]]


def test_nan_scores_are_refused_with_their_count() -> None:
    """A diverged model must stop the evaluation, not win it."""
    with pytest.raises(ScoreError, match="2 of 6 scores are NaN"):
        ranks([[0.1, float("nan"), 0.3], [float("nan"), 0.2, 0.3]], [0, 1])


@pytest.mark.parametrize(
    ("targets", "seen"), [([3], [[0]]), ([PAD], [[0]]), ([-2], [[0]]), ([0], [[3]]), ([0], [[-2]])]
)
def test_ids_outside_of_the_catalogue_are_refused(targets: list[int], seen: list[list[int]]) -> None:
    """Ids of another data set would otherwise wrap around silently."""
    with pytest.raises(ScoreError, match="outside of the catalogue"):
        ranks([[0.1, 0.2, 0.3]], targets, seen)


@pytest.mark.parametrize(
    ("scores", "targets", "seen"),
    [((2, 3), (2, 1), (2, 1)), ((2, 3), (3,), (2, 1)), ((2, 3, 1), (2,), (2, 1)), ((2, 3), (2,), (2,))],
)
def test_wrong_shapes_are_refused(scores: tuple[int, ...], targets: tuple[int, ...], seen: tuple[int, ...]) -> None:
    """A target of shape (B, 1) would broadcast to (B, B) and give plausible nonsense."""
    with pytest.raises(ShapeError):
        exact_ranks(torch.zeros(scores), torch.zeros(targets, dtype=torch.int64), torch.zeros(seen, dtype=torch.int64))


def test_integer_scores_are_refused() -> None:
    """Integers can't hold the marks of filtered items."""
    with pytest.raises(ScoreError, match="int64"):
        exact_ranks(torch.zeros(1, 2, dtype=torch.int64), torch.tensor([0]))


def test_no_rows_give_no_ranks() -> None:
    """An empty part of a split is no error."""
    assert exact_ranks(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)).shape == (0,)


@st.composite
def problems(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores on a coarse grid (many ties), targets and seen items."""
    size, n_items, n_seen = draw(st.integers(1, 6)), draw(st.integers(1, 12)), draw(st.integers(0, 8))
    grid = st.sampled_from([-INF, -2.0, -0.5, 0.0, 0.25, 1.0, 3.0])
    scores = draw(st.lists(grid, min_size=size * n_items, max_size=size * n_items))
    targets = draw(st.lists(st.integers(0, n_items - 1), min_size=size, max_size=size))
    seen = draw(st.lists(st.integers(PAD, n_items - 1), min_size=size * n_seen, max_size=size * n_seen))
    return (
        torch.tensor(scores).view(size, n_items),
        torch.tensor(targets),
        torch.tensor(seen, dtype=torch.int64).view(size, n_seen),
    )


@settings(deadline=None)
@given(problems())
def test_equals_the_definition(problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    """The vectorised ranks are the definition, row by row, and lie in 1 .. candidates or are infinite."""
    scores, targets, seen = problem
    ranks, counts, _ = rank_rows(scores, targets[:, None], seen)
    expected = [naive(row, int(t), set(s.tolist())) for row, t, s in zip(scores, targets, seen, strict=True)]
    assert ranks[:, 0].tolist() == expected
    assert bool(((ranks[:, 0] >= 1) & ((ranks[:, 0] <= counts) | ranks[:, 0].isinf())).all())


@settings(deadline=None)
@given(problems(), st.floats(0.5, 4.0), st.floats(-3.0, 3.0))
def test_invariant_under_monotone_transforms(
    problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor], scale: float, shift: float
) -> None:
    """A rank depends on the order of scores only."""
    scores, targets, seen = problem
    assert torch.equal(exact_ranks(scores, targets, seen), exact_ranks((scores * scale + shift).exp(), targets, seen))


@settings(deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_rows_are_independent(problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor], random: Random) -> None:
    """Permuting the users permutes their ranks and changes nothing else."""
    scores, targets, seen = problem
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(random.randint(0, 99)))
    permuted = exact_ranks(scores[order], targets[order], seen[order])
    assert torch.equal(permuted, exact_ranks(scores, targets, seen)[order])

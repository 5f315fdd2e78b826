"""The comparison of two scorers: exact where they are the same, forgiving among ties, strict elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from deshi.data.bundle import Bundle
from deshi.data.splits import Examples, LeaveOneOut
from deshi.models.scorers import Scorer
from deshi.serving.parity import Parity, compare_scorers
from deshi.types import Batch, DeshiError
from tiny_bundles import random_sequences, tiny_bundle

N_ITEMS, TOLERANCE = 30, 1e-3


class Fixed(Scorer):
    """Scores by a table with a row for each user."""

    def __init__(self, table: Tensor) -> None:
        self.n_items, self._table = table.shape[1], table

    def scores(self, batch: Batch) -> Tensor:
        return self._table[batch.users].clone()


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Bundle, Examples]:
    bundle = tiny_bundle(tmp_path, random_sequences(20, N_ITEMS, 4, 9), n_items=N_ITEMS)
    return bundle, LeaveOneOut()(bundle).examples(bundle, "test")


@pytest.fixture
def table() -> Tensor:
    """Scores that are whole numbers apart, so that only what a test moves can tie."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randperm(N_ITEMS, generator=generator).float() for _ in range(20)])


def compared(asked: tuple[Bundle, Examples], one: Tensor, other: Tensor) -> Parity:
    return compare_scorers(Fixed(one), Fixed(other), *asked, filter_seen=True, tolerance=TOLERANCE, batch_size=7)


def targets(asked: tuple[Bundle, Examples]) -> tuple[Tensor, Tensor]:
    bundle, examples = asked
    return torch.from_numpy(examples.users), torch.from_numpy(bundle.items[examples.target_rows].astype("int64"))


def test_the_same_scores_are_the_same_everywhere(asked: tuple[Bundle, Examples], table: Tensor) -> None:
    """Equality must be reported as such, or nobody could trust a report of none."""
    found = compared(asked, table, table)
    assert (found.examples, found.targets, found.ranks_equal, found.lists_equal) == (20, 20, 20, 20)
    assert found.holds and found.largest_score_difference == 0 and found.ndcg10_model == found.ndcg10_graph
    found.refuse("nothing")


def test_a_flip_among_near_ties_is_counted_and_forgiven(asked: tuple[Bundle, Examples], table: Tensor) -> None:
    """Rounding may exchange two items whose scores are alike: visible in the report, no reason to refuse."""
    users, items = targets(asked)
    rival = torch.tensor([next(i for i in range(N_ITEMS) if i not in asked[0].history(int(u))) for u in users])
    table[users, items] = 100.0
    table[users, rival] = 100.0 - 1e-4
    other = table.clone()
    other[users, rival] = 100.0 + 1e-4
    found = compared(asked, table, other)
    assert found.ranks_equal == 0 and found.largest_rank_difference == 1 and found.mean_rank_difference == 1
    assert found.ranks_beyond_ties == 0 and found.lists_beyond_ties == 0 and found.holds


def test_another_order_is_refused(asked: tuple[Bundle, Examples], table: Tensor) -> None:
    """A graph that ranks otherwise must never leave the export."""
    users, items = targets(asked)
    other = table.clone()
    other[users[0], items[0]] += 2.5
    table[users[0], items[0]] = 0.5
    found = compared(asked, table, other)
    assert found.ranks_equal == 19 and found.ranks_beyond_ties == 1 and not found.holds
    with pytest.raises(DeshiError, match="1 of 20 ranks.*parity.tolerance=0.001"):
        found.refuse("The graph")


def test_scores_that_differ_without_another_order_are_refused_too(
    asked: tuple[Bundle, Examples], table: Tensor
) -> None:
    """Equal ranks by luck don't make equal models."""
    found = compared(asked, table, table * 1.1)
    assert found.ranks_equal == 20 and found.lists_equal == 20 and not found.holds
    assert found.largest_score_difference == pytest.approx(2.9, rel=1e-4)


def test_examples_with_several_targets_are_counted_by_target(tmp_path: Path, table: Tensor) -> None:
    """Temporal splits ask for all items of the future; padding between their numbers must not count."""
    bundle = tiny_bundle(tmp_path, random_sequences(20, N_ITEMS, 6, 9), n_items=N_ITEMS)
    single = LeaveOneOut()(bundle).examples(bundle, "test")
    rows = torch.cat(
        [torch.tensor([end - 1, end]) if n % 2 else torch.tensor([end]) for n, end in enumerate(single.ends)]
    )
    counts = torch.tensor([2 if n % 2 else 1 for n in range(20)])
    offsets = torch.cat([torch.tensor([0]), counts.cumsum(0)])
    several = Examples(single.users, single.starts, single.ends - 1, offsets.numpy(), rows.numpy())
    found = compared((bundle, several), table, table)
    assert found.examples == 20 and found.targets == 30 and found.ranks_equal == 30 and found.holds

"""The full-ranking protocol: every example is ranked, whatever the batches, and the filter sees whole histories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from deshi.baselines import Popularity
from deshi.data.bundle import Bundle
from deshi.data.splits import LeaveOneOut, Ratio, Targets
from deshi.evaluation import evaluate_ranks, summarise
from deshi.models.sasrec import SASRec
from deshi.models.scorers import Scorer, SequentialScorer
from deshi.types import PAD, Batch, DeshiError
from tiny_bundles import random_sequences, tiny_bundle


class Fixed(Scorer):
    """Scores by a fixed table of users and items."""

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.n_items = table.shape[1]
        self.widths: list[int] = []

    def scores(self, batch: Batch) -> Tensor:
        self.widths.append(batch.items.shape[1])
        return self.table[batch.users]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path, [*random_sequences(23, 30, 2, 12), [5, 6, 7, 5]], n_items=30)


def table(bundle: Bundle, seed: int = 0) -> Tensor:
    return torch.randn(bundle.n_users, bundle.n_items, generator=torch.Generator().manual_seed(seed))


def test_every_example_is_ranked_by_the_definition(bundle: Bundle) -> None:
    """All users of the split, the last partial batch too, against a loop over one user at a time."""
    examples = LeaveOneOut()(bundle).examples(bundle, "test")
    scores = table(bundle)
    ranking = evaluate_ranks(Fixed(scores), bundle, examples, batch_size=7)
    assert ranking.ranks["user"].to_list() == [user for user in range(24) if len(bundle.history(user)) >= 3]
    for row in ranking.ranks.iter_rows(named=True):
        *history, target = bundle.history(row["user"]).tolist()
        candidates = set(range(30)) - set(history)
        user_scores = scores[row["user"]]
        assert row["target"] == target and row["item_id"] == f"i{target}" and row["user_id"] == f"u{row['user']}"
        above = sum(bool(user_scores[j] > user_scores[target]) for j in candidates)
        assert row["rank"] == (1 + above if target in candidates else np.inf)
        assert row["n_candidates"] == len(candidates)


def test_without_the_filter_everything_is_a_candidate(bundle: Bundle) -> None:
    """filter_seen=false leaves the user's own items in the list."""
    examples = LeaveOneOut()(bundle).examples(bundle, "test")
    ranking = evaluate_ranks(Fixed(table(bundle)), bundle, examples, filter_seen=False)
    assert ranking.ranks["n_candidates"].unique().to_list() == [30]
    user, target = ranking.ranks["user"].to_numpy(), ranking.ranks["target"].to_numpy()
    scores = table(bundle).numpy()
    assert ranking.ranks["rank"].to_list() == (1 + (scores[user] > scores[user, target][:, None]).sum(1)).tolist()


@pytest.mark.parametrize("targets", ["next", "all"])
def test_batch_size_changes_nothing(bundle: Bundle, targets: Targets) -> None:
    """Metrics are over examples, never averages of batches."""
    examples = Ratio(0.2, 0.4, targets=targets)(bundle).examples(bundle, "test")
    whole = evaluate_ranks(Fixed(table(bundle)), bundle, examples, batch_size=1000)
    for size in (1, 5):
        part = evaluate_ranks(Fixed(table(bundle)), bundle, examples, batch_size=size)
        assert part.ranks.equals(whole.ranks)
        assert np.array_equal(part.top_items, whole.top_items)


def test_several_targets_get_distinct_ranks(bundle: Bundle) -> None:
    """With all of a part's items as targets, each has a rank of its own, and only those seen before are misses."""
    examples = Ratio(0.2, 0.4, targets="all")(bundle).examples(bundle, "test")
    ranking = evaluate_ranks(Fixed(table(bundle)), bundle, examples)
    assert len(ranking.ranks) == len(examples.target_rows) > len(examples)
    seen = examples.seen_targets(bundle.items)
    assert ranking.ranks["rank"].is_infinite().to_list() == seen.tolist() and seen.any()
    assert ranking.ranks.filter(~seen).select("example", "rank").is_unique().all()
    recalled = ranking.ranks.group_by("example").agg(pl.col("rank").is_finite().mean())["rank"].mean()
    assert summarise(ranking.ranks, ranking.top_items, [30], 30)["recall@30"] == pytest.approx(recalled)


def test_the_filter_sees_what_the_student_does_not(tmp_path: Path) -> None:
    """A student reads its latest items only, but an item seen long ago is still no recommendation."""
    bundle = tiny_bundle(tmp_path, [[*range(8), 8, 9]], n_items=12)
    examples = LeaveOneOut()(bundle).examples(bundle, "test")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student = SASRec(n_items=12, dim=8, max_length=3)
    student.train()
    scorer = SequentialScorer(student)
    ranking = evaluate_ranks(scorer, bundle, examples)
    assert ranking.ranks["n_candidates"].to_list() == [3]
    assert sorted(ranking.top_items[0, :3].tolist()) == [9, 10, 11] and (ranking.top_items[0, 3:] == PAD).all()
    whole, latest = (
        Batch(*(torch.tensor(values) for values in ([0], [row], [len(row)], [[PAD] * len(row)], [[PAD] * len(row)])))
        for row in ([0, 1, 2, 3, 4, 5, 6, 7], [5, 6, 7])
    )
    assert torch.allclose(scorer.scores(whole), scorer.scores(latest))
    hidden = student.last_hidden(latest.items, latest.lengths)
    assert torch.allclose(scorer.scores(latest), hidden @ student.item_table().T)


def test_whole_histories_reach_the_scorer(bundle: Bundle) -> None:
    """Cutting is the scorer's business."""
    scorer = Fixed(table(bundle))
    examples = LeaveOneOut()(bundle).examples(bundle, "test")
    evaluate_ranks(scorer, bundle, examples)
    assert max(scorer.widths) == int((examples.ends - examples.starts).max())


def test_another_catalogue_is_refused(bundle: Bundle) -> None:
    """A scorer of another data set would be ranked on the wrong items."""
    examples = LeaveOneOut()(bundle).examples(bundle, "test")
    with pytest.raises(DeshiError, match="knows 7 items, the bundle tiny has 30"):
        evaluate_ranks(Fixed(torch.zeros(24, 7)), bundle, examples)


def test_popularity_by_hand(tmp_path: Path) -> None:
    """Popularity's rank of each test target, counted by hand; ties take the mean."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2, 3], [0, 2, 3, 1], [0, 1, 2]], n_items=5)
    split = LeaveOneOut()(bundle)
    baseline = Popularity().fit(bundle, *split.train_ranges(bundle))  # counts: 3, 1, 1, 0, 0
    ranking = evaluate_ranks(baseline, bundle, split.examples(bundle, "test"), top_k=2)
    assert ranking.ranks["rank"].to_list() == [1.5, 1.0, 1.0]
    assert ranking.ranks["n_candidates"].to_list() == [2, 2, 3]
    metrics = summarise(ranking.ranks, ranking.top_items, [1, 2], 5)
    assert metrics["hr@1"] == pytest.approx(2 / 3) and metrics["mrr@2"] == pytest.approx((1 / 1.5 + 1 + 1) / 3)
    assert metrics["n_examples"] == 3 and metrics["coverage@2"] == pytest.approx(4 / 5)

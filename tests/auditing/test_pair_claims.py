"""A figure that another tool printed is checked to its last digit, and a difference explained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from file_pairs import PairFrames, audit, good_pair, names_of

from deshi.auditing._pair_claims import read_claims
from deshi.types import DeshiError


def _ranks(frames: PairFrames, position: int = -1) -> np.ndarray:
    """The rank of each user's event at ``position``, infinite where the list lacks it."""
    items = {user[0]: part["item_id"].to_list() for user, part in frames.lists.group_by("user_id", maintain_order=True)}
    ranks = []
    for user, part in frames.events.group_by("user_id", maintain_order=True):
        listed, target = items.get(user[0], []), part["item_id"].to_list()[position]
        ranks.append(listed.index(target) + 1.0 if target in listed else np.inf)
    return np.array(ranks)


def _ndcg(ranks: np.ndarray, k: int = 10) -> np.ndarray:
    return np.where(ranks <= k, 1 / np.log2(1 + ranks), 0.0)


def _batch_means(values: np.ndarray, size: int) -> float:
    return float(np.mean([values[start : start + size].mean() for start in range(0, len(values), size)]))


def test_a_true_claim_passes_at_its_own_precision(tmp_path: Path) -> None:
    """0.40 says less than 0.4040, and both may be true."""
    frames = good_pair(0)
    value = float(_ndcg(_ranks(frames)).mean())
    hits = float((_ranks(frames) <= 5).mean())
    for digits in (2, 3, 5):
        claimed = f"ndcg@10={value:.{digits}f}, hr@5={hits:.{digits}f}"
        assert names_of(audit(tmp_path, frames.options_and(claimed=claimed)), "error") == set()


CLAIMS: list[tuple[str, Callable[[PairFrames], float], str, str]] = [
    ("ndcg@10", lambda frames: _batch_means(_ndcg(_ranks(frames)), 256), "averaged-by-batch", "batches of 256"),
    ("ndcg@10", lambda frames: float(_ndcg(_ranks(frames))[:256].mean()), "last-batch-dropped", "last batch of 256"),
    ("ndcg@10", lambda frames: float(_ndcg(_ranks(frames), 20).mean()), "claim-not-reproduced", "at K=20"),
    ("ndcg@10", lambda frames: float((_ranks(frames) <= 10).mean()), "claim-not-reproduced", "as hr@10"),
    ("ndcg@10", lambda frames: float(_ndcg(_ranks(frames, -2)).mean()), "claim-not-reproduced", "validation"),
    ("mrr@10", lambda frames: float((1 / _ranks(frames)).mean()), "claim-not-reproduced", "without a cut"),
    ("ndcg@10", lambda frames: 0.98765, "claim-not-reproduced", "No usual reading gives it"),
]


@pytest.mark.parametrize(("metric", "value", "expected", "words"), CLAIMS, ids=[claim[3] for claim in CLAIMS])
def test_a_wrong_claim_is_explained(
    metric: str, value: Callable[[PairFrames], float], expected: str, words: str, tmp_path: Path
) -> None:
    """Knowing how a figure came about ends the search that a bare difference starts."""
    frames = good_pair(2, seen_from_end=2)
    result = audit(tmp_path, frames.options_and(claimed=f"{metric}={value(frames):.6f}"))
    problem = next(problem for problem in result.findings if problem.name == expected)
    assert problem.severity == "error"
    assert words in problem.what
    assert metric in problem.where[0]


def test_ties_in_favour_and_left_out_users_are_recognised(tmp_path: Path) -> None:
    """The two commonest ways to a better figure."""
    frames = good_pair(0)
    tied = frames.but(lists=frames.lists.with_columns(pl.col("score").round() // 3))
    scores = {row[:2]: row[2] for row in tied.lists.rows()}
    lucky = [
        1.0 + sum(scores[user, other] > scores[user, target] for other in part["item_id"])
        if (user, target := targets[user]) in scores
        else np.inf
        for targets in [dict(frames.events.group_by("user_id").agg(pl.col("item_id").last()).rows())]
        for (user,), part in tied.lists.group_by("user_id", maintain_order=True)
    ]
    claimed = f"ndcg@10={_ndcg(np.array(lucky)).mean():.6f}"
    assert "ties-counted-as-hits" in names_of(audit(tmp_path, tied.options_and(claimed=claimed)), "error")
    fewer = frames.but(lists=frames.lists.filter(pl.col("user_id") % 7 != 0))
    inside = np.array([user % 7 != 0 for user in range(1, 301)])
    claimed = f"ndcg@10={_ndcg(_ranks(fewer))[inside].mean():.6f}"
    result = audit(tmp_path, fewer.options_and(claimed=claimed))
    assert any("users with predictions only" in problem.what for problem in result.findings)


@pytest.mark.parametrize("text", ["", "ndcg=0.1", "ndcg@10", "ndcg@0=0.1", "f1@10=0.1", "ndcg@10=11.7", "ndcg@10=x"])
def test_claims_of_another_form_are_refused(text: str) -> None:
    """A claim that was misread would be refuted wrongly."""
    with pytest.raises(DeshiError, match="claimed"):
        read_claims(text)


def test_claims_are_read_in_any_usual_writing() -> None:
    """They are copied from logs and tables."""
    first, second, third = read_claims("NDCG@10=0.117, Hit@5:0.2  recall@20=.5")
    assert (str(first), first.value, first.tolerance) == ("ndcg@10", 0.117, 0.0005)
    assert (str(second), second.value) == ("hr@5", 0.2)
    assert (str(third), third.tolerance) == ("recall@20", 0.05)

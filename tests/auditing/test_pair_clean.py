"""Clean pairs of files raise no error and no warning, whatever their form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from file_pairs import PairFrames, audit, frames_of, good, good_pair, make_world, names_of, popular, with_rank

LAST = pl.int_range(pl.len()).over("user_id") == pl.len().over("user_id") - 1


def _popular(seed: int, top: int | None) -> PairFrames:
    world = make_world(seed)
    return frames_of(world, popular(world, np.random.default_rng(seed)), top)


def _split_in_files() -> PairFrames:
    frames = good_pair(5)
    position, length = pl.int_range(pl.len()).over("user_id"), pl.len().over("user_id")
    return frames.but(test=frames.events.filter(LAST), train=frames.events.filter(position < length - 2))


def _targets_apart() -> PairFrames:
    frames = good_pair(6)
    return frames.but(events=frames.events.filter(~LAST), test=frames.events.filter(LAST))


def _shuffled() -> PairFrames:
    frames = good_pair(7)
    return frames.but(events=frames.events.sample(fraction=1, shuffle=True, seed=0))


def _without_times() -> PairFrames:
    frames = good_pair(8)
    return frames.but(events=frames.events.drop("timestamp"))


def _in_milliseconds() -> PairFrames:
    frames = good_pair(9)
    return frames.but(events=frames.events.with_columns(pl.col("timestamp") * 1000))


def _with_positions() -> PairFrames:
    frames = good_pair(10)
    return frames.but(events=frames.events.with_columns(timestamp=pl.int_range(pl.len()).over("user_id")))


def _text_ids() -> PairFrames:
    frames = good_pair(11)
    texts = [pl.format("u/{}", "user_id").alias("user_id"), pl.format("B00{}X", "item_id").alias("item_id")]
    return frames.but(events=frames.events.with_columns(texts), lists=frames.lists.with_columns(texts))


def _lists_shuffled() -> PairFrames:
    frames = good_pair(12)
    return frames.but(lists=frames.lists.sample(fraction=1, shuffle=True, seed=0))


def _repeat_consumption() -> PairFrames:
    world = make_world(13)
    world.histories[::4, -1] = world.histories[::4, 3]
    return frames_of(world, good(world, np.random.default_rng(0)), 50, None)


def _sequences_by_number() -> PairFrames:
    """Ids whose neighbours follow each other: shifts by one must not be seen where there are none."""
    world = make_world(14)
    follows, item = np.full(400, -1), 0
    for number in range(400):
        while follows[item] >= 0:
            item = (item + 1) % 400
        follows[item] = number
        item = int(world.after[item])
    world.item_ids[:] = follows + 1
    return frames_of(world, good(world, np.random.default_rng(0)))


CLEAN: dict[str, Callable[[], PairFrames]] = {
    **{f"good-{seed}": partial(good_pair, seed) for seed in range(6)},
    **{f"top-{top}": partial(good_pair, 20, top) for top in (1, 5, 10, 100, None)},
    "all items, none left out": lambda: good_pair(21, None, None),
    "small": lambda: good_pair(22, 20, users=40, items=80, length=6),
    "tiny": lambda: good_pair(23, 5, users=8, items=12, length=5),
    "many users": lambda: good_pair(24, 20, users=1024, items=300, length=8),
    "rank": lambda: with_rank(good_pair(25)),
    "rank and score": lambda: with_rank(good_pair(26), keep_score=True),
    "rank of all items": lambda: with_rank(good_pair(27, None)),
    **{f"popular-{seed}": partial(_popular, seed, 50) for seed in range(3)},
    "popular, all items": lambda: _popular(3, None),
    "popular, ten items": lambda: _popular(4, 10),
    "test and train files": _split_in_files,
    "targets apart": _targets_apart,
    "events shuffled": _shuffled,
    "no times": _without_times,
    "milliseconds": _in_milliseconds,
    "positions": _with_positions,
    "text ids": _text_ids,
    "lists shuffled": _lists_shuffled,
    "repeat consumption": _repeat_consumption,
    "neighbours follow": _sequences_by_number,
}


@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_clean_pair_raises_no_alarm(name: str, ending: str, tmp_path: Path) -> None:
    """An audit that cries wolf is switched off."""
    result = audit(tmp_path, CLEAN[name](), ending)
    assert names_of(result, "error", "warning") == set(), [one for one in result.findings if one.severity != "note"]


@pytest.mark.parametrize("top", [10, None])
def test_the_metrics_are_those_of_a_plain_loop(top: int | None, tmp_path: Path) -> None:
    """Figures that the audit holds against others' must be beyond doubt."""
    frames = good_pair(30, top, users=50)
    result = audit(tmp_path, frames)
    ranks = []
    for user, history in frames.events.group_by("user_id", maintain_order=True):
        items = frames.lists.filter(pl.col("user_id") == user[0])["item_id"].to_list()
        target = history["item_id"].to_list()[-1]
        ranks.append(items.index(target) + 1 if target in items else np.inf)
    array = np.array(ranks)
    assert result.metrics["hr@10"].mean == pytest.approx((array <= 10).mean())
    assert result.metrics["ndcg@10"].mean == pytest.approx(np.where(array <= 10, 1 / np.log2(1 + array), 0).mean())
    assert result.metrics["mrr@10"].mean == pytest.approx(np.where(array <= 10, 1 / array, 0).mean())
    interval = result.metrics["ndcg@10"]
    assert interval.low < interval.mean < interval.high


def test_ties_take_the_mean_rank_and_a_missing_list_is_a_miss(tmp_path: Path) -> None:
    """Both are where tools differ, in favour of the model."""
    events = pl.DataFrame({"user_id": [1] * 3 + [2] * 3, "item_id": [1, 2, 3, 2, 1, 4]})
    lists = pl.DataFrame({"user_id": [1, 1, 1], "item_id": [5, 3, 6], "score": [1.0, 1.0, 0.5]})
    metrics = audit(tmp_path, PairFrames(events, lists)).metrics
    assert metrics["mrr@1"].mean == 0
    assert "mrr@5" not in metrics
    lists = pl.DataFrame({"user_id": [1] * 5, "item_id": [5, 3, 6, 7, 8], "score": [1.0, 1.0, 0.5, 0.4, 0.3]})
    assert audit(tmp_path, PairFrames(events, lists)).metrics["mrr@5"].mean == pytest.approx(1 / 1.5 / 2)


def test_several_targets_a_user_are_one_example(tmp_path: Path) -> None:
    """Temporal splits ask for all items of a period."""
    events = pl.DataFrame({"user_id": [1, 1, 2, 2], "item_id": [1, 2, 2, 1]})
    test = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [3, 4, 5]})
    lists = pl.DataFrame(
        {"user_id": [1] * 5 + [2] * 5, "item_id": [3, 9, 4, 8, 7, 9, 8, 7, 6, 3], "rank": [1, 2, 3, 4, 5] * 2}
    )
    metrics = audit(tmp_path, PairFrames(events, lists, test)).metrics
    assert metrics["recall@5"].mean == pytest.approx(0.5)
    assert metrics["hr@5"].mean == pytest.approx(0.5)
    assert metrics["recall@1"].mean == pytest.approx(0.25)
    assert metrics["map@5"].mean == pytest.approx((1 + 2 / 3) / 2 / 2)

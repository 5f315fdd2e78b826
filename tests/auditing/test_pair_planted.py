"""Faults planted in a clean pair of files are found by name, and only users who have them are named."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from file_pairs import PairFrames, audit, events_of, frames_of, good, good_pair, make_world, names_of, with_rank

from deshi.auditing._finding import CHECKS

Planted = tuple[PairFrames, set[int] | None]
"""The faulty files, and the users who may be named (None: any)."""

LAST = pl.int_range(pl.len()).over("user_id") == pl.len().over("user_id") - 1
PLACE = pl.int_range(pl.len()).over("user_id")


def users_missing() -> Planted:
    """Predictions for every tenth user were lost."""
    frames = good_pair()
    lost = pl.col("user_id") % 10 == 3
    return frames.but(lists=frames.lists.filter(~lost)), set(range(3, 301, 10))


def last_batch_dropped() -> Planted:
    """The last 44 of 300 users are missing: batches of 256."""
    frames = good_pair()
    return frames.but(lists=frames.lists.filter(pl.col("user_id") <= 256)), set(range(257, 301))


def users_twice() -> Planted:
    """A distributed sampler has padded its last batch with the first users."""
    frames = good_pair()
    return frames.but(lists=pl.concat([frames.lists, frames.lists.filter(pl.col("user_id") <= 8)])), set(range(1, 9))


def items_twice() -> Planted:
    """Some lists name an item again."""
    frames = good_pair()
    again = frames.lists.filter((pl.col("user_id") % 7 == 0) & (PLACE < 3))
    return frames.but(lists=pl.concat([frames.lists, again])), set(range(7, 301, 7))


def users_unknown() -> Planted:
    """Predictions for users of another data set."""
    frames = good_pair()
    other = frames.lists.filter(pl.col("user_id") <= 5).with_columns(pl.col("user_id") + 9000)
    return frames.but(lists=pl.concat([frames.lists, other])), set(range(9001, 9006))


def items_unknown() -> Planted:
    """The padding index is on top of every list."""
    frames = good_pair()
    padding = frames.lists.filter(PLACE == 0).with_columns(item_id=pl.lit(0, pl.Int64), score=pl.lit(99.0))
    return frames.but(lists=pl.concat([padding, frames.lists])), None


def items_plus_one() -> Planted:
    """Item ids are too high by one."""
    frames = good_pair()
    return frames.but(lists=frames.lists.with_columns(pl.col("item_id") + 1)), None


def items_minus_one() -> Planted:
    """Item ids are too low by one."""
    frames = good_pair()
    return frames.but(lists=frames.lists.with_columns(pl.col("item_id") - 1)), None


def users_plus_one() -> Planted:
    """User ids are too high by one."""
    frames = good_pair()
    return frames.but(lists=frames.lists.with_columns(pl.col("user_id") + 1)), None


def named(frames: PairFrames) -> PairFrames:
    """Ids that aren't numbers."""
    code = pl.format("{}-{}", pl.col("item_id") * 7919 % 1009, pl.col("item_id"))
    user = pl.format("u{}", pl.col("user_id") * 7919 % 1009)
    renamed = [code.alias("item_id"), user.alias("user_id")]
    return frames.but(events=frames.events.with_columns(renamed), lists=frames.lists.with_columns(renamed))


def text_users_moved() -> Planted:
    """Lists have moved to the next user, and ids are no numbers."""
    frames = named(good_pair())
    order = frames.events["user_id"].unique(maintain_order=True).to_list()
    moved = dict(zip(order, order[1:] + order[:1], strict=True))
    return frames.but(lists=frames.lists.with_columns(pl.col("user_id").replace(moved))), None


def items_in_another_order() -> Planted:
    """Indices by first appearance were decoded with a sorted vocabulary."""
    frames = named(good_pair())
    appeared = frames.events["item_id"].unique(maintain_order=True).to_list()
    wrong = dict(zip(appeared, sorted(appeared), strict=True))
    return frames.but(lists=frames.lists.with_columns(pl.col("item_id").replace(wrong))), None


def indices_for_ids() -> Planted:
    """Indices of the model were exported instead of ids."""
    frames = good_pair()
    ids = sorted(frames.events["item_id"].unique().to_list())
    index = {item: number + 1 for number, item in enumerate(ids)}
    return frames.but(lists=frames.lists.with_columns(pl.col("item_id").replace(index))), None


def users_in_another_order() -> Planted:
    """User indices in alphabetical order were decoded as if by first appearance."""
    frames = named(good_pair())
    appeared = frames.events["user_id"].unique(maintain_order=True).to_list()
    wrong = dict(zip(sorted(appeared), appeared, strict=True))
    return frames.but(lists=frames.lists.with_columns(pl.col("user_id").replace(wrong))), None


def ids_with_point() -> Planted:
    """Pandas has made floats of the items."""
    frames = good_pair()
    return frames.but(lists=frames.lists.with_columns(pl.format("{}.0", "item_id").alias("item_id"))), None


def ids_with_blank() -> Planted:
    """Users carry a blank."""
    frames = good_pair()
    return frames.but(lists=frames.lists.with_columns(pl.format(" {}", "user_id").alias("user_id"))), None


def scores_nan() -> Planted:
    """The scores of some users are NaN."""
    frames = good_pair()
    broken = pl.when(pl.col("user_id") % 50 == 0).then(float("nan")).otherwise("score")
    return frames.but(lists=frames.lists.with_columns(score=broken)), set(range(50, 301, 50))


def scores_infinite() -> Planted:
    """Some scores have overflowed."""
    frames = good_pair()
    broken = pl.when((pl.col("user_id") % 50 == 0) & (PLACE < 9)).then(float("inf")).otherwise("score")
    return frames.but(lists=frames.lists.with_columns(score=broken)), set(range(50, 301, 50))


def scores_constant() -> Planted:
    """Every item has the same score."""
    frames = good_pair()
    return frames.but(lists=frames.lists.with_columns(score=pl.lit(1.0))), None


def scores_rounded() -> Planted:
    """Scores were written without decimals."""
    frames = good_pair()
    return frames.but(lists=frames.lists.with_columns(pl.col("score").round() // 3)), None


def scores_lower_better() -> Planted:
    """Distances were exported as scores."""
    frames = good_pair()
    return frames.but(lists=frames.lists.with_columns(-pl.col("score"))), None


def ranks_backwards() -> Planted:
    """Rank 1 is the worst item."""
    frames = with_rank(good_pair())
    return frames.but(lists=frames.lists.with_columns(rank=51 - pl.col("rank"))), None


def ranks_from_zero() -> Planted:
    """Ranks are positions of an array."""
    frames = with_rank(good_pair())
    return frames.but(lists=frames.lists.with_columns(pl.col("rank") - 1)), None


def rank_and_score_differ() -> Planted:
    """Ranks were made before the scores were corrected."""
    frames = with_rank(good_pair(), keep_score=True)
    other = pl.when(pl.col("user_id") % 3 == 0).then(51 - pl.col("rank")).otherwise("rank")
    return frames.but(lists=frames.lists.with_columns(rank=other)), set(range(3, 301, 3))


def seen_recommended() -> Planted:
    """A ranker that gives back what the user has had."""
    world = make_world()
    scores = good(world, np.random.default_rng(1))
    np.put_along_axis(scores, world.histories[:, :-1], 9.0, axis=1)
    return frames_of(world, scores + np.random.default_rng(2).random(scores.shape), 50, None), None


def target_filtered() -> Planted:
    """Seen items were taken from the whole history, the target among them."""
    return good_pair(seen_from_end=0), None


def target_filtered_of_full_list() -> Planted:
    """The same, and all other items are listed."""
    return good_pair(top=None, seen_from_end=0), None


def repeats_filtered() -> Planted:
    """Some targets were consumed before, and the filter removes them."""
    world = make_world()
    repeating = np.arange(0, 300, 3)
    world.histories[repeating, -1] = world.histories[repeating, 4]
    return frames_of(world, good(world, np.random.default_rng(1))), set((repeating + 1).tolist())


def candidate_sets(size: int = 20, without: int = 0, seed: int = 0) -> PairFrames:
    """Candidates drawn evenly, with the target except for the first ``without`` users."""
    world, random = make_world(seed), np.random.default_rng(seed)
    scores = good(world, random)
    for user, history in enumerate(world.histories):
        drawn = random.permutation(np.setdiff1d(np.arange(scores.shape[1]), history))[:size]
        if user >= without:
            drawn[0] = history[-1]
        out = np.setdiff1d(np.arange(scores.shape[1]), drawn)
        scores[user, out] = -np.inf
    return frames_of(world, scores, size, None)


def targets_not_candidates() -> Planted:
    """Ninety candidate sets lack the target."""
    return candidate_sets(without=90), set(range(1, 91))


def target_twice_among_candidates() -> Planted:
    """The target is among the negatives too."""
    frames = candidate_sets()
    target = frames.events.filter(LAST).filter(pl.col("user_id") % 5 == 0)
    again = frames.lists.join(target, on=["user_id", "item_id"], how="semi").with_columns(pl.col("score") - 0.01)
    return frames.but(lists=pl.concat([frames.lists, again])), set(range(5, 301, 5))


def predicts_validation() -> Planted:
    """The input ended one event early, and so did the filter."""
    world = make_world()
    return frames_of(world, good(world, np.random.default_rng(1), at=2), 50, 2), None


def predicts_third_last() -> Planted:
    """Two events early."""
    world = make_world()
    return frames_of(world, good(world, np.random.default_rng(1), at=3), 50, 3), None


def target_in_input() -> Planted:
    """The ranker knows the target."""
    world = make_world()
    scores = good(world, np.random.default_rng(1))
    scores[np.arange(300), world.histories[:, -1]] += 9
    return frames_of(world, scores), None


def random_lists() -> Planted:
    """Weights were never loaded."""
    world = make_world()
    return frames_of(world, np.random.default_rng(1).random((300, 400))), None


def worst_items_listed() -> Planted:
    """Lists were cut after a sort the wrong way round."""
    world = make_world()
    frames = frames_of(world, -good(world, np.random.default_rng(1)), 200, None)
    return frames.but(lists=frames.lists.with_columns(-pl.col("score")).reverse()), None


def one_list() -> Planted:
    """Everybody gets the same list."""
    frames = good_pair()
    first = frames.lists.filter(pl.col("user_id") == 1).drop("user_id")
    everyone = frames.lists.select("user_id").unique(maintain_order=True)
    return frames.but(lists=everyone.join(first, how="cross")), None


def units_mixed() -> Planted:
    """A later export wrote milliseconds."""
    frames = good_pair()
    rows = (pl.col("user_id") % 9 == 0) & (PLACE < 6)
    mixed = pl.when(rows).then(pl.col("timestamp") * 1000).otherwise("timestamp")
    return frames.but(events=frames.events.with_columns(timestamp=mixed)), set(range(9, 301, 9))


def fractional_units_mixed() -> Planted:
    """The same, with fractions of a second."""
    frames, users = units_mixed()
    return frames.but(events=frames.events.with_columns(pl.col("timestamp") + 0.5)), users


def file_order_used() -> Planted:
    """Events lie unsorted in the file, and the ranker took the last line for the newest event."""
    world = make_world()
    frames = frames_of(world, good(world, np.random.default_rng(1)))
    times = events_of(world)["timestamp"].to_numpy().reshape(300, 12).copy()
    times[:, 3], times[:, -1] = times[:, -1].copy(), times[:, 3].copy()
    return frames.but(events=frames.events.with_columns(pl.Series("timestamp", times.ravel()))), None


def events_twice() -> Planted:
    """Some users were appended twice."""
    frames = good_pair()
    return (
        frames.but(events=pl.concat([frames.events, frames.events.filter(pl.col("user_id") % 11 == 0)])),
        set(range(11, 301, 11)),
    )


def times_tied() -> Planted:
    """Whole sessions share a timestamp."""
    frames = good_pair()
    tied = pl.when(pl.col("user_id") % 2 == 0).then(pl.col("timestamp") // 86400 * 86400).otherwise("timestamp")
    return frames.but(events=frames.events.with_columns(timestamp=tied)), set(range(2, 301, 2))


def train_of(frames: PairFrames, leave: int) -> pl.DataFrame:
    """The training events: all but the last ``leave`` of each user."""
    return frames.events.filter(PLACE < pl.len().over("user_id") - leave)


def targets_in_train() -> Planted:
    """Some targets are trained on."""
    frames = good_pair()
    leaked = frames.events.filter(LAST & (pl.col("user_id") % 4 == 0))
    return frames.but(train=pl.concat([train_of(frames, 2), leaked])), set(range(4, 301, 4))


def validation_in_train() -> Planted:
    """The situation that this library's issue started from."""
    frames = good_pair()
    return frames.but(train=train_of(frames, 1)), None


def untrained_users() -> Planted:
    """Users whom the training file lacks."""
    frames = good_pair()
    return frames.but(train=train_of(frames, 2).filter(pl.col("user_id") % 6 != 0)), set(range(6, 301, 6))


def cold_targets() -> Planted:
    """Targets that nobody has had before."""
    frames = good_pair()
    cold = pl.when(LAST & (pl.col("user_id") % 3 == 0)).then(pl.col("user_id") + 50_000).otherwise("item_id")
    return frames.but(events=frames.events.with_columns(item_id=cold)), set(range(3, 301, 3))


def leaked_test_file() -> Planted:
    """A test file of its own whose events are trained on."""
    frames = good_pair()
    test = frames.events.filter(LAST)
    return frames.but(test=test, train=frames.events.filter((pl.col("user_id") % 4 == 0) | ~LAST)), set(
        range(4, 301, 4)
    )


PLANTED: list[tuple[Callable[[], Planted], str]] = [
    (users_missing, "user-not-evaluated"),
    (last_batch_dropped, "last-batch-dropped"),
    (users_twice, "user-evaluated-twice"),
    (items_twice, "predictions-repeated"),
    (users_unknown, "unknown-users"),
    (items_unknown, "unknown-items"),
    (items_plus_one, "items-shifted"),
    (items_minus_one, "items-shifted"),
    (users_plus_one, "users-shifted"),
    (text_users_moved, "users-shifted"),
    (items_in_another_order, "items-permuted"),
    (indices_for_ids, "items-permuted"),
    (users_in_another_order, "users-permuted"),
    (ids_with_point, "ids-written-differently"),
    (ids_with_blank, "ids-written-differently"),
    (scores_nan, "nan-scores"),
    (scores_infinite, "infinite-scores"),
    (scores_constant, "constant-scores"),
    (scores_rounded, "ties-around-target"),
    (scores_lower_better, "scores-reversed"),
    (ranks_backwards, "scores-reversed"),
    (ranks_from_zero, "ranks-not-from-one"),
    (rank_and_score_differ, "score-and-rank-disagree"),
    (seen_recommended, "seen-items-recommended"),
    (target_filtered, "target-filtered-out"),
    (target_filtered_of_full_list, "target-filtered-out"),
    (repeats_filtered, "target-filtered-out"),
    (lambda: (candidate_sets(), None), "sampled-candidates"),
    (lambda: (candidate_sets(100), None), "sampled-candidates"),
    (targets_not_candidates, "candidates-without-target"),
    (target_twice_among_candidates, "predictions-repeated"),
    (predicts_validation, "predicts-earlier-event"),
    (predicts_third_last, "predicts-earlier-event"),
    (target_in_input, "too-good"),
    (random_lists, "no-better-than-chance"),
    (worst_items_listed, "worse-than-chance"),
    (one_list, "same-list-for-all"),
    (units_mixed, "timestamps-mixed-units"),
    (fractional_units_mixed, "timestamps-mixed-units"),
    (file_order_used, "history-unsorted"),
    (events_twice, "events-repeated"),
    (times_tied, "order-of-targets-tied"),
    (targets_in_train, "test-target-trained-on"),
    (validation_in_train, "validation-target-trained-on"),
    (untrained_users, "users-not-trained"),
    (cold_targets, "cold-targets"),
    (leaked_test_file, "test-target-trained-on"),
]


@pytest.mark.parametrize(
    ("plant", "expected"), PLANTED, ids=[f"{number}-{name}" for number, (_, name) in enumerate(PLANTED)]
)
def test_a_planted_fault_is_found(plant: Callable[[], Planted], expected: str, tmp_path: Path) -> None:
    """A fault that the audit overlooks is what it exists to prevent; naming the innocent would cost all trust."""
    frames, affected = plant()
    result = audit(tmp_path, frames)
    assert expected in names_of(result)
    problem = next(problem for problem in result.findings if problem.name == expected)
    assert 1 <= len(problem.where) <= 5
    assert re.search(r"\d", problem.effect) and problem.fix
    users = [int(name) for text in problem.where for name in re.findall(r"user (\d+)", text)]
    assert affected is None or (users and set(users) <= affected), problem.where


@pytest.mark.parametrize(
    "plant",
    [items_plus_one, users_plus_one, indices_for_ids, scores_lower_better, predicts_validation, target_in_input,
     target_filtered, units_mixed, ids_with_point],
)  # fmt: skip
def test_one_fault_is_one_error(plant: Callable[[], Planted], tmp_path: Path) -> None:
    """A cascade of follow-up errors would hide the cause."""
    assert len(names_of(audit(tmp_path, plant()[0]), "error")) == 1


def test_the_lines_of_a_finding_are_those_of_the_file(tmp_path: Path) -> None:
    """A line that doesn't hold what the finding says sends the reader astray."""
    frames, _ = scores_nan()
    problem = next(problem for problem in audit(tmp_path, frames).findings if problem.name == "nan-scores")
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    for text in problem.where:
        match = re.fullmatch(r"user (\d+), item (\d+), predictions\.csv line (\d+)", text)
        assert match is not None
        user, item, line = match.groups()
        assert lines[int(line) - 1] == f"{user},{item},NaN"


def test_the_page_lists_every_finding_of_files() -> None:
    """A finding without an explanation, or one that is planted in no test, is half done."""
    root = Path(__file__).parents[2]
    page = (root / "docs" / "audit-files.md").read_text(encoding="utf-8").partition("## Findings")[2]
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.M))
    sources = "".join(path.read_text(encoding="utf-8") for path in (root / "src/deshi/auditing").glob("_pair*.py"))
    for name in ("permuted", "shifted"):
        sources = sources.replace(f"{{kind}}s-{name}", f'"items-{name}" "users-{name}"')
    reported = {name for name in CHECKS if f'"{name}"' in sources}
    assert listed == reported
    claimed = {"ties-counted-as-hits", "averaged-by-batch", "claim-not-reproduced", "malformed-rows"}
    assert {expected for _, expected in PLANTED} | claimed == reported

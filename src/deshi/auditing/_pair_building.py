"""From the rows of a pair of files to users, items, histories, targets and ranked lists."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from deshi.arrays import Bools, Ints, offsets_of
from deshi.auditing._pair_data import Pair, sorted_events
from deshi.auditing._pair_files import Table
from deshi.auditing._ranked_lists import RankedLists
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples
from deshi.data.vocabulary import Events, number_ids
from deshi.types import TIMESTAMP, DeshiError

_PLACE = pl.int_range(pl.len()).over("user")
_COUNT = pl.len().over("user")


def build_pair(
    tables: Mapping[str, Table], frames: Mapping[str, pl.DataFrame], higher_is_better: bool, ks: tuple[int, ...]
) -> Pair:
    """Number users and items, sort histories and lists, and choose the targets.

    Args:
        tables: the files by the names of the settings: ``interactions``, ``predictions``, ``test``, ``train``.
        frames: their rows, with ids in one writing and times in one unit.
        higher_is_better: whether a greater score means a better item.
        ks: list lengths; those longer than the longest list are left out.

    Raises:
        DeshiError: if no user has a target, or no list is for a user with one.
    """
    numbered, users, items = _numbered(frames)
    predictions, scored = _oriented(numbered["predictions"], higher_is_better)
    lists = RankedLists.of(predictions, len(users), len(items))
    if "test" in numbered:
        events = _held_out(numbered["interactions"], numbered["test"])
    else:
        events = _leave_one_out(numbered["interactions"], lists.lengths)
    bundle = Bundle.in_memory("interactions", Events(users, items, events), "position")
    examples = _examples(bundle, events["is_target"].to_numpy())
    _check_examples(tables, frames, users, lists, examples)
    longest = int(lists.lengths[examples.users].max())
    n_users, n_items = (frames["interactions"][role].n_unique() for role in ("user", "item"))
    return Pair(
        bundle, events["line"].to_numpy(), examples, lists, numbered["interactions"], predictions, scored,
        numbered.get("train"), n_users, n_items, tables, tuple(k for k in ks if k <= longest) or (longest,),
    )  # fmt: skip


def _numbered(frames: Mapping[str, pl.DataFrame]) -> tuple[dict[str, pl.DataFrame], pl.Series, pl.Series]:
    """The frames with numbers in the place of ids, and the ids; those of the interactions have the first numbers."""
    keys = sorted(frames, key=lambda key: key != "interactions")
    rows = pl.concat([frames[key].select("user", "item") for key in keys])
    users, user_codes = number_ids(rows["user"])
    items, item_codes = number_ids(rows["item"])
    codes = pl.DataFrame({"user": user_codes, "item": item_codes}).cast(pl.Int64)
    numbered, begin = {}, 0
    for key in keys:
        numbered[key] = frames[key].with_columns(codes[begin : begin + frames[key].height])
        begin += frames[key].height
    return numbered, users, items


def _oriented(predictions: pl.DataFrame, higher_is_better: bool) -> tuple[pl.DataFrame, bool]:
    """Predictions whose higher scores are better, and whether the scores are the file's own, not made from ranks."""
    scored = "score" in predictions.columns
    score = pl.col("score") * (1.0 if higher_is_better else -1.0) if scored else -pl.col("rank")
    return predictions.with_columns(score.alias("score")), scored


def _leave_one_out(events: pl.DataFrame, list_lengths: Ints) -> pl.DataFrame:
    """The last event of each user with three events is the target, or with two if such users have predictions."""
    counts = np.bincount(events["user"].to_numpy(), minlength=len(list_lengths))
    shortest = 2 if ((counts == 2) & (list_lengths > 0)).any() else 3
    is_target = (_PLACE == _COUNT - 1) & (_COUNT >= shortest)
    moment = pl.col("time").rank("dense") if "time" in events.columns else _PLACE
    return sorted_events(events).with_columns(is_target.alias("is_target"), moment.cast(pl.Int64).alias(TIMESTAMP))


def _held_out(events: pl.DataFrame, test: pl.DataFrame) -> pl.DataFrame:
    """The rows of a file are the targets; where they stand at a history's end, or at the same time, they leave it."""
    targets = test.unique(["user", "item"], keep="first", maintain_order=True)
    history = (
        sorted_events(events)
        .join(targets.select("user", "item", target=True), on=["user", "item"], how="left", maintain_order="left")
        .join(targets.group_by("user").len("n_targets"), on="user", how="left", maintain_order="left")
    )
    is_test_event = pl.col("target").is_not_null() & (_COUNT - 1 - _PLACE < pl.col("n_targets"))
    if "time" in events.columns and "time" in test.columns:
        moments = test.select("user", "item", pl.col("time").cast(pl.Float64), at_once=True).unique()
        history = history.with_columns(pl.col("time").cast(pl.Float64))
        history = history.join(moments, on=["user", "item", "time"], how="left", maintain_order="left")
        is_test_event |= pl.col("at_once").is_not_null()
    kept = history.with_columns(is_test_event.fill_null(False).alias("is_target")).filter(~pl.col("is_target"))
    columns = ("user", "item", "line", "is_target")
    both = pl.concat([kept.select(columns), targets.with_columns(is_target=True).select(columns)])
    return both.sort("user", "is_target", maintain_order=True).with_columns(_PLACE.alias(TIMESTAMP))


def _examples(bundle: Bundle, is_target: Bools) -> Examples:
    """An example for each user with targets, which stand at the end of the user's events."""
    rows = np.flatnonzero(is_target)
    owners = np.searchsorted(bundle.offsets, rows, side="right") - 1
    users, counts = np.unique(owners, return_counts=True)
    offsets = offsets_of(counts)
    return Examples(users, bundle.offsets[users], rows[offsets[:-1]], offsets, rows)


def _check_examples(
    tables: Mapping[str, Table], frames: Mapping[str, pl.DataFrame], users: pl.Series, lists: RankedLists,
    examples: Examples,
) -> None:  # fmt: skip
    if not len(examples):
        raise DeshiError(
            f"No user of {tables['interactions'].path} has a target, expected users with at least two events. "
            f"Check the column of user ids, or give the targets: test=FILE."
        )
    if not lists.lengths[examples.users].any():
        listed = ", ".join(repr(name) for name in frames["predictions"]["user"].unique(maintain_order=True).head(3))
        raise DeshiError(
            f"None of the {len(examples):,} users with a target has predictions: {tables['predictions'].path} has "
            f"users such as {listed}, the targets are of "
            f"{', '.join(repr(users[int(user)]) for user in examples.users[:3])}. Check that the files belong together."
        )

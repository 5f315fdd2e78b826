"""Slices: who is in which group, and that no example is lost between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deshi.baselines import Popularity, training_events
from deshi.data.splits import LeaveOneOut, Ratio
from deshi.evaluation import LENGTH, POPULARITY, evaluate_ranks, length_groups, popularity_groups, slice_frame
from tiny_bundles import random_sequences, tiny_bundle


def test_head_torso_tail_by_hand() -> None:
    """Of 100 events the head's 30 are more than 20, the tail's 8 + 6 + 6 are exactly 20; no event is cold."""
    counts = np.array([6, 30, 25, 0, 8, 25, 6])
    assert popularity_groups(counts).tolist() == ["tail", "head", "torso", "cold", "tail", "torso", "tail"]


def test_equally_popular_items_are_all_head() -> None:
    """The fewest most popular items that hold a fifth can't be told apart here, so all of them are."""
    assert set(popularity_groups(np.full(5, 3))) == {"head"}
    assert set(popularity_groups(np.zeros(5, dtype=np.int64))) == {"cold"}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_groups_follow_popularity(counts: list[int]) -> None:
    """A more popular item is never in a lower group, equals are together, and the tail stays within its share."""
    array = np.array(counts)
    groups = popularity_groups(array)
    level = np.array([["cold", "tail", "torso", "head"].index(group) for group in groups])
    order = np.argsort(array, kind="stable")
    assert (np.diff(level[order]) >= 0).all()
    assert len(set(zip(counts, groups.tolist(), strict=True))) == len(set(counts))
    assert array[groups == "tail"].sum() <= 0.2 * array.sum() + 1e-9
    if array.sum():
        assert array[groups == "head"].sum() >= 0.2 * array.sum() - 1e-9


def test_terciles_of_histories() -> None:
    """The label says which lengths are meant; equal lengths are never torn apart."""
    groups = length_groups(np.array([1, 2, 3, 4, 5, 9]))
    assert groups.tolist() == ["short (1-2)"] * 2 + ["medium (3-4)"] * 2 + ["long (5-9)"] * 2
    assert length_groups(np.array([4, 4, 4, 4])).tolist() == ["short (4-4)"] * 4
    assert len(length_groups(np.zeros(0, dtype=np.int64))) == 0


@pytest.mark.parametrize("targets", ["next", "all"])
def test_slices_add_up(tmp_path: Path, targets: str) -> None:
    """With one target an example, the weighted mean over slices is the figure over all; empty slices have no row."""
    bundle = tiny_bundle(tmp_path, random_sequences(40, 12, 4, 11), n_items=13)
    split = LeaveOneOut() if targets == "next" else Ratio(0.2, 0.4, targets="all")
    parts = split(bundle)
    ranges = parts.train_ranges(bundle)
    counts, examples = training_events(bundle, *ranges).counts(), parts.examples(bundle, "test")
    ranking = evaluate_ranks(Popularity().fit(bundle, *ranges), bundle, examples)
    frame = slice_frame(ranking.ranks, examples, counts, [1, 5])
    assert frame.columns[:3] == ["slice", "value", "n_examples"] and min(frame["n_examples"]) > 0
    assert "cold" not in frame["value"] and not frame.null_count().sum_horizontal().item()
    whole = float((ranking.ranks["rank"] <= 5).to_numpy().mean())
    for name in (POPULARITY, LENGTH):
        rows = frame.filter(pl.col("slice") == name)
        assert rows["n_examples"].sum() >= len(examples) and rows.height > 1
        if targets == "next":
            assert rows["n_examples"].sum() == len(examples)
            assert np.average(rows["recall@5"], weights=rows["n_examples"]) == pytest.approx(whole)


def test_popularity_slices_look_at_their_own_targets(tmp_path: Path) -> None:
    """An example with a popular and a cold target is in both slices, each with its own recall."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2, 3], [0, 1, 2], [0, 1]], n_items=4)
    examples = Ratio(0.25, 0.5, targets="all")(bundle).examples(bundle, "test")
    counts = np.array([3, 2, 1, 0])
    ranks = pl.DataFrame({"example": [0, 0], "target": [2, 3], "rank": [1.0, 4.0]})
    frame = slice_frame(ranks, examples, counts, [1]).filter(pl.col("slice") == POPULARITY)
    assert frame.select("value", "n_examples", "recall@1").rows() == [("tail", 1, 1.0), ("cold", 1, 0.0)]

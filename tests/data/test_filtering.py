"""Filters on hand-made interactions: what stays, and what the report says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deshi.data.filtering import apply_filters, core
from deshi.data.vocabulary import Events, compact, encode_events
from deshi.types import DeshiError


def interactions(*rows: tuple[object, ...]) -> pl.DataFrame:
    """A frame of ``(user, item, timestamp[, rating])`` rows."""
    columns = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float32}
    return pl.DataFrame(rows, schema=dict(list(columns.items())[: len(rows[0])]), orient="row")


def kept(events: Events) -> list[tuple[str, str, int]]:
    """The rows as ``(user id, item id, timestamp)``."""
    users, items = (
        ids.gather(events.frame[column]) for ids, column in ((events.user_ids, "user"), (events.item_ids, "item"))
    )
    return list(zip(users, items, events.frame["timestamp"], strict=True))


def copy_of(events: Events) -> Events:
    """Events whose filters leave ``events`` as they are."""
    return replace(events, frame=events.frame.clone())


def test_equal_timestamps_keep_the_order_of_the_file() -> None:
    """The tie rule: stable by original order, also when users are interleaved."""
    rows = [("u", "c", 5), ("v", "z", 5), ("u", "a", 5), ("u", "b", 1), ("v", "y", 5), ("u", "d", 5)]
    events = encode_events(interactions(*rows))
    assert kept(events) == [("u", "b", 1), ("u", "c", 5), ("u", "a", 5), ("u", "d", 5), ("v", "z", 5), ("v", "y", 5)]


@pytest.mark.parametrize("far", [10, 2**62])
def test_order_holds_for_any_span_of_time(far: int) -> None:
    """Times too far apart to be packed with the user into one sort key are sorted by both, as stably."""
    rows = [("u", "a", far), ("v", "b", -far), ("u", "c", -far), ("v", "d", 0), ("u", "e", far), ("v", "f", -far)]
    events = encode_events(interactions(*rows))
    assert [item for _, item, _ in kept(events)] == ["c", "a", "e", "b", "f", "d"]


def test_rating_threshold_removes_lower_and_missing_ratings() -> None:
    """A threshold keeps ratings at it, and an unknown rating doesn't reach it."""
    events = encode_events(
        interactions(("u", "a", 1, 4.0), ("u", "b", 2, 3.9), ("u", "c", 3, None), ("v", "a", 1, 5.0))
    )
    events, steps = apply_filters(events, min_rating=4)
    assert kept(events) == [("u", "a", 1), ("v", "a", 1)]
    step = steps[-1]
    assert step.name == "rating >= 4"
    assert (step.removed_interactions, step.removed_users, step.removed_items) == (2, 0, 2)
    assert (step.interactions, step.users, step.items) == (2, 2, 1)


def test_rating_threshold_without_ratings_is_an_error() -> None:
    """Silently keeping everything would be another data set."""
    with pytest.raises(DeshiError, match="has no ratings"):
        apply_filters(encode_events(interactions(("u", "a", 1))), min_rating=3)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("keep", [("u", "a", 1), ("u", "b", 2), ("u", "a", 3), ("v", "a", 9)]),
        ("first", [("u", "a", 1), ("u", "b", 2), ("v", "a", 9)]),
        ("last", [("u", "b", 2), ("u", "a", 3), ("v", "a", 9)]),
    ],
)
def test_duplicate_policies_follow_time_not_file_order(policy: str, expected: list[tuple[str, str, int]]) -> None:
    """First and last mean in time, and another user's event with the item is no duplicate."""
    events = encode_events(interactions(("u", "a", 3), ("v", "a", 9), ("u", "b", 2), ("u", "a", 1)))
    assert kept(apply_filters(events, duplicates=policy)[0]) == expected


def test_duplicates_error_names_the_pair() -> None:
    """The message must show where to look."""
    events = encode_events(interactions(("u", "a", 3), ("u", "b", 2), ("u", "a", 1)))
    with pytest.raises(DeshiError, match="1 interactions repeat.*user 'u' and item 'a'"):
        apply_filters(copy_of(events), duplicates="error")
    assert apply_filters(encode_events(interactions(("u", "a", 3))), duplicates="error")[0].frame.height == 1
    with pytest.raises(DeshiError, match="keep, exact, first, last, error"):
        apply_filters(events, duplicates="newest")


def test_k_core_runs_to_a_fixed_point_and_one_pass_does_not() -> None:
    """Removing the rare item makes a user too short, which makes the next item rare: a chain of three rounds."""
    rows = [("u", "rare", 1), ("u", "a", 2), ("v", "a", 1), ("v", "b", 2), ("w", "b", 1), ("w", "c", 2)]
    rows += [("x", "b", 1), ("x", "c", 2), ("y", "b", 1), ("y", "c", 2)]
    events = encode_events(interactions(*rows))
    once, _ = apply_filters(copy_of(events), min_user_interactions=2, min_item_interactions=2, k_core=False)
    assert kept(once) == [("v", "a", 1), ("v", "b", 2), *rows_of("wxy")]
    fixed, steps = apply_filters(events, min_user_interactions=2, min_item_interactions=2)
    assert kept(fixed) == rows_of("wxy")
    assert (steps[-1].removed_interactions, steps[-1].removed_users, steps[-1].removed_items) == (4, 2, 2)


def rows_of(users: str) -> list[tuple[str, str, int]]:
    return [row for user in users for row in ((user, "b", 1), (user, "c", 2))]


def test_minimum_history_keeps_the_core() -> None:
    """Removing short histories may make an item rare again: with k_core both rules hold in the end."""
    rows = [
        ("u", "a", 1),
        ("u", "b", 2),
        ("u", "c", 3),
        ("v", "a", 1),
        ("v", "b", 2),
        ("v", "c", 3),
        ("w", "d", 1),
        ("w", "a", 2),
    ]
    rows += [("x", "d", 1), ("x", "b", 2), ("x", "c", 3)]
    events = encode_events(interactions(*rows))
    filtered, steps = apply_filters(copy_of(events), min_item_interactions=2, min_history=3)
    assert {user for user, _, _ in kept(filtered)} == {"u", "v"}
    assert [step.name for step in steps] == ["source", "k-core (user >= 0, item >= 2)", "history >= 3"]
    loose, _ = apply_filters(events, min_item_interactions=2, min_history=3, k_core=False)
    assert {user for user, _, _ in kept(loose)} == {"u", "v", "x"}


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60),
    min_user=st.integers(0, 4),
    min_item=st.integers(0, 4),
)
def test_core_is_the_largest_set_that_satisfies_both_minima(
    pairs: list[tuple[int, int]], min_user: int, min_item: int
) -> None:
    """Fixed point reached, and nothing removed that a slow reference keeps."""
    users, items = (np.array([pair[side] for pair in pairs], dtype=np.int32) for side in (0, 1))
    rows = set(range(len(pairs)))
    while True:
        users_left = Counter(pairs[row][0] for row in rows)
        items_left = Counter(pairs[row][1] for row in rows)
        bad = {row for row in rows if users_left[pairs[row][0]] < min_user or items_left[pairs[row][1]] < min_item}
        if not bad:
            break
        rows -= bad
    assert np.flatnonzero(core(users, items, min_user, min_item, repeat=True)).tolist() == sorted(rows)


def test_item_order_follows_neither_id_nor_time() -> None:
    """Public files are sorted by item id inside a day: an index that follows the id would leak the order."""
    names = [f"B{number:03d}" for number in range(200)]
    forward = interactions(*[("u", name, place) for place, name in enumerate(names)])
    backward = compact(encode_events(forward.reverse()))
    events = compact(encode_events(forward))
    assert events.item_ids.to_list() == backward.item_ids.to_list()
    ranks = np.argsort(np.argsort(events.item_ids.to_list()))
    assert abs(np.corrcoef(ranks, np.arange(200))[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("u", None, 1), ("u", "a", 2)], "null item_id"),
        ([(None, "a", 1), ("u", "a", 2)], "null user_id"),
        ([("u", " ", 1)], "empty item_id"),
        ([("u", "a", 1), ("u", "a ", 2)], "'a' and 'a '.*surrounding spaces"),
        ([("u", "a", None), ("u", "b", 2)], "1 of 2 interactions have no timestamp"),
    ],
)
def test_unusable_ids_and_times_are_refused(rows: list[tuple[object, ...]], message: str) -> None:
    """An id that can't be told apart, or an event that can't be ordered, would corrupt histories silently."""
    with pytest.raises(DeshiError, match=message):
        encode_events(interactions(*rows))


def test_exact_duplicates_are_the_same_event() -> None:
    """An event that was logged twice is dropped; a repeat at another time is kept."""
    events = encode_events(interactions(("u", "a", 1), ("u", "a", 1), ("u", "a", 2), ("v", "a", 1)))
    left, steps = apply_filters(events, duplicates="exact")
    assert left.frame.height == 3 and steps[1].removed_interactions == 1


def test_keep_of_another_column() -> None:
    """Views and purchases of one log: the filter counts what it removes, and typos name what there is."""
    frame = interactions(("u", "a", 1), ("u", "b", 2), ("v", "a", 1), ("v", "b", 2))
    events = encode_events(frame.with_columns(pl.Series("filter:event", ["buy", "view", None, "1"])))
    left, steps = apply_filters(copy_of(events), keep={"event": ["buy", 1]})
    assert steps[1].name == "event in [buy, 1]" and steps[1].removed_interactions == 2
    assert "filter:event" not in left.frame.columns
    assert apply_filters(copy_of(events), keep={"event": [None]})[0].frame.height == 1
    with pytest.raises(DeshiError, match=r"keep.event names bought, which no row has; .*view \(1\)"):
        apply_filters(events, keep={"event": ["bought"]})
    with pytest.raises(DeshiError, match="'kind', which this source doesn't read"):
        apply_filters(events, keep={"kind": ["x"]})

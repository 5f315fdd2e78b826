"""Splits, item by item: which event is a training, validation or test target, and what precedes it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deshi.data.bundle import Bundle
from deshi.data.splits import Examples, LeakWarning, LeaveOneOut, Ratio, Split, Targets, Temporal
from deshi.types import DeshiError
from tiny_bundles import tiny_bundle

DAY = 86_400_000


def training_targets(bundle: Bundle, split: Split, **options: str) -> list[list[tuple[list[int], int]]]:
    """Each user's training targets as ``(history before it, target)``, by item index."""
    starts, ends = split.train_ranges(bundle, **options)
    items = bundle.items.tolist()
    return [
        [(items[start:row], items[row]) for row in range(start + 1, end)]
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]


def asked(bundle: Bundle, split: Split, part: str) -> dict[int, tuple[list[int], list[int]]]:
    """Every example as ``user: (history, targets)``, by item index."""
    examples = split.examples(bundle, part)
    items = bundle.items.tolist()
    return {
        int(user): (
            items[examples.starts[example] : examples.ends[example]],
            [
                items[row]
                for row in examples.target_rows[examples.target_offsets[example] : examples.target_offsets[example + 1]]
            ],
        )
        for example, user in enumerate(examples.users)
    }


def test_leave_one_out_item_by_item(tmp_path: Path) -> None:
    """The default protocol: last = test, last but one = validation, everything else = training."""
    bundle = tiny_bundle(tmp_path, [[10, 11, 12, 13, 14], [3, 2, 1], [5, 6], [7]])
    split = LeaveOneOut()(bundle)
    assert training_targets(bundle, split) == [[([10], 11), ([10, 11], 12)], [], [([5], 6)], []]
    assert asked(bundle, split, "validation") == {0: ([10, 11, 12], [13]), 1: ([3], [2])}
    assert asked(bundle, split, "test") == {0: ([10, 11, 12, 13], [14]), 1: ([3, 2], [1])}


def test_leave_one_out_describes_what_came_of_it(tmp_path: Path) -> None:
    """The description goes into the protocol's fingerprint and tells how many users aren't asked."""
    split = LeaveOneOut()(tiny_bundle(tmp_path, [[0, 1, 2, 3], [1, 2], [3]]))
    assert split.description == {
        "name": "leave_one_out",
        "targets": "next",
        "events": {"train": 5, "validation": 1, "test": 1},
        "examples": {"validation": 1, "test": 1},
        "users_without_history": {"validation": 0, "test": 0},
    }


def test_including_validation_is_a_named_leak(tmp_path: Path) -> None:
    """The widened range trains on the validation target, never on the test target, and says LEAK."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2, 3]])
    split = LeaveOneOut()(bundle)
    with pytest.warns(LeakWarning, match="LEAK"):
        targets = training_targets(bundle, split, train_targets="including_validation")
    assert targets == [[([0], 1), ([0, 1], 2)]]
    with pytest.raises(DeshiError, match="expected one of train, without_last, including_validation"):
        split.train_ranges(bundle, "everything")


def test_a_range_that_stops_one_target_short_can_be_reproduced(tmp_path: Path) -> None:
    """Every user loses the last training target, and a history of one event can't become shorter than empty."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2, 3, 4], [1]])
    split = LeaveOneOut()(bundle)
    assert training_targets(bundle, split) == [[([0], 1), ([0, 1], 2)], []]
    assert training_targets(bundle, split, train_targets="without_last") == [[([0], 1)], []]


def test_refit_ranges_are_the_honest_way_and_silent(tmp_path: Path) -> None:
    """The refit may use validation events, after the selection is done: no leak, no warning."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2, 3], [1, 2]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        starts, ends = LeaveOneOut()(bundle).refit_ranges(bundle)
    assert starts.tolist() == [0, 4] and ends.tolist() == [3, 6]


SEQUENCES = [[0, 1, 2, 3, 4, 5], [1, 2], [6, 7], [8, 0, 8, 8], [9]]
DAYS = [[0, 9, 10, 11, 20, 25], [3, 20], [10, 20], [1, 20, 21, 22], [30]]


def temporal_bundle(tmp_path: Path) -> Bundle:
    times = [[day * DAY for day in row] for row in DAYS]
    return tiny_bundle(tmp_path, SEQUENCES, timestamps=times, n_items=10)


def test_temporal_next_item_by_item(tmp_path: Path) -> None:
    """Train before t1, validate until before t2, then test; an event on a boundary belongs to the later part."""
    bundle = temporal_bundle(tmp_path)
    split = Temporal(validation_start="1970-01-11", test_start="1970-01-21")(bundle)
    assert training_targets(bundle, split) == [[([0], 1)], [], [], [], []]
    assert asked(bundle, split, "validation") == {0: ([0, 1], [2])}
    assert asked(bundle, split, "test") == {
        0: ([0, 1, 2, 3], [4]),
        1: ([1], [2]),
        2: ([6], [7]),
        3: ([8], [0]),
    }
    assert split.description["users_without_history"] == {"validation": 1, "test": 1}
    assert split.description["validation_start_ms"] == 10 * DAY


def test_temporal_all_targets_freeze_the_history_and_are_distinct(tmp_path: Path) -> None:
    """With `all`, the history stops where the part starts, and an item that comes twice is one target."""
    bundle = temporal_bundle(tmp_path)
    split = Temporal(validation_start=10 * DAY, test_start=20 * DAY, targets="all")(bundle)
    assert asked(bundle, split, "validation") == {0: ([0, 1], [2, 3])}
    assert asked(bundle, split, "test") == {
        0: ([0, 1, 2, 3], [4, 5]),
        1: ([1], [2]),
        2: ([6], [7]),
        3: ([8], [0, 8]),
    }


def test_temporal_dates_win_over_shares(tmp_path: Path) -> None:
    """The shipped preset holds shares; dates that are given beside them decide."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2, 3], [1, 2, 0, 3]])
    by_dates = Temporal(validation_start=2000, test_start=3000)(bundle)
    both = Temporal(validation_start=2000, test_start=3000, validation_share=0.1, test_share=0.1)(bundle)
    assert both.train_end.tolist() == by_dates.train_end.tolist() == [2, 6]


def test_temporal_shares(tmp_path: Path) -> None:
    """Shares choose the moments by quantiles of all events; ties at a moment stay together in the later part."""
    bundle = tiny_bundle(
        tmp_path, [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], timestamps=[[0, 1, 2, 3, 4], [5, 6, 7, 8, 8]], n_items=10
    )
    split = Temporal(validation_share=0.2, test_share=0.1)(bundle)
    assert split.description["validation_start_ms"] == 7
    assert split.description["test_start_ms"] == 8
    assert split.description["events"] == {"train": 7, "validation": 1, "test": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs either"),
        ({"validation_start": 1}, "needs either"),
        ({"validation_start": 1, "test_share": 0.1}, "needs either"),
        ({"validation_share": 0.6, "test_share": 0.5}, "sum below 1"),
        ({"validation_start": 1, "test_start": 2, "targets": "some"}, "next, all"),
    ],
)
def test_temporal_refuses_unclear_settings(options: dict[str, Any], message: str) -> None:
    """A split that isn't what was asked for would make every later figure wrong."""
    with pytest.raises(DeshiError, match=message):
        Temporal(**options)


def test_temporal_refuses_positions(tmp_path: Path) -> None:
    """Positions inside a history are not comparable between users."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2]], time_unit="position")
    with pytest.raises(DeshiError, match="only positions.*leave_one_out"):
        Temporal(validation_share=0.1, test_share=0.1)(bundle)


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        (("2001-01-01", "2000-01-01"), "before the second"),
        (("1970-01-01", "1970-01-02"), "no train events"),
        (("1970-01-11", "2000-01-01"), "no test events"),
        (("soon", "later"), "not a date"),
    ],
)
def test_temporal_refuses_moments_that_leave_nothing(tmp_path: Path, moments: tuple[str, str], message: str) -> None:
    """An empty part shows the data's span, so that the moments can be repaired."""
    with pytest.raises(DeshiError, match=message):
        Temporal(*moments)(temporal_bundle(tmp_path))


def test_iso_moments_are_utc_unless_they_say_otherwise(tmp_path: Path) -> None:
    """The same config must split the same way in every time zone."""
    bundle = temporal_bundle(tmp_path)
    for first in ("1970-01-11", "1970-01-11T00:00:00Z", "1970-01-11T02:00:00+02:00", 10 * DAY):
        assert Temporal(first, "1970-01-21")(bundle).description["validation_start_ms"] == 10 * DAY


def test_ratio_item_by_item(tmp_path: Path) -> None:
    """Shares count inside each user, rounded down to at least one event; short histories stay whole."""
    bundle = tiny_bundle(tmp_path, [list(range(10)), [4, 5, 6], [7, 8], [9]])
    split = Ratio(validation=0.2, test=0.3)(bundle)
    assert [len(row) for row in training_targets(bundle, split)] == [4, 0, 1, 0]
    assert asked(bundle, split, "validation") == {0: ([0, 1, 2, 3, 4], [5]), 1: ([4], [5])}
    assert asked(bundle, split, "test") == {0: ([0, 1, 2, 3, 4, 5, 6], [7]), 1: ([4, 5], [6])}
    everything = Ratio(validation=0.2, test=0.3, targets="all")(bundle)
    assert asked(bundle, everything, "validation")[0] == ([0, 1, 2, 3, 4], [5, 6])
    assert asked(bundle, everything, "test")[0] == ([0, 1, 2, 3, 4, 5, 6], [7, 8, 9])


def test_examples_have_the_documented_types(tmp_path: Path) -> None:
    """Evaluation indexes tensors with these arrays: int64 throughout."""
    bundle = tiny_bundle(tmp_path, [list(range(9)), [1, 1, 1, 1]])
    for split in (LeaveOneOut()(bundle), Ratio(0.3, 0.3, "all")(bundle)):
        examples = split.examples(bundle, "test")
        assert isinstance(split, Split) and isinstance(examples, Examples) and len(examples) == 2
        assert {array.dtype for array in vars(examples).values()} == {np.dtype(np.int64)}


def test_a_split_of_another_bundle_is_refused(tmp_path: Path) -> None:
    """Flat positions mean nothing in another bundle."""
    split = LeaveOneOut()(tiny_bundle(tmp_path, [[0, 1, 2]]))
    other = tiny_bundle(tmp_path, [[0, 1, 2], [0, 1, 2]], name="other")
    with pytest.raises(DeshiError, match="same bundle"):
        split.examples(other, "test")
    with pytest.raises(DeshiError, match="'validation' or 'test'"):
        split.examples(tiny_bundle(tmp_path, [[0, 1, 2]]), "train")


@settings(max_examples=40, deadline=None)
@given(
    sequences=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=12), min_size=1, max_size=6),
    validation=st.floats(0.01, 0.49),
    test=st.floats(0.01, 0.5),
    targets=st.sampled_from(["next", "all"]),
)
def test_parts_never_overlap(
    tmp_path_factory: pytest.TempPathFactory,
    sequences: list[list[int]],
    validation: float,
    test: float,
    targets: Targets,
) -> None:
    """Whatever the lengths: parts are ordered and disjoint, and each history ends before its first target."""
    bundle = tiny_bundle(tmp_path_factory.mktemp("split"), sequences, n_items=6)
    for split in (LeaveOneOut()(bundle), Ratio(validation, test, targets)(bundle)):
        assert (bundle.offsets[:-1] < split.train_end).all()
        assert (split.train_end <= split.valid_end).all() and (split.valid_end <= bundle.offsets[1:]).all()
        for part in ("validation", "test"):
            examples = split.examples(bundle, part)
            assert (examples.starts < examples.ends).all()
            assert (np.diff(examples.target_offsets) >= 1).all()
            assert (examples.target_rows[examples.target_offsets[:-1]] == examples.ends).all()
            owner = np.repeat(examples.users, np.diff(examples.target_offsets))
            assert len(set(zip(owner.tolist(), bundle.items[examples.target_rows].tolist(), strict=True))) == len(owner)

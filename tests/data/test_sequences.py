"""Windows, augmentation, buckets and batches: which event is an input, which a target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deshi.data.sequences import (
    Augmentation,
    TrainingBatches,
    Windows,
    bucketed,
    gather_batch,
    history_batches,
    make_windows,
)
from deshi.types import PAD, Batch, DeshiError


def ranges(*lengths: int) -> tuple[np.ndarray, np.ndarray]:
    ends = np.cumsum(lengths)
    return ends - np.array(lengths), ends


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def spans(windows: Windows) -> list[tuple[int, int, int]]:
    return list(zip(windows.users.tolist(), windows.starts.tolist(), windows.ends.tolist(), strict=True))


def batches_of(lengths: list[int], max_length: int, seed: int = 0, epoch: int = 0, **options: Any) -> list[Batch]:
    starts, ends = ranges(*lengths)
    items = np.arange(sum(lengths), dtype=np.int32)
    settings_: dict[str, Any] = {
        "batch_positions": 12,
        "max_batch_size": 4,
        "mode": "all",
        "augmentation": Augmentation(),
    } | options
    return list(TrainingBatches(items, starts, ends, max_length, seed=seed, epoch=epoch, **settings_))


def test_windows_of_each_mode_hold_the_events_they_should() -> None:
    """A seven-event and a two-event user, three inputs at most: each mode's windows written out."""
    starts, ends = ranges(7, 2, 1)
    assert spans(make_windows(starts, ends, 3, "last", generator())) == [(0, 3, 7), (1, 7, 9)]
    assert spans(make_windows(starts, ends, 3, "all", generator())) == [(0, 3, 7), (0, 0, 4), (1, 7, 9)]
    (user, start, end), _ = spans(make_windows(starts, ends, 3, "random", generator()))
    assert user == 0 and end - start == 4 and 0 <= start <= 3


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(1, 12))
@settings(deadline=None, max_examples=50)
def test_all_windows_make_every_event_but_the_first_a_target_once(lengths: list[int], max_length: int) -> None:
    """No event of a user is lost or trained on twice, however windows fall."""
    starts, ends = ranges(*lengths)
    windows = make_windows(starts, ends, max_length, "all", generator())
    targets = [row for _, start, end in spans(windows) for row in range(start + 1, end)]
    expected = [row for start, end in zip(starts, ends, strict=True) for row in range(start + 1, end)]
    assert sorted(targets) == expected


def test_a_batch_pairs_each_input_with_the_next_event() -> None:
    """Inputs, targets, rows and lengths of a batch with a short row, written out."""
    items = np.array([5, 6, 7, 8, 9], dtype=np.int32)
    rows = np.array([[0, 1, 2], [3, 4, PAD]])
    batch = gather_batch(items, rows, np.array([3, 2]), np.array([0, 1]))
    assert batch.items.tolist() == [[5, 6], [8, PAD]]
    assert batch.targets.tolist() == [[6, 7], [9, PAD]]
    assert batch.rows.tolist() == [[0, 1], [3, PAD]]
    assert batch.lengths.tolist() == [2, 1]


@pytest.mark.parametrize("mode", ["last", "all", "random"])
@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(item_drop=0.4, crop=0.5)])
def test_targets_follow_their_inputs_in_every_batch(mode: str, augmentation: Augmentation) -> None:
    """With item numbers that grow in time, a target is always newer than its input and of the same user."""
    lengths = [9, 30, 2, 14, 5]
    owner = np.repeat(np.arange(5), lengths)
    for batch in batches_of(lengths, 8, mode=mode, augmentation=augmentation):
        real = batch.targets != PAD
        assert (real.sum(1) == batch.lengths).all()
        assert (batch.items[real] < batch.targets[real]).all()
        assert (owner[batch.items[real]] == owner[batch.targets[real]]).all()
        assert ((batch.items == PAD) == (batch.rows == PAD)).all()


def test_item_drop_drops_its_share_and_keeps_two_events() -> None:
    """About 30 % of a long history goes, the order stays, and a two-event history is never emptied."""
    rows, counts = Augmentation(item_drop=0.3).apply(
        Windows(np.arange(2), np.array([0, 2000]), np.array([2000, 2002])), 2000, generator()
    )
    assert 0.27 < 1 - counts[0] / 2000 < 0.33
    assert counts[1] == 2 and rows[1, :2].tolist() == [2000, 2001]
    assert (np.diff(rows[0, : counts[0]]) > 0).all()


def test_item_drop_still_trains_the_last_positions() -> None:
    """Windows are taken longer before the drop, so that histories as long as max_length occur, and none longer."""
    lengths = [
        int(length)
        for epoch in range(4)
        for batch in batches_of([500, 400, 90], 50, epoch=epoch, augmentation=Augmentation(item_drop=0.4))
        for length in batch.lengths
    ]
    assert max(lengths) == 50
    assert np.mean(np.array(lengths) >= 45) > 0.5


def test_reorder_shuffles_within_a_stretch_and_loses_nothing() -> None:
    """The events stay the same, and those that move lie within a fifth of the history."""
    window = Windows(np.zeros(1, np.int64), np.array([0]), np.array([50]))
    rows, counts = Augmentation(reorder=0.999999).apply(window, 50, generator(3))
    assert counts.tolist() == [50] and sorted(rows[0]) == list(range(50))
    moved = np.flatnonzero(rows[0] != np.arange(50))
    assert 2 <= len(moved) <= 10 and moved.max() - moved.min() < 10


def test_crop_keeps_a_connected_half_at_least() -> None:
    """A cropped history is a stretch of consecutive events, half as long or longer."""
    window = Windows(np.zeros(1, np.int64), np.array([10]), np.array([50]))
    for seed in range(20):
        rows, counts = Augmentation(crop=0.999999).apply(window, 50, generator(seed))
        kept = rows[0, : counts[0]]
        assert counts[0] >= 20 and (np.diff(kept) == 1).all() and 10 <= kept[0] and kept[-1] < 50


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(1, 300), st.integers(1, 40))
@settings(deadline=None, max_examples=50)
def test_buckets_hold_every_window_once_within_their_budget(lengths: list[int], positions: int, size: int) -> None:
    """No window is lost or doubled, and a batch of more than one window stays within both limits."""
    sizes = np.array(lengths)
    batches = bucketed(sizes, positions, size, generator())
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for members in batches:
        assert len(members) <= size
        assert len(members) == 1 or sizes[members].max() * len(members) <= positions


def test_the_same_seed_and_epoch_give_the_same_batches() -> None:
    """Batches repeat for the same seed and epoch, and differ in another epoch."""
    lengths = [20, 13, 7, 30, 8, 9]
    options = {"augmentation": Augmentation(item_drop=0.3, crop=0.2, reorder=0.2)}
    first, again, later = (batches_of(lengths, 10, seed=1, epoch=epoch, **options) for epoch in (4, 4, 5))
    assert all((a.items == b.items).all() for a, b in zip(first, again, strict=True))
    assert any(a.items.shape != b.items.shape or (a.items != b.items).any() for a, b in zip(first, later, strict=False))


def test_nothing_to_train_on_is_an_error() -> None:
    """One event a user leaves no target, which is said before any work."""
    with pytest.raises(DeshiError, match="nothing to train on"):
        batches_of([1, 1], 5)


def test_history_batches_ask_every_example_once_with_its_latest_events() -> None:
    """Three histories in batches of two: all are there, each cut to its latest three events."""
    items = np.arange(100, 110, dtype=np.int32)
    starts, ends = np.array([0, 5, 6]), np.array([5, 6, 10])
    found = {}
    for examples, batch in history_batches(items, np.array([7, 8, 9]), starts, ends, 3, 2):
        for example, row, length in zip(examples, batch.items, batch.lengths, strict=True):
            found[int(example)] = row[:length].tolist()
        assert (batch.targets == PAD).all()
    assert found == {0: [102, 103, 104], 1: [105], 2: [107, 108, 109]}

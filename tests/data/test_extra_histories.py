"""Batches of a bundle joined with those of augmented histories: whose turn it is, targets, row numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from deshi.data.bundle import Bundle
from deshi.data.datamodule import DataModule
from deshi.data.extra_histories import JoinedBatches, MoreHistories
from deshi.data.sequences import Augmentation
from deshi.data.splits import LeaveOneOut
from deshi.soft_labels import Histories, augment_histories
from deshi.types import PAD, Batch
from tiny_bundles import random_sequences, tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("joined"), random_sequences(30, 40, 3, 20), n_items=40)


def more(bundle: Bundle, copies: int, targets: bool = False) -> tuple[MoreHistories, Histories]:
    """Augmented copies of the training ranges, laid behind the bundle's events."""
    found = augment_histories(bundle, LeaveOneOut()(bundle), Augmentation(item_drop=0.3), copies)
    begin = bundle.n_interactions
    items = np.concatenate([np.asarray(bundle.items), np.asarray(found.items)])
    return MoreHistories(items, found.offsets[:-1] + begin, found.offsets[1:] + begin, found.users, targets), found


def data(bundle: Bundle, given: MoreHistories | None) -> DataModule:
    starts, ends = LeaveOneOut()(bundle).train_ranges(bundle)
    return DataModule(bundle, starts, ends, None, 8, 60, 16, "all", Augmentation(), (16, True), 0, given)


def test_copies_take_turns(bundle: Bundle) -> None:
    """An epoch sees one copy a user, so that three copies don't make an epoch four times as long."""
    given, found = more(bundle, 3)
    users = np.unique(found.users)
    seen = [set(given.of_epoch(epoch)[0][users].tolist()) for epoch in range(4)]
    assert all(len(one) == len(users) for one in seen)
    assert seen[0] == seen[3] and not (seen[0] & seen[1] or seen[1] & seen[2] or seen[0] & seen[2])
    assert seen[0] | seen[1] | seen[2] == set(given.starts.tolist())


def test_users_with_fewer_copies_start_again_sooner() -> None:
    """Copies of several stores are joined, and not every store has every user."""
    starts, users = np.array([10, 20, 30]), np.array([1, 1, 3])
    given = MoreHistories(np.arange(50, dtype=np.int32), starts, starts + 10, users)
    assert [given.of_epoch(epoch)[0][[1, 3]].tolist() for epoch in range(3)] == [[10, 30], [20, 30], [10, 30]]
    assert [one[[0, 2]].tolist() for one in given.of_epoch(0)] == [[0, 0], [0, 0]], "the others have no events"


@pytest.mark.parametrize("targets", [False, True])
def test_targets_and_rows(bundle: Bundle, targets: bool) -> None:
    """A row names the event in the array that holds both; the true next items of augmented histories are an option."""
    given, found = more(bundle, 1, targets)
    batches = list(data(bundle, given).epoch(0))
    assert len(batches) == len(list(data(bundle, None).epoch(0)))
    own, others = Counter[int](), Counter[int]()
    for batch in batches:
        real = batch.rows != PAD
        assert torch.equal(batch.items[real], torch.from_numpy(given.items[batch.rows[real]]).long())
        foreign = real & (batch.rows >= bundle.n_interactions)
        own.update(batch.rows[real & ~foreign].tolist())
        others.update(batch.rows[foreign].tolist())
        aimed = batch.targets[foreign]
        nexts = torch.from_numpy(given.items[batch.rows[foreign] + 1]) if targets else torch.full_like(aimed, PAD)
        assert bool((aimed == nexts).all())
        assert bool((batch.targets[real & ~foreign] != PAD).all())
    starts, ends = LeaveOneOut()(bundle).train_ranges(bundle)
    wanted = np.concatenate([np.arange(a, b - 1) for a, b in zip(starts, ends, strict=True)])
    assert sorted(own.elements()) == wanted.tolist(), "the bundle's own positions, each once"
    inner = np.setdiff1d(np.arange(found.n_interactions), found.offsets[1:] - 1) + bundle.n_interactions
    assert sorted(others.elements()) == inner.tolist(), "all augmented positions but the last of each, each once"


def test_users_of_joined_batches_are_those_of_the_data(bundle: Bundle) -> None:
    """Users without augmented histories must not shift the others' numbers."""
    given, found = more(bundle, 1)
    owner = np.repeat(found.users, np.diff(found.offsets))
    for batch in data(bundle, given).epoch(0):
        for user, row in zip(batch.users.tolist(), batch.rows[:, 0].tolist(), strict=True):
            if row >= bundle.n_interactions:
                assert user == owner[row - bundle.n_interactions]
            else:
                assert bundle.offsets[user] <= row < bundle.offsets[user + 1]


def test_the_share_is_spread_over_the_epoch(bundle: Bundle) -> None:
    """No batch is much larger than the others, and an epoch repeats to the bit."""
    given, _ = more(bundle, 2)
    joined = data(bundle, given).epoch(1)
    assert isinstance(joined, JoinedBatches)
    alone = list(data(bundle, None).epoch(1))
    sizes = [len(batch.users) - len(plain.users) for batch, plain in zip(joined, alone, strict=True)]
    assert sum(size > 0 for size in sizes) >= 0.6 * len(sizes)
    again = list(data(bundle, given).epoch(1))
    assert all(torch.equal(a.rows, b.rows) for a, b in zip(data(bundle, given).epoch(1), again, strict=True))


def test_join_is_as_wide_as_the_wider(tmp_path: Path) -> None:
    """Padding stays padding on both sides."""

    def one(user: int, length: int, width: int) -> Batch:
        values = torch.full((1, width), PAD)
        values[0, :length] = torch.arange(length)
        return Batch(torch.tensor([user]), values, torch.tensor([length]), values.clone(), values.clone())

    for left, right in ((one(0, 2, 2), one(1, 3, 4)), (one(1, 3, 4), one(0, 2, 2))):
        both = left.join(right)
        assert both.items.shape == (2, 4) and both.lengths.tolist() == [int(left.lengths), int(right.lengths)]
        assert (both.items != PAD).sum(1).tolist() == both.lengths.tolist()
        assert both.without_targets().targets.eq(PAD).all() and both.targets.eq(both.items).all()

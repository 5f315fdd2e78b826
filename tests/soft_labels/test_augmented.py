"""SoftLabels about histories that nobody trained on: made from training events only, and reproducible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deshi.data.bundle import Bundle
from deshi.data.sequences import Augmentation
from deshi.data.splits import LeaveOneOut, Ratio
from deshi.soft_labels import Labeller, SoftLabels, augment_histories, choose_rows, write_soft_labels
from deshi.types import PAD, Batch, DeshiError
from hashed_scorer import META, Hashed, expected_list, sasrec, shop
from tiny_bundles import random_sequences, tiny_bundle


@given(st.integers(0, 50), st.floats(0, 0.9), st.floats(0, 1), st.floats(0, 1), st.integers(1, 3))
@settings(deadline=None, max_examples=20)
def test_augmented_histories_hold_training_events_of_their_user_only(
    tmp_path_factory: pytest.TempPathFactory, seed: int, drop: float, crop: float, reorder: float, copies: int
) -> None:
    """A held-out event inside of an augmented history would be a leak that no later check could see."""
    if drop == crop == reorder == 0:
        drop = 0.5
    bundle = tiny_bundle(tmp_path_factory.mktemp("data"), random_sequences(10, 25, 1, 15, seed))
    split = Ratio(0.2, 0.2)(bundle)
    augmented = augment_histories(bundle, split, Augmentation(drop, crop, reorder), copies, seed)
    assert augmented.sources is not None
    owner = np.repeat(augmented.users, np.diff(augmented.offsets))
    assert (augmented.sources >= bundle.offsets[owner]).all() and (augmented.sources < split.train_end[owner]).all()
    assert augmented.items.tolist() == bundle.items[augmented.sources].tolist()
    lengths = np.diff(augmented.offsets)
    trained = (split.train_end - bundle.offsets[:-1])[augmented.users]
    assert (lengths >= 2).all() and (lengths <= trained).all()
    assert len(augmented.users) == copies * int((split.train_end - bundle.offsets[:-1] >= 2).sum())
    pairs = np.repeat(np.arange(len(lengths)), lengths) * bundle.n_interactions + augmented.sources
    assert len(np.unique(pairs)) == len(pairs), "no event twice in one history"


def test_the_same_seed_gives_the_same_histories_and_copies_differ(tmp_path: Path) -> None:
    """A killed export can go on only if its histories can be made again."""
    bundle = shop(tmp_path, users=20)
    split, drop = LeaveOneOut()(bundle), Augmentation(item_drop=0.4)
    first, again, other = (augment_histories(bundle, split, drop, 2, seed) for seed in (3, 3, 4))
    assert first.content() == again.content() != other.content()
    longest = int(np.argmax(np.bincount(first.users, np.diff(first.offsets))))
    copies = [
        first.items[first.offsets[s] : first.offsets[s + 1]].tolist() for s in np.flatnonzero(first.users == longest)
    ]
    assert copies[0] != copies[1]


def test_nothing_augmented_and_nobody_to_augment_are_refused(tmp_path: Path) -> None:
    """Unaugmented copies would be the memorised answers under another name."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2], [2, 1, 0]])
    split = LeaveOneOut()(bundle)
    with pytest.raises(DeshiError, match="alters nothing"):
        augment_histories(bundle, split, Augmentation())
    with pytest.raises(DeshiError, match="copies is 0"):
        augment_histories(bundle, split, Augmentation(crop=1.0), 0)
    with pytest.raises(DeshiError, match="No user of tiny has two training events"):
        augment_histories(bundle, split, Augmentation(crop=1.0))


def test_a_store_of_augmented_histories_holds_their_lists(tmp_path: Path) -> None:
    """The same writer, over other sequences: each list continues the augmented history, its own items left out."""
    bundle = shop(tmp_path, users=15)
    split = LeaveOneOut()(bundle)
    augmented = augment_histories(bundle, split, Augmentation(item_drop=0.3, reorder=0.5), 2)
    rows, scorer = choose_rows("all", bundle, split, augmented), Hashed(bundle.n_items)
    write_soft_labels(Labeller(scorer, augmented, 4, batch=6), rows, tmp_path / "store", teacher=META, shard_rows=9)
    assert set(scorer.asked) == {PAD}, "a row of the bundle would be that of another history"
    store = SoftLabels.load(tmp_path / "store", bundle, check=True)
    assert store.augmented and store.n_rows == augmented.n_interactions
    kept = store.histories(bundle)
    assert kept.content() == augmented.content()
    for row in rows.tolist():
        sequence = int(np.searchsorted(kept.offsets, row, side="right")) - 1
        history = kept.items[kept.offsets[sequence] : row + 1].tolist()
        assert store.items[row].tolist() == expected_list(scorer.of(history), history, 4, True)[0]


def test_the_users_of_augmented_histories_are_the_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cross-fitted and instance-wise teachers answer by user: the second copy isn't the second user."""
    bundle, asked = tiny_bundle(tmp_path, [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]]), list[int]()
    scorer = sasrec(5, 3)
    position_scores = scorer.position_scores

    def watched(batch: Batch, where: torch.Tensor) -> torch.Tensor:
        asked.extend(batch.users.tolist())
        return position_scores(batch, where)

    monkeypatch.setattr(scorer, "position_scores", watched)
    augmented = augment_histories(bundle, LeaveOneOut()(bundle), Augmentation(crop=1.0), 3)
    write_soft_labels(Labeller(scorer, augmented, 2), np.arange(augmented.n_interactions), tmp_path / "s", teacher=META)
    assert sorted(asked) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(("name", "message"), [("offsets", "offsets"), ("sources", "sources"), ("users", "offsets")])
def test_damaged_sequences_are_named(tmp_path: Path, name: str, message: str) -> None:
    """Rows without their histories are numbers without a meaning."""
    bundle: Bundle = shop(tmp_path)
    augmented = augment_histories(bundle, LeaveOneOut()(bundle), Augmentation(crop=1.0))
    store = write_soft_labels(
        Labeller(Hashed(30), augmented, 2), np.arange(augmented.n_interactions), tmp_path / "s", teacher=META
    )
    file = store.path / "sequences" / f"{name}.npy"
    np.save(file, np.load(file)[:-1])
    with pytest.raises(DeshiError, match=message):
        store.histories(bundle)
    file.write_bytes(b"x")
    with pytest.raises(DeshiError, match=f"{name}.npy can't be read"):
        store.histories(bundle)

"""Which rows are written: a rule must choose exactly the positions that it names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deshi.data.bundle import Bundle
from deshi.data.sequences import Augmentation
from deshi.data.splits import LeaveOneOut, Ratio
from deshi.soft_labels import augment_histories, choose_rows
from deshi.types import DeshiError
from tiny_bundles import random_sequences, tiny_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Histories of 5, 2 and 3 events: flat positions 0-4, 5-6, 7-9."""
    return tiny_bundle(tmp_path, [[0, 1, 2, 3, 4], [5, 0], [1, 2, 3]])


@pytest.mark.parametrize(
    ("rule", "rows"),
    [
        ("all", list(range(10))),
        ("train", [0, 1, 5]),
        ("last:1", [1, 5]),
        ("last:2", [0, 1, 5]),
        ("validation", [2, 7]),
        ("test", [3, 8]),
        ("held_out", [2, 3, 7, 8]),
        ("last:1+test", [1, 3, 5, 8]),
        ("train + all", list(range(10))),
        ("sample:1", [0, 1, 5]),
    ],
)
def test_each_rule_chooses_what_it_says(bundle: Bundle, rule: str, rows: list[int]) -> None:
    """Leave-one-out written out by hand; the second user is too short to be held out and trains on both events."""
    assert choose_rows(rule, bundle, LeaveOneOut()(bundle)).tolist() == rows


@pytest.mark.parametrize(
    "rule", ["", "trian", "last:0", "last:x", "last", "sample:0", "sample:1.5", "sample:x", "train+"]
)
def test_a_wrong_rule_is_refused_with_the_right_ones(bundle: Bundle, rule: str) -> None:
    """A typing mistake must not become an export of other rows."""
    with pytest.raises(DeshiError, match="last:|sample:|held_out"):
        choose_rows(rule, bundle, LeaveOneOut()(bundle))


def test_a_rule_that_chooses_nothing_is_refused(tmp_path: Path) -> None:
    """An empty store would look like a teacher that knows nothing."""
    bundle = tiny_bundle(tmp_path, [[0, 1], [1, 0]])
    with pytest.raises(DeshiError, match="chooses none of the 4 events"):
        choose_rows("held_out", bundle, LeaveOneOut()(bundle))


@given(st.integers(0, 5), st.floats(0.05, 1.0), st.integers(1, 8))
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_train_positions_precede_training_targets_only(
    tmp_path_factory: pytest.TempPathFactory, seed: int, share: float, last: int
) -> None:
    """No rule about training may touch a position whose next event is held out, whatever the split."""
    bundle = tiny_bundle(tmp_path_factory.mktemp("data"), random_sequences(9, 20, 2, 12, seed))
    split = Ratio(0.2, 0.2, "all")(bundle)
    owners = np.repeat(np.arange(bundle.n_users), np.diff(bundle.offsets))
    train = choose_rows("train", bundle, split)
    assert (train + 1 < split.train_end[owners[train]]).all()
    assert len(train) == (split.train_end - bundle.offsets[:-1] - 1).sum()
    for rule in (f"sample:{share}", f"last:{last}"):
        rows = choose_rows(rule, bundle, split, seed=seed)
        assert np.isin(rows, train).all() and len(np.unique(rows)) == len(rows)
        assert rows.tolist() == choose_rows(rule, bundle, split, seed=seed).tolist()
    assert np.bincount(owners[choose_rows(f"last:{last}", bundle, split)]).max() <= last
    assert not np.isin(choose_rows("held_out", bundle, split), train).any()


def test_another_seed_draws_another_sample(tmp_path: Path) -> None:
    """A seed that changed nothing would be no seed."""
    bundle = tiny_bundle(tmp_path, random_sequences(20, 30, 5, 12))
    split = LeaveOneOut()(bundle)
    first, second = (choose_rows("sample:0.5", bundle, split, seed=seed) for seed in (0, 1))
    assert len(first) == len(second) and first.tolist() != second.tolist()


def test_augmented_histories_have_rules_of_their_own(bundle: Bundle) -> None:
    """Their last events are followed by a held-out one, all others by an augmented training event."""
    split = LeaveOneOut()(bundle)
    augmented = augment_histories(bundle, split, Augmentation(reorder=1.0), copies=2)
    assert augmented.offsets.tolist() == [0, 3, 6, 8, 10]
    assert choose_rows("train", bundle, split, augmented).tolist() == [0, 1, 3, 4, 6, 8]
    assert choose_rows("held_out", bundle, split, augmented).tolist() == [2, 5, 7, 9]
    assert choose_rows("all", bundle, split, augmented).tolist() == list(range(10))

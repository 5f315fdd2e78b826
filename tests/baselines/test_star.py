"""STAR: a hand case, ties of equal texts, and vectors that must fit the catalogue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from baseline_cases import fit_on_all, histories
from deshi.baselines import Star, training_events
from deshi.baselines._star import common_users
from deshi.data.bundle import Bundle
from deshi.data.splits import LeaveOneOut
from deshi.types import DeshiError
from tiny_bundles import random_sequences, tiny_bundle

VECTORS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0], [5.0, 0.0]])
"""Of four items; the first and the last point the same way."""


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Users of the items: 2, 2, 3, 1; in common: 0 and 1: 1, 0 and 2: 2, 1 and 2: 2, 1 and 3: 1, 2 and 3: 1."""
    return tiny_bundle(tmp_path, [[0, 1, 2], [0, 2], [1, 2, 3]], n_items=4)


@pytest.mark.parametrize("text_weight", [0.0, 0.25, 1.0])
def test_star_by_hand(text_weight: float, bundle: Bundle) -> None:
    """After items 1 and 0 the latest weighs 2/3 and the one before 1/3."""
    star = fit_on_all(Star(VECTORS, text_weight, history_decay=0.5, latest=2), bundle)
    similarity = np.array([2 / 3, 1 / 3, 2 / 3 * 0.6 + 1 / 3 * 0.8, 2 / 3])
    common = np.array([1 / 3 / 2, 2 / 3 / 2, 2 / 6**0.5, 1 / 3 / 2**0.5])
    expected = text_weight * similarity + (1 - text_weight) * common
    assert np.allclose(star.scores(histories([3, 1, 0]))[0], expected)


def test_equal_texts_tie_exactly(tmp_path: Path) -> None:
    """Rounding in a matrix product must not rank one of two items with the same text above the other."""
    vectors = torch.nn.functional.normalize(torch.randn(40, 24, generator=torch.Generator().manual_seed(0)), dim=1)
    bundle = tiny_bundle(tmp_path, random_sequences(10, 40, 4, 8), n_items=80)
    star = fit_on_all(Star(vectors.repeat(2, 1), text_weight=1.0), bundle)
    scores = star.scores(histories([1, 2, 3], [7], [5, 6]))
    assert torch.equal(scores[:, :40], scores[:, 40:])


def test_nearest_items_by_common_users_are_kept(bundle: Bundle) -> None:
    """Two of item 2's neighbours are equally near: with one kept, both stay."""
    events = training_events(bundle, bundle.offsets[:-1], bundle.offsets[1:])
    whole, narrow = common_users(events, 3).toarray(), common_users(events, 1).toarray()
    assert np.allclose(whole[2], [2 / 6**0.5, 2 / 6**0.5, 0, 1 / 3**0.5])
    assert np.allclose(narrow[2], [2 / 6**0.5, 2 / 6**0.5, 0, 0]) and whole.diagonal().tolist() == [0.0] * 4


def test_blocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks save memory; the neighbours must stay."""
    bundle = tiny_bundle(tmp_path, random_sequences(30, 25, 3, 9), n_items=25)
    events = training_events(bundle, bundle.offsets[:-1], bundle.offsets[1:])
    whole = common_users(events, 4).toarray()
    monkeypatch.setattr("deshi.baselines._star._BLOCK", 7)
    assert np.array_equal(common_users(events, 4).toarray(), whole)


def test_settings_are_chosen_on_validation_and_not_on_test(tmp_path: Path) -> None:
    """Texts that say everything get the whole weight; test events change nothing."""
    pairs = [[item % 20, 20 + item % 20, (item * 7) % 20, 20 + (item * 7) % 20] * 2 for item in range(40)]
    vectors = torch.eye(20).repeat(2, 1)
    chosen = []
    for number, rows in enumerate((pairs, [row[:-1] + [(row[-1] + 1) % 40] for row in pairs])):
        bundle = tiny_bundle(tmp_path, rows, n_items=40, name=f"b{number}")
        star = Star(vectors)
        chosen.append(star.choose(bundle, LeaveOneOut()(bundle), filter_seen=False))
        assert chosen[-1] == star.settings != {}
    assert chosen[0] == chosen[1]


def test_vectors_of_another_catalogue_are_refused(bundle: Bundle) -> None:
    """They would give every item the text of another."""
    with pytest.raises(DeshiError, match="text vectors of 3 items, the data has 4"):
        fit_on_all(Star(VECTORS[:3]), bundle)
    for wrong in ({"text_weight": 1.5}, {"history_decay": 0.0}, {"latest": 0}, {"neighbours": 0}):
        with pytest.raises(DeshiError, match="expected a weight from 0 to 1"):
            Star(VECTORS, **wrong)

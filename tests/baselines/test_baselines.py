"""Baselines: hand cases, the training ranges and nothing else, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from baseline_cases import fit_on_all, histories
from deshi.baselines import BASELINES, EASE, ItemKNN, Markov, Popularity, _ease
from deshi.data.splits import LeaveOneOut
from deshi.types import DeshiError
from tiny_bundles import random_sequences, tiny_bundle


def test_popularity_counts_training_events_only(tmp_path: Path) -> None:
    """With leave-one-out the last two events of a user must not be counted."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2, 3], [1, 0, 3, 3], [1, 3, 3]], n_items=4)
    baseline = Popularity().fit(bundle, *LeaveOneOut()(bundle).train_ranges(bundle))
    assert baseline.scores(histories([0], [2, 3])).tolist() == [[2.0, 3.0, 0.0, 0.0]] * 2


def test_markov_by_hand(tmp_path: Path) -> None:
    """Counts of direct successors inside a user, plus popularity with the prior's weight."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 0, 1], [0, 2]], n_items=3)
    scores = fit_on_all(Markov(prior=1.0), bundle).scores(histories([1, 0]))
    assert scores[0].tolist() == pytest.approx([(0 + 3 / 6) / 4, (2 + 2 / 6) / 4, (1 + 1 / 6) / 4])


def test_markov_falls_back_on_popularity(tmp_path: Path) -> None:
    """Item 2 has no successor (the next user's first event is none), so popularity decides."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 0, 1, 2], [0, 3]], n_items=4)
    scores = fit_on_all(Markov(), bundle).scores(histories([0, 2], [3]))
    expected = torch.tensor([3 / 7, 2 / 7, 1 / 7, 1 / 7])
    assert torch.allclose(scores, expected.expand(2, 4))


def test_itemknn_by_hand(tmp_path: Path) -> None:
    """Cosine with shrinkage, repeats of a user count once, the strongest neighbours only."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 1], [0, 1], [0, 2]], n_items=3)
    scores = fit_on_all(ItemKNN(neighbours=2, shrink=1.0), bundle).scores(histories([0], [1, 2], [0, 0]))
    near, far = 2 / (6**0.5 + 1), 1 / (3**0.5 + 1)
    assert scores.tolist() == [
        pytest.approx([0.0, near, far]),
        pytest.approx([near + far, 0.0, 0.0]),
        pytest.approx([0.0, near, far]),
    ]
    narrow = fit_on_all(ItemKNN(neighbours=1, shrink=1.0), bundle).scores(histories([0]))
    assert narrow[0].tolist() == pytest.approx([0.0, near, 0.0])


def test_itemknn_does_not_depend_on_its_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks save memory; the figures must stay."""
    bundle = tiny_bundle(tmp_path, random_sequences(30, 25, 3, 9), n_items=25)
    batch = histories([1, 2, 3], [4], [5, 6])
    whole = fit_on_all(ItemKNN(), bundle).scores(batch)
    monkeypatch.setattr("deshi.baselines._itemknn._BLOCK_NUMBERS", 120)
    monkeypatch.setattr("deshi.baselines._itemknn._VOTES", 30)
    assert torch.allclose(fit_on_all(ItemKNN(), bundle).scores(batch), whole, atol=1e-6)


def test_ease_is_the_closed_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published formula, in float64 and without blocks, gives the same scores."""
    bundle = tiny_bundle(tmp_path, random_sequences(40, 15, 2, 9), n_items=15)
    matrix = np.zeros((40, 15))
    for user in range(40):
        matrix[user, bundle.history(user)] = 1
    inverse = np.linalg.inv(matrix.T @ matrix + 5 * np.eye(15))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    monkeypatch.setattr(_ease, "_USERS", 7)
    scores = fit_on_all(EASE(regularisation=5.0), bundle).scores(histories([1, 2, 2], [14]))
    assert np.allclose(scores[0], weights[1] + weights[2], atol=1e-5)
    assert np.allclose(scores[1], weights[14], atol=1e-5)


def test_ease_refuses_a_large_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The inverse of a huge matrix would exhaust the memory; the error names what to use instead."""
    monkeypatch.setattr(EASE, "max_items", 3)
    with pytest.raises(DeshiError, match=r"limited to 3 items. Use itemknn"):
        fit_on_all(EASE(), tiny_bundle(tmp_path, [[0, 1, 2, 3]]))


@pytest.mark.parametrize("name", BASELINES)
def test_only_the_training_ranges_matter(name: str, tmp_path: Path) -> None:
    """Events outside of the ranges are the answers; a baseline that reads them is worthless."""
    sequences = random_sequences(20, 12, 4, 8)
    changed = [row[:-2] + row[:-3:-1] for row in sequences]
    batch, scores = histories([1, 2], [3]), []
    for number, rows in enumerate((sequences, changed)):
        bundle = tiny_bundle(tmp_path, rows, n_items=12, name=f"b{number}")
        ranges = LeaveOneOut()(bundle).train_ranges(bundle)
        scores.append(BASELINES[name]().fit(bundle, *ranges).scores(batch))
    assert torch.equal(*scores)


@pytest.mark.parametrize("name", BASELINES)
def test_contract(name: str, tmp_path: Path) -> None:
    """Finite float32 scores of the whole catalogue, whatever the padding and the rest of the batch."""
    bundle = tiny_bundle(tmp_path, random_sequences(20, 12, 4, 8), n_items=13)
    baseline = fit_on_all(BASELINES[name](), bundle)
    scores = baseline.scores(histories([1, 2, 3, 4, 12], [3], [0, 7]))
    assert baseline.n_items == 13 and scores.shape == (3, 13) and scores.dtype == torch.float32
    assert bool(scores.isfinite().all())
    assert torch.allclose(baseline.scores(histories([3]))[0], scores[1])


def test_misuse_is_refused(tmp_path: Path) -> None:
    """Wrong parameters and wrong order of calls say what is expected."""
    with pytest.raises(DeshiError, match="has not been fitted"):
        Popularity().scores(histories([0]))
    bundle = tiny_bundle(tmp_path, [[0, 1], [1, 0]])
    with pytest.raises(DeshiError, match="no event"):
        Popularity().fit(bundle, bundle.offsets[:-1], bundle.offsets[:-1])
    with pytest.raises(DeshiError, match=r"expected both \(2,\)"):
        Popularity().fit(bundle, bundle.offsets, bundle.offsets)
    for wrong in (lambda: ItemKNN(neighbours=0), lambda: EASE(0.0), lambda: Markov(0.0)):
        with pytest.raises(DeshiError, match="expected"):
            wrong()

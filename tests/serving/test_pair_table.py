"""The table of transition counts in numpy: by hand, against the baseline that it is made of, and its checks."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deshi.baselines import Pairwise
from deshi.serving.pair_counts import JointScorer, ServedCounts
from deshi.serving.pair_table import PairTable
from tiny_bundles import batch_of, random_sequences, tiny_bundle


def fitted(tmp_path: Path, sequences: list[list[int]], n_items: int, **settings: float) -> Pairwise:
    bundle = tiny_bundle(tmp_path, sequences, n_items=n_items)
    pairwise = Pairwise(**settings)  # type: ignore[arg-type]
    pairwise.fit(bundle, bundle.offsets[:-1], bundle.offsets[1:])
    return pairwise


def table_of(pairwise: Pairwise, weight: float, best: int = 200) -> PairTable:
    return ServedCounts(pairwise, pairwise.pruned(best), weight, ()).table


def test_what_is_added_by_hand(tmp_path: Path) -> None:
    """Twice the pooled logarithms of smoothed counts, added to the student's scores."""
    pairwise = fitted(
        tmp_path, [[0, 1, 2], [0, 2]], 4, max_distance=2, distance_decay=0.5, history_decay=0.5, smoothing=2.0
    )
    table, scores = table_of(pairwise, weight=2.0), np.array([10.0, 20.0, 30.0, 40.0], dtype=np.float32)
    table.add_to(scores, np.array([1, 0]))
    # C[0] = (0, 1, 1.5, 0), C[1] = (0, 0, 1, 0); the last item weighs 2/3, the one before 1/3
    added = [2 * 2 / 3 * math.log(1.5), 2 * (2 / 3 * math.log(1.75) + 1 / 3 * math.log(1.5))]
    assert scores.tolist() == pytest.approx([10.0, 20 + added[0], 30 + added[1], 40.0], abs=2e-3)  # half precision
    items, values = table.sums(np.array([1, 0]))
    assert items.tolist() == [1, 2] and values.tolist() == pytest.approx(added, abs=2e-3)
    table.add_to(scores, np.array([3]))  # an item that nothing followed
    assert scores[3] == 40.0 and len(table.sums(np.array([3]))[0]) == 0


def test_pruning_keeps_the_best_of_each_row_and_the_lower_index_of_equal_ones(tmp_path: Path) -> None:
    """What is served must not depend on the order in which counts were added up."""
    pairwise = fitted(tmp_path, [[0, 1], [0, 1], [0, 3], [0, 2], [4, 0], [4, 2]], 5, smoothing=1.0)
    pruned = pairwise.pruned(2).table
    assert pruned[[0]].indices.tolist() == [1, 2] and pruned[[4]].indices.tolist() == [0, 2]
    assert pruned.data.tolist() == [np.float16(math.log(3)), *[np.float16(math.log(2))] * 3]
    assert pairwise.table[[0]].nnz == 3


def test_it_scores_as_the_baseline_whatever_the_history(tmp_path: Path) -> None:
    """The engine has no PyTorch and no scipy: its sum must be that of the baseline, repeats and long histories too."""
    pairwise = fitted(tmp_path, random_sequences(30, 20, 4, 12), 20, history_decay=0.8, latest=6)
    histories = [[3], [1, 1, 1], list(range(15)), [7, 2, 7, 19]]
    table, pruned = table_of(pairwise, 3.5, best=4), pairwise.pruned(4)
    expected = 3.5 * pruned.scores(batch_of(*histories))
    for history, row in zip(histories, expected, strict=True):
        scores = np.zeros(20, dtype=np.float32)
        table.add_to(scores, np.array(history))
        np.testing.assert_allclose(scores, row.numpy(), atol=1e-5)
        items, values = table.sums(np.array(history))
        np.testing.assert_array_equal(scores[items], values)
        assert len(items) == len(set(items)) == np.count_nonzero(scores)
    student = fitted(tmp_path / "other", random_sequences(9, 20, 4, 12), 20)
    joint = JointScorer(student, pruned, 3.5).scores(batch_of(*histories))
    torch.testing.assert_close(joint, student.scores(batch_of(*histories)) + expected)


def test_what_is_no_table_is_named(tmp_path: Path) -> None:
    """A wrong table would answer with other items, without a word."""
    table = table_of(fitted(tmp_path, random_sequences(30, 20, 4, 12), 20), 1.0)
    assert table.problem(20) is None
    assert "20 items" not in str(table.problem(20)) and "21 items" in str(table.problem(21))
    cases = [
        (replace(table, offsets=table.offsets[::-1].copy()), "don't divide"),
        (replace(table, items=np.full_like(table.items, 20)), "names the item 20 of 20"),
        (replace(table, items=table.items.astype(np.int64)), "of the kinds iiff"),
        (replace(table, values=np.full_like(table.values, np.nan)), "no weights or values"),
        (replace(table, history_weights=np.zeros(0)), "no weights or values"),
        (replace(table, values=table.values[1:]), "shapes"),
    ]
    for wrong, message in cases:
        assert message in str(wrong.problem(20))

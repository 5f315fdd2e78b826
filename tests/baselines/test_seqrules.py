"""SeqRules: hand cases, pruning with ties, and settings that validation alone decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from baseline_cases import fit_on_all, histories
from deshi.baselines import SeqRules
from deshi.baselines._seqrules import pruned
from deshi.data.bundle import Bundle
from deshi.data.splits import LeaveOneOut
from deshi.evaluation import evaluate_ranks
from deshi.types import DeshiError
from tiny_bundles import random_sequences, tiny_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Rules of two steps: 0 -> 1: 1, 0 -> 2: 1/2 + 1, 1 -> 2: 1 + 1, 1 -> 3: 1/2, 2 -> 3: 1."""
    return tiny_bundle(tmp_path, [[0, 1, 2], [0, 2], [1, 2, 3]], n_items=4)


def test_rules_by_hand(bundle: Bundle) -> None:
    """Nearer pairs weigh more, and so do later items of the history: 1 and 1/2, over their sum."""
    rules = fit_on_all(SeqRules(steps=2, latest=2, idf=False), bundle)
    both = np.array([0.0, 0.5 * 1, 2 + 0.5 * 1.5, 0.5]) / 1.5
    assert np.allclose(rules.scores(histories([3, 0, 1], [2])), [both.tolist(), [0.0, 0.0, 0.0, 1.0]])


def test_decay_and_steps_by_hand(bundle: Bundle) -> None:
    """An exponent of 0 counts pairs, one of 2 squares distances; beyond the steps nothing counts."""
    scores = {
        (steps, decay): fit_on_all(SeqRules(steps, decay, 1, False), bundle).scores(histories([0]))[0].tolist()
        for steps, decay in ((2, 0.0), (2, 2.0), (1, 1.0))
    }
    assert scores == {
        (2, 0.0): [0.0, 1.0, 2.0, 0.0],
        (2, 2.0): [0.0, 1.0, 1.25, 0.0],
        (1, 1.0): [0.0, 1.0, 1.0, 0.0],
    }


def test_idf_by_hand(bundle: Bundle) -> None:
    """Users with each item: 2, 2, 3, 1 of 3. Rules from the item that everyone has weigh nothing."""
    rules = fit_on_all(SeqRules(steps=2, latest=1, idf=True), bundle)
    idf = np.log(1.5) / np.log(3)
    scores = rules.scores(histories([0], [1], [2]))
    assert np.allclose(scores, [[0, idf, 1.5 * idf, 0], [0, 0, 2 * idf, 0.5 * idf], [0, 0, 0, 0]])


def test_rows_are_pruned_with_their_ties(bundle: Bundle) -> None:
    """The order in which equal rules are stored must not decide which of them stays."""
    table = csr_array(np.array([[3.0, 1.0, 1.0, 0.5], [2.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    assert pruned(table, 2).toarray().tolist() == [[3.0, 1.0, 1.0, 0.0], [2.0, 0.0, 1.0, 0.0], [0.0] * 4]
    assert pruned(table, 1).toarray().tolist() == [[3.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0], [0.0] * 4]
    rules = fit_on_all(SeqRules(steps=2, latest=1, idf=False, pruning=1), bundle)
    assert rules.scores(histories([0], [1])).tolist() == [[0.0, 0.0, 1.5, 0.0], [0.0, 0.0, 2.0, 0.0]]


def test_settings_are_chosen_on_validation_and_not_on_test(tmp_path: Path) -> None:
    """The best of all that were tried is kept, its figure is that of the full ranking, and test changes nothing."""
    sequences = random_sequences(60, 30, 6, 14)
    chosen = []
    for number, rows in enumerate((sequences, [row[:-1] + [(row[-1] + 1) % 30] for row in sequences])):
        bundle = tiny_bundle(tmp_path, rows, n_items=30, name=f"b{number}")
        rules, split = SeqRules(), LeaveOneOut()(bundle)
        chosen.append(rules.choose(bundle, split))
        assert chosen[-1] == rules.settings != {}
        rules.fit(bundle, *split.train_ranges(bundle))
        ranks = evaluate_ranks(rules, bundle, split.examples(bundle, "validation")).ranks["rank"].to_numpy()
        best = np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0).mean()
        start = SeqRules().fit(bundle, *split.train_ranges(bundle))
        ranks = evaluate_ranks(start, bundle, split.examples(bundle, "validation")).ranks["rank"].to_numpy()
        assert best > np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0).mean()
    assert chosen[0] == chosen[1]


def test_wrong_settings_are_refused() -> None:
    """A decay below 0 would prefer far pairs; the message says what is expected."""
    for wrong in ({"decay": -1.0}, {"steps": 0}, {"latest": 0}, {"pruning": 0}):
        with pytest.raises(DeshiError, match="expected a decay from 0"):
            SeqRules(**wrong)

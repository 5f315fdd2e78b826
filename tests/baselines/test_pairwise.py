"""Pairwise counts: hand values, exact ties, leave-user-out against counting anew, the search of settings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from deshi.baselines import Pairwise, similar_items, training_events
from deshi.baselines._pair_counts import count_pairs
from deshi.baselines._search import best_settings, sparse_ranks
from deshi.data.bundle import Bundle
from deshi.data.example_batches import ExampleBatches
from deshi.data.splits import LeaveOneOut
from deshi.metrics import rank_rows
from deshi.models.base import SequentialRecommender
from deshi.models.scorers import Scorer
from deshi.soft_labels import Histories, Labeller
from deshi.teachers.base import Resources
from deshi.teachers.item_embeddings import ItemEmbeddings
from deshi.teachers.pairwise import PairwiseTeacher
from deshi.testing.teachers import TeacherContract, history_batch
from deshi.types import PAD, Batch, DeshiError, ScoreKind
from tiny_bundles import batch_of, random_sequences, tiny_bundle


def fitted(bundle: Bundle, **settings: float) -> Pairwise:
    pairwise = Pairwise(**settings)  # type: ignore[arg-type]
    pairwise.fit(bundle, *LeaveOneOut()(bundle).train_ranges(bundle))
    return pairwise


def on_all(bundle: Bundle, **settings: float) -> Pairwise:
    pairwise = Pairwise(**settings)  # type: ignore[arg-type]
    pairwise.fit(bundle, bundle.offsets[:-1], bundle.offsets[1:])
    return pairwise


def test_counts_by_hand(tmp_path: Path) -> None:
    """Pairs of one user within the distance, each event more between them weighing half; no pair across users."""
    users, items = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 1, 2, 1, 2, 0])
    counts = count_pairs(users, items, 3, weights=np.array([1.0, 0.5])).toarray()
    assert counts.tolist() == [[0.0, 1.0, 0.5], [0.0, 0.5, 1.0], [1.0, 1.0, 0.0]]


def test_scores_by_hand(tmp_path: Path) -> None:
    """The formula of the paper on two users: the latest items' smoothed logarithms, weights that sum to 1."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2], [0, 2]], n_items=4)
    pairwise = on_all(bundle, max_distance=2, distance_decay=0.5, history_decay=0.5, smoothing=2.0)
    scores = pairwise.scores(batch_of([1, 0], [3]))
    # C[0] = (0, 1, 1.5, 0), C[1] = (0, 0, 1, 0); the last item weighs 2/3, the one before 1/3
    expected = [0.0, 2 / 3 * math.log(1.5), 2 / 3 * math.log(1.75) + 1 / 3 * math.log(1.5), 0.0]
    assert scores[0].tolist() == pytest.approx(expected)
    assert scores[1].tolist() == [0.0] * 4


@pytest.mark.parametrize(("small", "pairs"), [(0, 50), (60, 200), (20, 10)])
def test_full_and_sparse_tables_score_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int, pairs: int
) -> None:
    """How a table is held is a matter of speed; the way that pairs are counted, too: some rows at a time or all."""
    bundle = tiny_bundle(tmp_path, random_sequences(30, 20, 4, 12), n_items=20)
    full = on_all(bundle)
    monkeypatch.setattr("deshi.baselines._pairwise._FULL_SHARE", 1.0)
    monkeypatch.setattr("deshi.baselines._pair_counts._SMALL", small)
    monkeypatch.setattr("deshi.baselines._pair_counts._PAIRS", pairs)
    sparse = on_all(bundle)
    assert full._full is not None and sparse._full is None
    assert (full.counts != sparse.counts).nnz == 0
    batch = history_batch(20)
    torch.testing.assert_close(full.scores(batch), sparse.scores(batch), atol=1e-6, rtol=0)


def test_a_large_catalogue_keeps_the_greatest_counts_of_each_row(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory has a bound whatever the data: rows lose their least counts, and a line says so."""
    generator, weights = np.random.default_rng(1), 0.7 ** np.arange(4, dtype=np.float64)
    users, items = np.sort(generator.integers(20, size=300)), generator.integers(15, size=300)
    every = count_pairs(users, items, 15, weights).toarray()
    monkeypatch.setattr("deshi.baselines._pair_counts._SMALL", 30)
    monkeypatch.setattr("deshi.baselines._pair_counts._PAIRS", 100)
    monkeypatch.setattr("deshi.baselines._pair_counts._ENTRIES", 15 * 6)
    monkeypatch.setattr("deshi.baselines._pair_counts._LEAST_KEPT", 3)
    with caplog.at_level("INFO", logger="deshi"):
        kept = count_pairs(users, items, 15, weights).toarray()
    best = np.argsort(-every, axis=1, kind="stable")[:, :6]  # of equal counts the lower item
    expected = np.zeros_like(every)
    np.put_along_axis(expected, best, np.take_along_axis(every, best, axis=1), axis=1)
    assert np.array_equal(kept, expected) and (every > 0).sum() > 15 * 6
    assert "15 of 15 items keep their 6 greatest counts" in caplog.text


def test_pruning_leaves_the_table_as_it_is(tmp_path: Path) -> None:
    """Entries that half precision rounds to 0 are dropped from the served table, not from the counts."""
    pairwise = on_all(tiny_bundle(tmp_path, random_sequences(30, 20, 4, 12), n_items=20), smoothing=1e10)
    before = pairwise.table.copy()
    assert pairwise.pruned(50).table.nnz == 0 < before.nnz
    assert (pairwise.table != before).nnz == 0 and pairwise.table.nnz == before.nnz


def test_equal_evidence_ties_exactly(tmp_path: Path) -> None:
    """Sums of the same decays in another order must not break a tie: ranks of ties are means."""
    sequences = [[0, 5, 6, 1], [0, 1, 5, 6], [0, 6, 1, 5], [0, 2, 5, 6], [0, 6, 5, 2], [0, 5, 2, 6]]
    pairwise = on_all(tiny_bundle(tmp_path, sequences, n_items=7), max_distance=3, distance_decay=0.7)
    scores = pairwise.scores(batch_of([0]))[0]
    assert scores[1] == scores[2] > 0


class TestContract(TeacherContract):
    """Counts answer any history, at every position, whatever it is batched with."""

    @pytest.fixture
    def scorer(self, tmp_path: Path) -> Scorer:
        """Fitted on random histories."""
        return fitted(tiny_bundle(tmp_path, random_sequences(20, 12, 4, 9), n_items=12))


class TestLeaveUserOutContract(TestContract):
    """The same of the counts without the user."""

    @pytest.fixture
    def scorer(self, tmp_path: Path) -> Scorer:
        """Fitted on random histories of as many users as the contract's batches have."""
        return fitted(tiny_bundle(tmp_path, random_sequences(20, 12, 4, 9), n_items=12)).leave_user_out()


@pytest.mark.parametrize("smoothing", [0.3, 3.0])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_leave_user_out_is_counting_anew_without_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smoothing: float, share: float
) -> None:
    """At training rows the pair itself was counted: its subtraction must leave not even a rounding error."""
    monkeypatch.setattr("deshi.baselines._pairwise._FULL_SHARE", share)
    generator = np.random.default_rng(0)
    sequences = [generator.integers(10, size=generator.integers(3, 13)).tolist() for _ in range(15)]  # with repeats
    bundle = tiny_bundle(tmp_path, sequences, n_items=10)
    everybody = on_all(bundle, smoothing=smoothing).leave_user_out()
    for user in range(15):
        others = tiny_bundle(tmp_path / str(user), sequences[:user] + sequences[user + 1 :], n_items=10)
        anew = on_all(others, smoothing=smoothing)
        batch = batch_of(sequences[user], users=[user])
        where = batch.items != PAD
        expected = anew.position_scores(batch, where)
        assert torch.equal(everybody.position_scores(batch, where), expected)
        assert torch.equal(everybody.scores(batch), expected[-1:])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_leave_user_out_of_spread_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """The user's own pairs also leave the counts of similar items."""
    monkeypatch.setattr("deshi.baselines._pairwise._FULL_SHARE", share)
    generator = np.random.default_rng(0)
    sequences = [generator.integers(10, size=generator.integers(3, 13)).tolist() for _ in range(15)]
    similar = similar_items(torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), 3)
    spread = Pairwise(similar=similar, spread=0.7)
    spread.fit(bundle := tiny_bundle(tmp_path, sequences, n_items=10), bundle.offsets[:-1], bundle.offsets[1:])
    for user in range(15):
        others = tiny_bundle(tmp_path / str(user), sequences[:user] + sequences[user + 1 :], n_items=10)
        anew = Pairwise(similar=similar, spread=0.7)
        anew.fit(others, others.offsets[:-1], others.offsets[1:])
        batch = batch_of(sequences[user], users=[user])
        expected = anew.position_scores(batch, batch.items != PAD)
        found = spread.leave_user_out().position_scores(batch, batch.items != PAD)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_spread_counts_by_hand(tmp_path: Path) -> None:
    """Item 3, which nobody has, gets a share of the counts of the item that it resembles."""
    vectors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.3, 0.1], [0.0, 0.0, 0.0]])
    similar = similar_items(vectors, 1)
    assert similar.toarray().tolist() == [[0.0] * 5, [0, 0, 0, 1, 0], [0, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0.0] * 5]
    bundle = tiny_bundle(tmp_path, [[0, 1, 2], [0, 2]], n_items=5)
    pairwise = Pairwise(max_distance=2, distance_decay=0.5, smoothing=2.0, similar=similar, spread=0.5)
    pairwise.fit(bundle, bundle.offsets[:-1], bundle.offsets[1:])
    # C[0] = (0, 1, 1.5, 0, 0): items 1 and 2 resemble item 3 most, which has no counts; item 3 resembles item 1
    expected = [0.0, math.log(1.5), math.log(1.75), math.log(1.25), 0.0]
    assert pairwise.scores(batch_of([0]))[0].tolist() == pytest.approx(expected)
    assert pairwise.settings["spread"] == 0.5
    assert "spread" not in Pairwise().settings


def test_the_teacher_spreads_as_far_as_validation_likes(tmp_path: Path) -> None:
    """Users of two shelves go from an item to any of its shelf, and the vectors know the shelves: one's counts help."""
    generator = np.random.default_rng(2)
    sequences = [(generator.permutation(20)[:5] + 20 * (user % 2)).tolist() for user in range(60)]
    bundle = tiny_bundle(tmp_path, sequences, n_items=40)
    split = LeaveOneOut()(bundle)
    shelf = torch.arange(40) // 20
    vectors = torch.nn.functional.one_hot(shelf, 2) + 0.1 * torch.randn(
        40, 2, generator=torch.Generator().manual_seed(0)
    )

    class Shelves:
        def __call__(self, *_: object) -> torch.Tensor:
            return vectors

        def describe(self, *_: object) -> dict[str, str]:
            return {}

    class Even(Scorer):
        n_items, max_length, score_kind = 40, 5, ScoreKind.LOGIT

        def scores(self, batch: Batch) -> torch.Tensor:
            return torch.zeros(len(batch.items), 40)

    def no_student(name: str) -> tuple[SequentialRecommender, dict[str, Any]]:
        raise AssertionError("counts need no student")

    resources = Resources(
        bundle, tmp_path, no_student, torch.device("cpu"), lambda *_: (Even(), {}), lambda: split.train_ranges(bundle)
    )
    teacher = PairwiseTeacher(40, resources, members=["even"], embeddings=cast(ItemEmbeddings, Shelves()))
    batches = ExampleBatches(bundle, split.examples(bundle, "validation"), bundle.n_interactions, 16, True)
    state = teacher.fit(batches)
    tried = {trial["spread"]: trial["ndcg@10"] for trial in state["tried_beside"]}
    assert state["settings"]["spread"] > 0 and max(tried.values()) > tried[0.0]
    teacher.restore(state)
    assert teacher.counts.spread == state["settings"]["spread"]
    with pytest.raises(DeshiError, match="a spread only where teacher.embeddings"):
        PairwiseTeacher(40, resources, spread=1.0)


def test_similar_items_weigh_by_their_cosines() -> None:
    """The seventh power of the cosines, made to sum to 1; opposite items are not similar."""
    angles = torch.tensor([0.0, 0.3, 0.6, 3.1])
    table = similar_items(torch.stack([angles.cos(), angles.sin()], 1), 2).toarray()
    near, far = math.cos(0.3) ** 7, math.cos(0.6) ** 7
    assert table[0] == pytest.approx([0.0, near / (near + far), far / (near + far), 0.0], abs=1e-6)
    assert table.sum(1) == pytest.approx([1.0, 1.0, 1.0, 0.0])


def test_leave_user_out_of_an_augmented_history_and_of_new_items(tmp_path: Path) -> None:
    """Augmented histories and held-out items are answered by the others' counts, too."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2], [0, 2, 1], [3, 0, 1]], n_items=4)
    others = tiny_bundle(tmp_path / "others", [[0, 2, 1], [3, 0, 1]], n_items=4)
    batch = batch_of([0, 3, 1], [3, 3], users=[0, 0])
    assert torch.equal(on_all(bundle).leave_user_out().scores(batch), on_all(others).scores(batch))


def test_labels_leave_the_user_out_and_answers_do_not(tmp_path: Path) -> None:
    """A pair that only this user has: a label after its first item must not name the second, a served list does."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2], [3, 4, 5]], n_items=6)
    pairwise = on_all(bundle)
    rows = np.array([0])
    labelled = next(iter(Labeller(pairwise.leave_user_out(), Histories.of(bundle), 5).label(rows)))
    assert labelled[2].tolist() == [[0.0] * 5]
    answered = next(iter(Labeller(pairwise, Histories.of(bundle), 5).label(rows)))
    assert answered[1][0, 0] == 1 and answered[2][0, 0] > 0


def test_sparse_ranks_are_the_dense_ones() -> None:
    """The search ranks without full rows: ties, zeros, seen targets and padding must come out the same."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-4, 3, (64, 30), generator=generator).clamp(min=0).float()
    targets = torch.randint(30, (64, 3), generator=generator)
    targets[::3, 2] = PAD
    seen = torch.randint(-1, 30, (64, 6), generator=generator)
    expected = rank_rows(scores, targets, seen)[0]
    ranks = torch.from_numpy(sparse_ranks(csr_array(scores.numpy()), targets.numpy(), seen.numpy()))
    real = targets != PAD
    assert torch.equal(ranks[real], expected[real])


def test_settings_are_chosen_on_validation_with_training_counts(tmp_path: Path) -> None:
    """The chosen settings are the best of those tried, and validation events are not among the counts."""
    bundle = tiny_bundle(tmp_path, random_sequences(60, 15, 5, 12), n_items=15)
    split = LeaveOneOut()(bundle)
    pairwise = Pairwise()
    batches = list(ExampleBatches(bundle, split.examples(bundle, "validation"), 50, 16, True))
    tried = pairwise.search(training_events(bundle, *split.train_ranges(bundle)), batches)
    best = max(tried, key=lambda settings: settings["ndcg@10"])
    assert pairwise.settings == {name: value for name, value in best.items() if name != "ndcg@10"}
    assert pairwise.validation_ndcg(batches) == pytest.approx(best["ndcg@10"], abs=1e-12)
    assert len(pairwise.events.items) == bundle.n_interactions - 2 * 60
    assert Pairwise().choose(bundle, split) == pairwise.settings


def test_of_many_examples_the_search_ranks_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third batch where there are up to three times as many examples as the search takes; all of fewer."""
    bundle = tiny_bundle(tmp_path, random_sequences(60, 15, 5, 12), n_items=15)
    split = LeaveOneOut()(bundle)
    events = training_events(bundle, *split.train_ranges(bundle))
    batches = list(ExampleBatches(bundle, split.examples(bundle, "validation"), 50, 10, True))
    for most, drawn in ((60, batches), (20, batches[::3])):
        monkeypatch.setattr(Pairwise, "most_examples", most)
        pairwise = Pairwise()
        tried = pairwise.search(events, batches)
        best = max(trial["ndcg@10"] for trial in tried)
        assert pairwise.validation_ndcg(drawn) == pytest.approx(best, abs=1e-12)


def test_search_goes_from_grid_to_grid_and_leaves_fixed_settings() -> None:
    """Each grid starts from the best so far; what the user gave is not touched."""
    best, tried = best_settings(
        {"a": 0, "b": 0, "c": 5},
        [{"a": (0, 1, 2)}, {"b": (1, 2), "c": (6, 7)}],
        lambda settings: -((settings["a"] - 1) ** 2) - (settings["b"] - 2) ** 2,
        fixed=["c"],
    )
    assert best == {"a": 1, "b": 2, "c": 5} and len(tried) == 5


@pytest.mark.parametrize("settings", [{"max_distance": 0}, {"smoothing": 0.0}, {"history_decay": 1.5}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    """The message names what was got and what is expected."""
    with pytest.raises(DeshiError, match=f"{next(iter(settings))}={next(iter(settings.values()))}"):
        Pairwise(**settings)  # type: ignore[arg-type]


def test_history_beyond_its_weight_is_not_read(tmp_path: Path) -> None:
    """With a decay of 0.4 the eleventh latest item weighs a ten-thousandth: it is left out."""
    pairwise = fitted(tiny_bundle(tmp_path, random_sequences(20, 12, 4, 9), n_items=12), history_decay=0.4)
    assert len(pairwise.history_weights()) == 11
    assert len(Pairwise(history_decay=1.0).history_weights()) == 50
    assert history_batch(12).items.shape[1] == 5


def test_item_vectors_tell_what_occurs_together(tmp_path: Path) -> None:
    """Two groups of items that never meet: vectors in a group are nearer than across; an item without a pair has 0."""
    generator = np.random.default_rng(1)
    sequences = [(generator.permutation(5) + 5 * (user % 2)).tolist() for user in range(40)]
    pairwise = on_all(tiny_bundle(tmp_path, sequences, n_items=11))
    vectors = pairwise.item_vectors()
    assert vectors.shape == (11, 10) and not vectors[10].any()
    nearness = vectors @ vectors.T
    assert nearness[:5, :5].min() > nearness[:5, 5:10].max()
    assert np.array_equal(pairwise.item_vectors(), vectors)

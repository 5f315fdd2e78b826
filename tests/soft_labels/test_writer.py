"""Writing a store: the lists are right, both ways of asking agree, nothing foreign is taken up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deshi.auditing import audit_soft_labels
from deshi.data.bundle import Bundle
from deshi.data.splits import LeaveOneOut
from deshi.metrics import best_items
from deshi.models.scorers import Scorer
from deshi.soft_labels import Histories, Labeller, SoftLabels, choose_rows, write_lists, write_soft_labels
from deshi.soft_labels._progress import Progress, clock
from deshi.soft_labels._writer import cut
from deshi.types import PAD, Batch, DeshiError, ScoreKind
from hashed_scorer import META, Hashed, expected_list, sasrec, shop
from tiny_bundles import tiny_bundle


def history(bundle: Bundle, row: int) -> list[int]:
    user = int(np.searchsorted(bundle.offsets, row, side="right")) - 1
    return bundle.items[bundle.offsets[user] : row + 1].tolist()


@given(
    st.integers(0, 100),
    st.integers(1, 12),
    st.booleans(),
    st.integers(1, 9),
    st.integers(1, 20),
    st.sampled_from([0, 3]),
)
@settings(deadline=None, max_examples=25)
def test_the_writer_equals_a_brute_force_reference(
    tmp_path_factory: pytest.TempPathFactory, seed: int, k: int, filter_seen: bool, batch: int, shard: int, levels: int
) -> None:
    """Whatever rows, list length, batch and shard: lists are the sorted catalogue, ties included; others are empty."""
    folder = tmp_path_factory.mktemp("writer")
    bundle, scorer = shop(folder, users=6, items=10, longest=8, seed=seed), Hashed(10, levels)
    chosen = np.random.default_rng(seed).random(bundle.n_interactions) < 0.6
    chosen[0] = True
    store = write_soft_labels(
        Labeller(scorer, Histories.of(bundle), k, filter_seen=filter_seen, batch=batch),
        np.flatnonzero(chosen),
        folder / "store",
        teacher=META,
        shard_rows=shard,
    )
    for row in range(bundle.n_interactions):
        own = history(bundle, row)
        items, scores = expected_list(scorer.of(own), own, k, filter_seen) if chosen[row] else ([PAD] * k, [0.0] * k)
        assert store.items[row].tolist() == items
        np.testing.assert_array_equal(store.scores[row], np.array(scores, dtype=np.float32))
    assert not store.check(bundle).problems
    assert store.manifest["coverage"]["rows"] == store.covered.sum()


@pytest.mark.parametrize("max_length", [1, 4, 50])
def test_one_pass_and_one_by_one_give_the_same_lists(tmp_path: Path, max_length: int) -> None:
    """The pass over a history is the cheap way only as long as it answers as a question for each row does."""
    bundle = shop(tmp_path, users=15, longest=14)
    scorer = sasrec(bundle.n_items, max_length)
    plain = type("Plain", (Scorer,), {"n_items": scorer.n_items, "scores": lambda self, batch: scorer.scores(batch)})()
    rows = np.arange(bundle.n_interactions)
    found = [
        write_soft_labels(Labeller(each, Histories.of(bundle), 5, batch=7), rows, tmp_path / name, teacher=META)
        for name, each in (("pass", scorer), ("each", plain))
    ]
    np.testing.assert_array_equal(found[0].items, found[1].items)
    np.testing.assert_allclose(found[0].scores, found[1].scores, rtol=1e-4, atol=1e-5)


def test_a_pass_answers_early_rows_and_never_late_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond max_length a window no longer begins at the first event, so a pass from there would answer otherwise."""
    bundle = tiny_bundle(tmp_path, [list(range(10)), [3, 4]])
    scorer, passes, singles = sasrec(10, 4), list[int](), list[int]()
    position_scores, scores = scorer.position_scores, scorer.scores

    def in_one_pass(batch: Batch, where: torch.Tensor) -> torch.Tensor:
        passes.extend(batch.rows[where].tolist())
        return position_scores(batch, where)

    def one_by_one(batch: Batch) -> torch.Tensor:
        singles.extend(batch.rows[torch.arange(len(batch.lengths)), batch.lengths - 1].tolist())
        return scores(batch)

    monkeypatch.setattr(scorer, "position_scores", in_one_pass)
    monkeypatch.setattr(scorer, "scores", one_by_one)
    lists = list(Labeller(scorer, Histories.of(bundle), 3).label(np.arange(12)))
    assert sorted(passes) == [0, 1, 2, 3, 10, 11] and sorted(singles) == [4, 5, 6, 7, 8, 9]
    assert sorted(np.concatenate([rows for rows, _, _ in lists]).tolist()) == list(range(12))


@pytest.mark.parametrize("min_context", [1, 2, 3])
@pytest.mark.parametrize("batch", [3, 256])
def test_windows_answer_as_a_question_with_their_events_does(tmp_path: Path, min_context: int, batch: int) -> None:
    """A late row reads its window's events, more than ``min_context`` of them, and filters the whole history's."""
    histories = [[int(i) for i in np.random.default_rng(n).permutation(20)[:n]] for n in (3, 4, 5, 11, 20)]
    bundle, scorer = tiny_bundle(tmp_path, histories), sasrec(20, 4)
    rows = np.flatnonzero(np.random.default_rng(0).random(bundle.n_interactions) < 0.8)
    labeller = Labeller(scorer, Histories.of(bundle), 6, batch=batch, min_context=min_context)
    answered = list[int]()
    for numbers, items, _ in labeller.label(rows):
        for row, listed in zip(numbers.tolist(), items, strict=True):
            begin = int(bundle.offsets[np.searchsorted(bundle.offsets, row, side="right") - 1])
            step, window = 4 - min_context, begin
            while row - window >= 4:
                window += step
            assert row - window + 1 > min_context or window == begin
            read = torch.from_numpy(bundle.items[window : row + 1].astype(np.int64))[None]
            nobody = torch.full_like(read, PAD)
            asked = Batch(torch.zeros(1, dtype=torch.int64), read, torch.tensor([read.shape[1]]), nobody, nobody)
            seen = torch.from_numpy(bundle.items[begin : row + 1].astype(np.int64))[None]
            expected, _ = best_items(scorer.scores(asked), seen, 6)
            assert listed.tolist() == expected[0].tolist()
            answered.append(row)
    assert sorted(answered) == rows.tolist()


def test_a_window_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """With all of max_length, or a teacher of whole histories, there is no window; and it is another request."""
    bundle = tiny_bundle(tmp_path, [list(range(10)), [3, 4]])
    with pytest.raises(DeshiError, match="reads 4 events in one pass. Give a number from 1 to 3"):
        Labeller(sasrec(10, 4), Histories.of(bundle), 3, min_context=4)
    with pytest.raises(DeshiError, match="scores whole histories only. Leave it out"):
        Labeller(Hashed(bundle.n_items), Histories.of(bundle), 3, min_context=2)
    rows, scorer = np.arange(12), sasrec(10, 4)
    write_soft_labels(Labeller(scorer, Histories.of(bundle), 3), rows, tmp_path / "store", teacher=META)
    with pytest.raises(DeshiError, match="min_context"):
        write_soft_labels(
            Labeller(scorer, Histories.of(bundle), 3, min_context=2), rows, tmp_path / "store", teacher=META
        )


def test_ties_go_to_the_smaller_index_and_minus_infinity_is_no_candidate() -> None:
    """A rule that depended on the device or the library would make stores differ without a reason."""
    scores = torch.tensor([[1.0, 2.0, 2.0, 2.0, 1.0], [0.0, -torch.inf, -torch.inf, -torch.inf, 0.0]])
    items, values = best_items(scores, torch.tensor([[2, PAD], [PAD, PAD]]), 3)
    assert items.tolist() == [[1, 3, 0], [0, 4, PAD]]
    assert values.tolist() == [[2.0, 2.0, 1.0], [0.0, 0.0, 0.0]]


def test_log_probabilities_are_over_all_candidates(tmp_path: Path) -> None:
    """With them, what a list leaves to the rest of the catalogue is known."""
    bundle = shop(tmp_path)
    rows, scorer = np.arange(bundle.n_interactions), Hashed(bundle.n_items)
    store = write_soft_labels(
        Labeller(scorer, Histories.of(bundle), 30, normalise=True), rows, tmp_path / "store", teacher=META
    )
    assert store.manifest["score_kind"] == "log_probability"
    mass = np.where(store.items == PAD, 0, np.exp(store.scores)).sum(1)
    np.testing.assert_allclose(mass, 1, rtol=1e-5)


def test_float16_neither_overflows_nor_loses_the_order(tmp_path: Path) -> None:
    """Logits of an unnormalised teacher may be huge, and the best of them close together."""

    class Huge(Hashed):
        def of(self, history: Sequence[int]) -> np.ndarray:
            return 1e6 + 1e5 * super().of(history)

    bundle = shop(tmp_path)
    rows, scorer = np.arange(bundle.n_interactions), Huge(bundle.n_items)
    exact = write_soft_labels(Labeller(scorer, Histories.of(bundle), 8), rows, tmp_path / "exact", teacher=META)
    small = write_soft_labels(
        Labeller(scorer, Histories.of(bundle), 8), rows, tmp_path / "small", teacher=META, dtype="float16"
    )
    np.testing.assert_array_equal(exact.items, small.items)
    assert small.scores.dtype == np.float16 and not small.check(bundle).problems
    assert small.manifest["score_shift"] == "row maximum" and (small.scores[:, 0] == 0).all()
    with pytest.raises(DeshiError, match="use float32"):
        write_soft_labels(
            Labeller(scorer, Histories.of(bundle), 8),
            rows,
            tmp_path / "score",
            teacher=META,
            dtype="float16",
            score_kind=ScoreKind.SCORE,
        )


def test_a_finished_store_is_handed_back_and_another_request_is_refused(tmp_path: Path) -> None:
    """Nobody waits twice for a teacher, and nobody loses one store to the mistyped name of another."""
    bundle = shop(tmp_path)
    rows, scorer, folder = np.arange(bundle.n_interactions), Hashed(bundle.n_items), tmp_path / "store"
    write_soft_labels(Labeller(scorer, Histories.of(bundle), 5), rows, folder, teacher=META)
    asked = len(scorer.asked)
    write_soft_labels(Labeller(scorer, Histories.of(bundle), 5), rows, folder, teacher=META)
    assert len(scorer.asked) == asked
    with pytest.raises(DeshiError, match=r"k: 5 -> 6.*force=true"):
        write_soft_labels(Labeller(scorer, Histories.of(bundle), 6), rows, folder, teacher=META)
    with pytest.raises(DeshiError, match=r"teacher\.name: tester -> other"):
        write_soft_labels(Labeller(scorer, Histories.of(bundle), 5), rows, folder, teacher={**META, "name": "other"})
    assert write_soft_labels(Labeller(scorer, Histories.of(bundle), 6), rows, folder, teacher=META, force=True).k == 6
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_audit_accepts_what_is_written(tmp_path: Path) -> None:
    """`deshi audit soft_labels=` reads these files: both sides must mean the same by them."""
    bundle = shop(tmp_path)
    vectors = torch.randn(bundle.n_items, 4, generator=torch.Generator().manual_seed(0))
    rows = choose_rows("last:3+held_out", bundle, LeaveOneOut()(bundle))
    store = write_soft_labels(
        Labeller(Hashed(bundle.n_items), Histories.of(bundle), 40),
        rows,
        tmp_path / "store",
        teacher=META,
        item_embeddings=vectors,
    )
    assert audit_soft_labels(store.path, bundle) == []
    torch.testing.assert_close(store.item_embeddings(), vectors)
    assert store.manifest["coverage"] == {
        "rows": len(rows), "requested": len(rows), "full_lists": 0, "of": bundle.n_interactions,
    }  # fmt: skip


def test_a_repeat_that_no_list_can_hold_is_counted(tmp_path: Path) -> None:
    """With seen items left out, a user's return to an item can't be taught: the reader of the manifest must know."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 0, 2, 1], [3, 3]])
    store = write_soft_labels(
        Labeller(Hashed(4), Histories.of(bundle), 3), np.arange(7), tmp_path / "store", teacher=META
    )
    repeats = store.manifest["repeats"]
    assert (repeats["rows_with_next"], repeats["next_seen_before"]) == (5, 3) and "can't" in repeats["note"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": np.array([3, 2])}, "ascending"),
        ({"rows": np.array([], dtype=np.int64)}, "at least one"),
        ({"rows": np.array([0, 10_000])}, "from 0 to 10000, expected 0 to"),
        ({"k": 0}, "k is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"shard_rows": 0}, "shard_rows is 0"),
        ({"teacher": {}}, "expected at least its name"),
        ({"score_kind": "points"}, "score_kind is 'points'"),
        ({"score_kind": "probability", "normalise": True}, "normalise"),
        ({"scorer": Hashed(7)}, "knows 7 items"),
        ({"item_embeddings": torch.zeros(31, 2)}, r"\(31, 2\), expected \(30, D\).*padding"),
        ({"item_embeddings": torch.full((30, 2), torch.nan)}, "30 rows with NaN"),
    ],
)
def test_what_can_not_be_written_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """Each mistake would otherwise show as a student that learns nonsense."""
    bundle = shop(tmp_path)
    lists: dict[str, Any] = {"scorer": Hashed(30), "k": 3}
    lists |= {key: change.pop(key) for key in ("scorer", "k", "batch", "normalise") if key in change}
    request: dict[str, Any] = {"rows": np.arange(3), "teacher": META} | change
    with pytest.raises(DeshiError, match=message):
        labeller = Labeller(histories=Histories.of(bundle), **lists)
        write_soft_labels(labeller, folder=tmp_path / "store", **request)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_teacher_that_diverged_is_refused_with_the_row(tmp_path: Path, bad: float) -> None:
    """NaN sorts anywhere; the lists after it would be noise without a sign of it."""

    class Broken(Hashed):
        def of(self, history: Sequence[int]) -> np.ndarray:
            scores = super().of(history)
            return np.where(len(history) == 2, np.float32(bad), scores)

    bundle = tiny_bundle(tmp_path, [[0, 1, 2], [1, 2, 0]])
    with pytest.raises(DeshiError, match=r"in 2 of 6 rows, first row (1|4) \(user index (0|1)\)"):
        write_soft_labels(Labeller(Broken(3), Histories.of(bundle), 2), np.arange(6), tmp_path / "store", teacher=META)


def test_progress_counts_every_row_and_estimates_what_is_left(tmp_path: Path) -> None:
    """Hours of export are bearable only with a sign of how many they are."""
    bundle, seen = shop(tmp_path), list[Progress]()
    write_soft_labels(
        Labeller(Hashed(bundle.n_items), Histories.of(bundle), 3, batch=5),
        np.arange(bundle.n_interactions),
        tmp_path / "store",
        teacher=META,
        progress=seen.append,
    )
    assert [moment.done for moment in seen] == sorted(moment.done for moment in seen)
    assert seen[-1].done == seen[-1].total == bundle.n_interactions and seen[-1].remaining == 0
    assert str(Progress(10, 40, 2.0, 5.0)) == "10 of 40 rows (25.0 %), 2.0 rows/s, 15 s left"
    assert [clock(seconds) for seconds in (5, 65, 3720)] == ["5 s", "1 min 05 s", "1 h 02 min"]
    times = json.loads((tmp_path / "store" / "time.json").read_text())
    assert times["rows"] == bundle.n_interactions and times["export_seconds"] >= 0


def test_shards_hold_every_row_once_and_no_history_twice(tmp_path: Path) -> None:
    """A history in two shards would be read twice; a row in none would be missing."""
    bundle = shop(tmp_path, users=30)
    histories = Histories.of(bundle)
    rows = np.flatnonzero(np.random.default_rng(0).random(bundle.n_interactions) < 0.5)
    for size in (1, 7, 1000):
        shards = cut(rows, histories, size)
        assert np.concatenate(shards).tolist() == rows.tolist()
        owners = [np.unique(histories.owners(shard)).tolist() for shard in shards]
        assert sum(len(each) for each in owners) == len(np.unique(histories.owners(rows)))


def test_lists_from_elsewhere_become_a_store(tmp_path: Path) -> None:
    """Importers hand over arrays; they must be checked as hard as a teacher's answers."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2], [3, 4, 0]], n_items=6)
    items, scores = np.array([[5, 3], [4, PAD]]), np.array([[1.0, 0.5], [0.25, 0.0]])
    rows = np.array([1, 4])
    store = write_lists(rows, items, scores, Histories.of(bundle), tmp_path / "store", teacher=META, filter_seen=False)
    assert store.rows(rows)[0].tolist() == items.tolist() and store.covered.sum() == 2
    assert SoftLabels.load(tmp_path / "store", bundle, check=True).manifest["score_kind"] == "score"
    for change, message in [
        ((np.array([[5, 5], [4, PAD]]), scores), "1 of 2 rows list an item twice, such as 0"),
        ((np.array([[5, 6], [4, PAD]]), scores), "no item of the catalogue"),
        ((items, scores[:, ::-1]), "rise along the list"),
        ((items[:1], scores), "expected"),
    ]:
        with pytest.raises(DeshiError, match=message):
            write_lists(rows, *change, Histories.of(bundle), tmp_path / "other", teacher=META)
    with pytest.raises(DeshiError, match="of their own history"):
        write_lists(
            rows,
            np.array([[5, 3], [4, 3]]),
            scores,
            Histories.of(bundle),
            tmp_path / "x",
            teacher=META,
            filter_seen=True,
        )

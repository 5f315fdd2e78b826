"""Inspecting a store: a teacher that learnt by heart must be caught, an honest one must not be accused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deshi.data.bundle import Bundle
from deshi.data.sequences import Augmentation
from deshi.data.splits import LeaveOneOut, Ratio
from deshi.soft_labels import (
    Histories,
    Inspection,
    Labeller,
    SoftLabels,
    augment_histories,
    choose_rows,
    inspect_soft_labels,
    row_targets,
    sharpness,
    write_soft_labels,
)
from deshi.soft_labels._agreement import jaccard, rbo
from deshi.types import PAD, DeshiError, ScoreKind
from hashed_scorer import META, Hashed, shop
from tiny_bundles import random_sequences, tiny_bundle

USERS, ITEMS = 60, 40


class Memoriser(Hashed):
    """Knows the next item of every history that it was shown, and nothing else."""

    def __init__(self, bundle: Bundle, ends: np.ndarray) -> None:
        super().__init__(bundle.n_items)
        self.next = {
            tuple(bundle.items[start : row + 1].tolist()): int(bundle.items[row + 1])
            for start, end in zip(bundle.offsets[:-1], ends, strict=True)
            for row in range(start, end - 1)
        }

    def of(self, history: Sequence[int]) -> np.ndarray:
        scores = super().of(history)
        if tuple(history) in self.next:
            scores[self.next[tuple(history)]] = 10.0
        return scores


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    titles = pl.DataFrame(
        {"item_id": [f"i{item}" for item in range(ITEMS)], "title": [f"Film [{i}]" for i in range(ITEMS)]}
    )
    sequences = random_sequences(USERS, ITEMS, 5, 12)
    return tiny_bundle(tmp_path_factory.mktemp("data"), sequences, n_items=ITEMS, items=titles)


def written(bundle: Bundle, folder: Path, scorer: Hashed, positions: str = "train+held_out", k: int = 12) -> SoftLabels:
    rows = choose_rows(positions, bundle, LeaveOneOut()(bundle))
    return write_soft_labels(
        Labeller(scorer, Histories.of(bundle), k), rows, folder / "store", teacher=META, positions=positions
    )


def inspected(bundle: Bundle, store: SoftLabels, **options: Any) -> Inspection:
    return inspect_soft_labels(store, bundle, LeaveOneOut()(bundle), samples=300, **options)


def test_a_teacher_that_learnt_by_heart_is_caught(bundle: Bundle, tmp_path: Path) -> None:
    """Perfect at training rows, chance at held-out ones: the very trap that out-of-sample knowledge is for."""
    scorer = Memoriser(bundle, LeaveOneOut()(bundle).train_end)
    result = inspected(bundle, written(bundle, tmp_path, scorer))
    train, last, validation = (result.part(name) for name in ("train", "train-last", "validation"))
    assert last.metrics["hr@1"].mean == last.metrics["mrr@12"].mean == 1.0
    assert train.metrics["hr@1"].mean > 0.9  # some users begin with the same item and go on with different ones
    assert validation.metrics["hr@10"].mean < 0.6
    assert (result.gap.verdict, result.gap.trained, result.gap.held_out) == ("memorised", "train-last", "validation")
    assert result.gap.difference is not None and result.gap.difference.low > 0.2
    assert train.entropy < validation.entropy, "what is learnt by heart is said with certainty"
    assert "cross_fit" in result.gap.sentence


def test_an_honest_teacher_is_not_accused(bundle: Bundle, tmp_path: Path) -> None:
    """A scorer that never saw any answer has the same chance everywhere."""
    result = inspected(bundle, written(bundle, tmp_path, Hashed(ITEMS)))
    assert result.gap.verdict == "none seen"
    for name in ("train", "validation", "test"):
        interval = result.part(name).metrics["hr@10"]
        assert interval.low <= 10 / 35 <= interval.high + 0.1


@pytest.mark.parametrize(
    ("positions", "verdict", "trained", "held"),
    [
        ("train", "unknown", "train-last", None),
        ("held_out", "unknown", None, "validation"),
        ("train+test", "memorised", "train-last", "test"),
    ],
)
def test_the_gap_needs_rows_of_both_kinds(
    bundle: Bundle, tmp_path: Path, positions: str, verdict: str, trained: str | None, held: str | None
) -> None:
    """Without held-out rows there is nothing to say; the sentence names the option that changes that."""
    scorer = Memoriser(bundle, LeaveOneOut()(bundle).train_end)
    gap = inspected(bundle, written(bundle, tmp_path, scorer, positions)).gap
    assert (gap.verdict, gap.trained, gap.held_out) == (verdict, trained, held)
    assert verdict != "unknown" or "positions=" in gap.sentence


def test_what_came_next_is_read_from_the_right_events(tmp_path: Path) -> None:
    """Off by one here, and every figure would be about another item."""
    bundle = tiny_bundle(tmp_path, [[4, 3, 2, 1, 0], [1, 2]])
    found = {each.name: each for each in row_targets(Histories.of(bundle), bundle, LeaveOneOut()(bundle))}
    told = {name: list(zip(each.rows.tolist(), each.items.tolist(), strict=True)) for name, each in found.items()}
    assert told == {
        "train": [(0, 3), (1, 2), (5, 2)], "train-last": [(1, 2), (5, 2)], "validation": [(2, 1)], "test": [(3, 0)],
    }  # fmt: skip
    split = Ratio(0.2, 0.4, "all")(bundle)
    test = row_targets(Histories.of(bundle), bundle, split)[-1]
    assert (test.rows.tolist(), test.items.tolist()) == ([2], [1])


def test_coverage_and_figures_agree_with_a_count_by_hand(bundle: Bundle, tmp_path: Path) -> None:
    """The means of a table are worth what a plain loop says."""
    store = written(bundle, tmp_path, Hashed(ITEMS), "last:2+test", k=5)
    result = inspected(bundle, store)
    split = LeaveOneOut()(bundle)
    rows = choose_rows("last:2", bundle, split)
    hits = [int(bundle.items[row + 1]) in store.items[row].tolist() for row in rows]
    part = result.part("train")
    assert (part.rows, part.positions) == (len(rows), len(choose_rows("train", bundle, split)))
    assert part.metrics["hr@5"].mean == pytest.approx(np.mean(hits)) and set(part.metrics) == {"hr@1", "hr@5", "mrr@5"}
    events = np.bincount(
        np.concatenate([bundle.items[s:e] for s, e in zip(*split.train_ranges(bundle), strict=True)]), minlength=ITEMS
    )
    assert part.target_events == pytest.approx(np.mean([events[bundle.items[row + 1]] for row in rows]))
    assert part.listed_events == pytest.approx(np.mean([events[store.items[row]].mean() for row in rows]))
    assert result.part("validation").rows == 0 and result.covered == store.covered.sum()


def test_overlap_with_a_store_and_with_a_student(bundle: Bundle, tmp_path: Path) -> None:
    """A list is wholly like itself; and asking the student gives what its store holds."""
    first = written(bundle, tmp_path / "a", Hashed(ITEMS))
    same = inspected(bundle, first, other=Hashed(ITEMS), other_name="itself").overlap
    assert same is not None and (same.jaccard, same.rbo, same.same_first, same.k) == (1.0, pytest.approx(1.0), 1.0, 10)
    other = Hashed(ITEMS, levels=50)
    by_store = inspected(bundle, first, other=written(bundle, tmp_path / "b", other, "all"), sample=100).overlap
    by_student = inspected(bundle, first, other=other, sample=100).overlap
    assert by_store is not None and by_student is not None
    assert by_store.jaccard == by_student.jaccard < 0.5 and by_store.rows == 100


def test_augmented_histories_are_inspected_too(bundle: Bundle, tmp_path: Path) -> None:
    """The proof that a memoriser's knowledge is out of sample on histories that it was not shown."""
    split = LeaveOneOut()(bundle)
    augmented = augment_histories(bundle, split, Augmentation(item_drop=0.6), copies=2)
    rows = choose_rows("train+held_out", bundle, split, augmented)
    scorer = Memoriser(bundle, split.train_end)
    store = write_soft_labels(Labeller(scorer, augmented, 12), rows, tmp_path / "store", teacher=META)
    result = inspected(bundle, store)
    held = result.part("validation")
    assert held.rows == held.positions == len(augmented.users) and result.part("train").rows == len(rows) - held.rows
    plain = inspected(bundle, written(bundle, tmp_path / "plain", scorer))
    assert result.part("train").metrics["hr@1"].mean < 0.6 < plain.part("train").metrics["hr@1"].mean
    with pytest.raises(DeshiError, match="other histories"):
        inspected(bundle, store, other=written(bundle, tmp_path / "b", scorer))


def test_the_result_shows_itself(bundle: Bundle, tmp_path: Path) -> None:
    """Terminal, notebook and JSON get the same figures; titles with brackets are no markup."""
    result = inspected(bundle, written(bundle, tmp_path, Hashed(ITEMS)), other=Hashed(ITEMS), other_name="my student")
    text = str(result)
    for wanted in (
        "What came next",
        "train-last",
        "HR@10",
        "Jaccard@10 with my student",
        "Film [",
        result.gap.sentence[:40],
    ):
        assert wanted in text
    assert "What came next" in result._repr_html_()
    assert len(result.examples) == 4 and {one.part for one in result.examples} == {"train", "validation", "test"}
    told = json.loads(json.dumps(result.as_dict()))
    assert told["gap"]["verdict"] == result.gap.verdict and told["overlap"]["jaccard"] == 1.0


def test_the_same_seed_gives_the_same_inspection(bundle: Bundle, tmp_path: Path) -> None:
    """Sampled rows, intervals and examples are drawn; drawn again they must be the same."""
    store = written(bundle, tmp_path, Hashed(ITEMS))
    first, again, other = (str(inspected(bundle, store, sample=20, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_foreign_and_empty_stores_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    """Titles of other items would look like a bad teacher."""
    store = written(bundle, tmp_path, Hashed(ITEMS))
    with pytest.raises(DeshiError, match="isn't about"):
        inspected(shop(tmp_path, items=ITEMS), store)
    full = tiny_bundle(tmp_path / "full", [[0, 1]])
    rows = np.array([1])
    nothing = write_soft_labels(Labeller(Hashed(2), Histories.of(full), 1), rows, tmp_path / "nothing", teacher=META)
    with pytest.raises(DeshiError, match="covers no row"):
        inspected(full, nothing)


def test_sharpness_of_each_kind_of_score() -> None:
    """The same distribution as logits, log-probabilities and probabilities has one entropy; an order has none."""
    items = np.array([[3, 1, 2, PAD], [PAD] * 4])
    shares = np.array([0.5, 0.25, 0.125])
    expected = -(shares / shares.sum() * np.log(shares / shares.sum())).sum()
    rows = {"logit": np.log(shares) + 7, "log_probability": np.log(shares), "probability": shares}
    for kind, values in rows.items():
        scores = np.zeros((2, 4), dtype=np.float32)
        scores[0, :3] = values
        entropy, mass = sharpness(items, scores, ScoreKind(kind))
        assert entropy[0] == pytest.approx(expected, rel=1e-5) and math.isnan(entropy[1])
        assert math.isnan(mass[0]) if kind == "logit" else mass[0] == pytest.approx(0.875, rel=1e-5)
    assert np.isnan(sharpness(items, np.zeros((2, 4), dtype=np.float32), ScoreKind.RANK)).all()


def test_agreement_by_hand() -> None:
    """Jaccard counts what is shared, RBO where it is shared."""
    lists = np.array([[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, PAD, PAD], [PAD] * 3])
    others = np.array([[1, 2, 3], [3, 2, 1], [7, 8, 9], [1, PAD, PAD], [PAD] * 3])
    np.testing.assert_allclose(jaccard(lists, others), [1, 1, 0, 1, np.nan])
    weights = np.array([1, 0.9, 0.81])
    np.testing.assert_allclose(rbo(lists, others), [1, (np.array([0, 0.5, 1]) @ weights) / weights.sum(), 0, 1, np.nan])
    with pytest.raises(DeshiError, match="shapes"):
        jaccard(lists, others[:, :2])
    with pytest.raises(DeshiError, match="persistence"):
        rbo(lists, others, 1.0)


@given(st.permutations(range(8)), st.permutations(range(8)), st.integers(1, 8))
@settings(deadline=None, max_examples=50)
def test_agreement_keeps_its_bounds(first: list[int], second: list[int], length: int) -> None:
    """Symmetric, from 0 to 1, and 1 for equal lists."""
    one, two = np.array([first[:length]]), np.array([second[:length]])
    for measure in (jaccard, rbo):
        assert measure(one, two)[0] == pytest.approx(measure(two, one)[0])
        assert -1e-12 <= measure(one, two)[0] <= 1 + 1e-12 and measure(one, one)[0] == pytest.approx(1)

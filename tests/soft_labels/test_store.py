"""Opening a store: what doesn't belong to the data, or isn't what it says, must not be taught."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from deshi.data.bundle import Bundle
from deshi.soft_labels import Histories, Labeller, SoftLabels, write_soft_labels
from deshi.soft_labels._checks import check_lists
from deshi.types import PAD, DeshiError
from hashed_scorer import META, Hashed, shop
from tiny_bundles import tiny_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return shop(tmp_path)


@pytest.fixture
def store(tmp_path: Path, bundle: Bundle) -> SoftLabels:
    """A store of every other row."""
    rows = np.arange(0, bundle.n_interactions, 2)
    return write_soft_labels(
        Labeller(Hashed(bundle.n_items), Histories.of(bundle), 4), rows, tmp_path / "store", teacher=META
    )


def edit(store: SoftLabels, **changes: Any) -> None:
    """Change the manifest; None removes an entry."""
    manifest = {key: value for key, value in (store.manifest | changes).items() if value is not None}
    (store.path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def test_rows_are_the_lists_of_their_events(store: SoftLabels, bundle: Bundle) -> None:
    """A batch's row numbers, padding included, must find their lists in one call and in any shape."""
    items, scores = store.rows(torch.tensor([[0, 2, PAD], [4, 1, PAD]]))
    assert items.shape == scores.shape == (2, 3, 4)
    assert items[0, 1].tolist() == store.items[2].tolist() and scores[0, 1].tolist() == store.scores[2].tolist()
    assert (items[:, 2] == PAD).all() and (scores[:, 2] == 0).all()
    assert (items[1, 1] == PAD).all(), "row 1 isn't covered"
    assert (items.dtype, scores.dtype) == (np.int64, np.float32)
    with pytest.raises(DeshiError, match=f"Got row {bundle.n_interactions}, expected"):
        store.rows([0, bundle.n_interactions])
    assert store.covered.tolist() == [row % 2 == 0 for row in range(bundle.n_interactions)]
    assert (store.teacher, store.k, store.augmented) == ("tester", 4, False)


def test_the_frame_names_users_positions_and_items(store: SoftLabels, bundle: Bundle) -> None:
    """Someone who looks at labels in a notebook thinks in ids, not in flat row numbers."""
    frame = store.frame(bundle)
    assert frame.columns == ["user_id", "position", "item_id", "score", "rank"]
    assert frame.height == (store.items != PAD).sum()
    row = int(bundle.offsets[1]) + int(bundle.offsets[1]) % 2  # the second user's first covered row
    labels = store.frame(bundle, np.array([row]))
    assert labels["user_id"].unique().to_list() == [bundle.users["user_id"][1]]
    assert labels["position"].unique().to_list() == [row - int(bundle.offsets[1])]
    ids = bundle.vocabulary["item_id"].to_list()
    assert labels["item_id"].to_list() == [ids[item] for item in store.items[row]]
    assert labels["score"].to_list() == store.scores[row].tolist() and labels["rank"].to_list() == [1, 2, 3, 4]
    assert frame.filter(user_id=labels["user_id"][0], position=labels["position"][0]).equals(labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 99}, "schema 99, expected 1"),
        ({"schema": None}, "schema none, expected 1"),
        ({"score_kind": None, "k": None}, "lacks k, score_kind"),
        ({"score_direction": "lower is better"}, "lower is better"),
        ({"score_kind": "stars"}, "'stars'"),
        ({"data_fingerprint": "0f0f"}, "fingerprint 0f0f, but tiny in .* has fingerprint [0-9a-f]{64}"),
        ({"n_items": 29}, "about 29 items, tiny has 30"),
        ({"k": 5}, r"int32\(\d+, 4\), expected int32\(\d+, 5\)"),
        ({"score_dtype": "float16"}, "float32.* expected float16"),
    ],
)
def test_a_store_that_is_not_what_it_says_is_refused(
    store: SoftLabels, bundle: Bundle, changes: dict[str, Any], message: str
) -> None:
    """A stale store teaches other items under the same numbers, and nothing else would show it."""
    edit(store, **changes)
    with pytest.raises(DeshiError, match=message):
        SoftLabels.load(store.path, bundle)


def test_a_store_of_other_data_is_refused(store: SoftLabels, tmp_path: Path) -> None:
    """The same number of events and items isn't enough."""
    other = shop(tmp_path / "other", seed=1)
    with pytest.raises(DeshiError, match="Prepare the data as they were for it"):
        SoftLabels.load(store.path, other)


def test_missing_and_damaged_files_are_named(store: SoftLabels, tmp_path: Path) -> None:
    """The reader must learn which file, and that writing it again helps."""
    (store.path / "topk_scores.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DeshiError, match=r"topk_scores\.npy can't be read"):
        SoftLabels.load(store.path)
    (store.path / "topk_items.npy").unlink()
    with pytest.raises(DeshiError, match=r"topk_items\.npy can't be read.*Write the store again"):
        SoftLabels.load(store.path)
    with pytest.raises(DeshiError, match="There is no soft-label store"):
        SoftLabels.load(tmp_path / "nowhere")


Spoil = Callable[[np.ndarray, np.ndarray], None]


def _gap(items: np.ndarray, scores: np.ndarray) -> None:
    items[0, 1] = PAD
    scores[0, 1] = scores[0, 0]


def _duplicate(items: np.ndarray, scores: np.ndarray) -> None:
    items[[0, 4], 3] = items[[0, 4], 0]


def _outside(items: np.ndarray, scores: np.ndarray) -> None:
    items[2, 1], items[4, 0] = 30, -2


def _seen(bundle: Bundle) -> Spoil:
    def spoil(items: np.ndarray, scores: np.ndarray) -> None:
        items[0, 3] = bundle.items[0]

    return spoil


def _nan(items: np.ndarray, scores: np.ndarray) -> None:
    scores[2, 2], scores[6, 0] = np.nan, np.inf


def _rising(items: np.ndarray, scores: np.ndarray) -> None:
    scores[4] = scores[4, ::-1].copy()


def _padded(items: np.ndarray, scores: np.ndarray) -> None:
    scores[1, 0] = 3.0


@pytest.mark.parametrize(
    ("spoil", "kind", "rows"),
    [
        (_gap, "gap", [0]), (_duplicate, "duplicates", [0, 4]), (_outside, "outside", [2, 4]), (_nan, "nan", [2, 6]),
        (_rising, "unsorted", [4]), (_padded, "padded_score", [1]), (None, "seen", [0]),
    ],
)  # fmt: skip
def test_each_fault_is_counted_with_its_rows(
    store: SoftLabels, bundle: Bundle, spoil: Spoil | None, kind: str, rows: list[int]
) -> None:
    """One planted fault a kind: a check that misses it, or names other rows, is worth nothing."""
    items, scores = np.array(store.items), np.array(store.scores)
    (spoil or _seen(bundle))(items, scores)
    seen = store.histories(bundle).first_events().seen
    report = check_lists(items, scores, bundle.n_items, seen)
    found = {problem.kind: problem for problem in report.problems}
    assert found[kind].examples == rows and found[kind].count == len(rows)
    assert set(found) - {kind, "outside", "padded_score"} == set(), "one fault must not be taken for another"
    with pytest.raises(DeshiError, match=f"{len(rows):,} of"):
        report.refuse()


def test_a_changed_file_and_a_wrong_coverage_are_found(store: SoftLabels, bundle: Bundle) -> None:
    """Lists that were edited after they were written are somebody's, but not this teacher's."""
    assert not store.check(bundle).problems
    items = np.array(store.items)
    items[0] = PAD
    scores = np.array(store.scores)
    scores[0] = 0
    np.save(store.path / "topk_items.npy", items)
    np.save(store.path / "topk_scores.npy", scores)
    report = SoftLabels.load(store.path, bundle).check(bundle)
    assert [problem.kind for problem in report.problems] == ["files", "coverage"]
    with pytest.raises(DeshiError, match=r"2 of 2 files.*topk_items\.npy[\s\S]*rows hold a list, the manifest says"):
        SoftLabels.load(store.path, bundle, check=True)


def test_item_embeddings_must_fit_the_catalogue(store: SoftLabels) -> None:
    """A row of padding more shifts no item here, but whoever reads it would be off by one."""
    assert store.item_embeddings() is None
    file = store.path / "item_embeddings.safetensors"
    save_file({"items": torch.zeros(31, 2)}, file)
    with pytest.raises(DeshiError, match="row of padding"):
        store.item_embeddings()
    save_file({"vectors": torch.zeros(30, 2)}, file)
    with pytest.raises(DeshiError, match=r"holds \['vectors'\]"):
        store.item_embeddings()
    file.write_bytes(b"x")
    with pytest.raises(DeshiError, match="can't be read"):
        store.item_embeddings()


def test_a_row_without_candidates_is_not_covered(tmp_path: Path) -> None:
    """Who has seen everything gets no list; that isn't an error of the store."""
    bundle = tiny_bundle(tmp_path, [[0, 1], [1, 0]])
    store = write_soft_labels(
        Labeller(Hashed(2), Histories.of(bundle), 2), np.arange(4), tmp_path / "store", teacher=META
    )
    assert store.covered.tolist() == [True, False, True, False] and not store.check(bundle).problems
    assert store.manifest["coverage"] == {"rows": 2, "requested": 4, "full_lists": 0, "of": 4}

"""The index for approximate search: what is built, what it finds, and when there is one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import deshi
from deshi.artifacts import read_json
from deshi.serving import approximate_search
from deshi.serving.approximate_search import ItemIndex, build_index, measure_recall, wants_index
from deshi.serving.bundle import INDEX, RECALL, BundleError, ServingBundle
from deshi.types import DeshiError


def table_of(n_items: int, seed: int = 0) -> np.ndarray:
    """Vectors with a direction in common, of different lengths: as training makes them."""
    generator = np.random.default_rng(seed)
    lengths = np.exp(0.3 * generator.standard_normal((n_items, 1)))
    return (generator.standard_normal((n_items, 16)) * lengths + 2).astype(np.float32)


@pytest.fixture
def without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)


def test_of_a_small_table_next_to_nothing_is_missed(tmp_path: Path) -> None:
    """What is missed of a million items must be the graph's fault, not ours: here all top-10 lists are whole."""
    table = table_of(1500)
    build_index(table, tmp_path / INDEX)
    index = ItemIndex(tmp_path / INDEX, table)
    states = np.random.default_rng(1).standard_normal((60, 16)).astype(np.float32)
    recall = measure_recall(index, table, [states[:50], states[50:]])
    assert (recall.histories, recall.recall10) == (60, 1.0) and recall.recall100 > 0.999
    found, scores = index.find(states[0], 10)
    assert len(found) == approximate_search.LEAST and (np.diff(found) > 0).all()
    np.testing.assert_allclose(scores, (table @ states[0])[found], rtol=1e-4, atol=1e-4)
    assert scores.max() == pytest.approx((table @ states[0]).max(), rel=1e-5)


def test_what_is_missed_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coarse index must not be praised: here half of the items are never found."""
    table = table_of(400)
    build_index(table, tmp_path / INDEX)
    index = ItemIndex(tmp_path / INDEX, table)
    monkeypatch.setattr(index, "find", lambda hidden, wanted, *more: (np.arange(1, 400, 2), np.zeros(200)))
    states = np.random.default_rng(1).standard_normal((200, 16)).astype(np.float32)
    recall = measure_recall(index, table, [states])
    assert 0.4 < recall.recall10 < 0.6 and 0.4 < recall.recall100 < 0.6
    assert f"finds {recall.recall10:.2%} of the exact top-10 lists" in recall.sentence()


def test_the_same_table_gives_the_same_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle's version is made of its files: another export of the same run must not look like another model."""
    monkeypatch.setattr(approximate_search, "CHUNK", 100)
    monkeypatch.setattr(approximate_search, "EVERY", 0.0)
    with caplog.at_level("INFO"):
        build_index(table_of(300), tmp_path / "one")
    build_index(table_of(300), tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert [record.getMessage()[:32] for record in caplog.records] == [
        "100 of 300 items are in the inde", "200 of 300 items are in the inde"
    ]  # fmt: skip


def test_a_file_that_is_no_index_of_the_table_is_refused(tmp_path: Path) -> None:
    """It would answer with other items, or read where there is nothing."""
    build_index(table_of(50), tmp_path / INDEX)
    for other in (table_of(51), table_of(50)[:, :8]):
        with pytest.raises(DeshiError, match="is no index of"):
            ItemIndex(tmp_path / INDEX, other)
    content = (tmp_path / INDEX).read_bytes()
    for bad in (b"", b"x" * 4000, content[:200]):
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(DeshiError, match=r"can't be read by faiss.*export again"):
            ItemIndex(tmp_path / "bad", table_of(50))


def test_large_catalogues_get_an_index_by_themselves() -> None:
    """A million items are scored exactly in 20 ms; more take longer than an answer may."""
    assert not wants_index("auto", 1_000_000) and wants_index("auto", 1_000_001)
    assert wants_index("approximate", 3) and not wants_index("exact", 10**8)


@pytest.mark.usefixtures("without_faiss")
def test_a_missing_package_is_named(indexed: Path) -> None:
    """Also where nobody asked for an index: slow answers are noticed late."""
    for index, n_items in (("approximate", 3), ("auto", 2_000_000)):
        with pytest.raises(DeshiError, match=r"pip install 'deshi\[ann\]'.*index=exact"):
            wants_index(index, n_items)
    assert not wants_index("auto", 40)
    with pytest.raises(DeshiError, match=r"pip install 'deshi\[ann\]'.*search=exact"):
        deshi.load(indexed)
    assert deshi.load(indexed, search="exact").recommend([1], 3).items


def test_an_export_above_the_bound_says_what_its_index_misses(
    finished_root: Path, bundle: ServingBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An approximate answer without a figure is a guess. The bound lies below the tiny catalogue here."""
    monkeypatch.setattr(approximate_search, "MANY_ITEMS", 39)
    result = deshi.export(f"paths.root={finished_root}", run="tiny_seed0", parity={"users": 7})
    assert result.recall is not None
    assert read_json(result.folder / RECALL) == {
        "histories": 7, "recall10": 1.0, "recall100": 1.0, "faiss": result.recall.faiss
    }  # fmt: skip
    card = (result.folder / "MODEL_CARD.md").read_text()
    assert f"## Approximate search\n- The bundle has an index (faiss {result.recall.faiss})" in card
    assert "finds 100.00% of the exact top-10 lists" in card and "of 7 histories" in str(result)
    loaded = ServingBundle.load(result.folder)
    assert loaded.index == result.folder / INDEX and {INDEX, RECALL} <= set(loaded.manifest["files"])
    assert bundle.index is None and "Approximate" not in (bundle.path / "MODEL_CARD.md").read_text()


@pytest.mark.usefixtures("without_faiss")
def test_an_export_without_the_package_ends_before_the_work(finished_root: Path, tmp_path: Path) -> None:
    """Not after an hour of parity."""
    with pytest.raises(DeshiError, match=r"deshi\[ann\]"):
        deshi.export(f"paths.root={finished_root}", run="tiny_seed0", index="approximate", output=str(tmp_path / "b"))
    assert not (tmp_path / "b").exists()


def test_a_damaged_index_is_refused(indexed: Path, tmp_path: Path) -> None:
    """By its hash, before faiss reads it."""
    shutil.copytree(indexed, tmp_path / "copy")
    content = bytearray((tmp_path / "copy" / INDEX).read_bytes())
    content[-1] ^= 1
    (tmp_path / "copy" / INDEX).write_bytes(bytes(content))
    with pytest.raises(BundleError, match="items.faiss does not have the sha256"):
        deshi.load(tmp_path / "copy")
    (tmp_path / "copy" / INDEX).unlink()
    with pytest.raises(BundleError, match="items.faiss missing"):
        deshi.load(tmp_path / "copy")

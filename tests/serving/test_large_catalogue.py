"""Serving of large catalogues: scoring by blocks, ids in columns, graphs without a table, tables in half precision.

The thresholds are lowered, so that a bundle of 40 items is treated as one of millions: its answers must stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

import deshi
from deshi.arrays import Ints
from deshi.models.base import SequentialRecommender
from deshi.models.gru4rec import GRU4Rec
from deshi.models.sasrec import SASRec
from deshi.serving import _block_scoring, _item_ids, approximate_search
from deshi.serving import engine as engine_module
from deshi.serving._block_scoring import best_by_blocks, row_norms, scores_of_all
from deshi.serving._item_ids import ItemIds
from deshi.serving.approximate_search import ItemIndex, build_index, measure_recall
from deshi.serving.bundle import ServingBundle
from deshi.serving.engine import Engine
from deshi.serving.graph import write_graph
from deshi.serving.onnx_network import OnnxNetwork, pad
from deshi.serving.top_k import best_of
from deshi.stages import _export
from deshi.types import DeshiError


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every catalogue of more than ten items is a large one."""
    for module, name in (
        (engine_module, "BLOCKWISE_ABOVE"),
        (engine_module, "AS_OBJECTS"),
        (_item_ids, "AS_OBJECTS"),
        (_export, "BLOCKWISE_ABOVE"),
    ):
        monkeypatch.setattr(module, name, 10)
    monkeypatch.setattr(_block_scoring, "BLOCK_ITEMS", 7)


def answers(engine: Engine, histories: Sequence[Sequence[Any]], **options: Any) -> list[list[tuple[str, str | None]]]:
    lists = engine.recommend_batch(histories, **options)
    return [[(item.item_id, item.title) for item in recommendation.items] for recommendation in lists]


def test_answers_by_blocks_are_those_of_all_scores(bundle: ServingBundle, engine: Engine, large: None) -> None:
    """The same lists, titles, scores and counts of unknown ids, with every filter."""
    blocked = Engine(bundle, batch_size=3)
    ids = bundle.items["item_id"].to_list()
    histories = [ids[:3], ids[5:20], [], ["no such item", f" {ids[4]} "], ids[30:33] * 2]
    cases: list[dict[str, Any]] = [
        {}, {"k": 40}, {"filter_seen": False}, {"exclude": ids[8:14]}, {"candidates": ids[::3], "k": 5},
    ]  # fmt: skip
    for options in cases:
        assert answers(blocked, histories, **options) == answers(engine, histories, **options)
    scores, expected = (e.top([np.array([1, 2])], 10)[1] for e in (blocked, engine))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert blocked.similar_items(ids[0]) == pytest.approx(engine.similar_items(ids[0])) or [
        item.item_id for item in blocked.similar_items(ids[0])
    ] == [item.item_id for item in engine.similar_items(ids[0])]
    assert blocked.search_items("film", 5) == engine.search_items("film", 5)


def test_best_items_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties across blocks by index; items left out, allowed ones and second scores as with all scores at once."""
    monkeypatch.setattr(_block_scoring, "BLOCK_ITEMS", 16)
    draw = np.random.default_rng(0)
    for dtype in (np.float32, np.float16):
        table: NDArray[Any] = draw.integers(-2, 3, (100, 4)).astype(dtype)
        hidden = draw.integers(-2, 3, (5, 4)).astype(np.float32)
        left_out: list[Ints] = [draw.integers(0, 100, 12) for _ in hidden]
        allowed = draw.random(100) < 0.8
        added = [(np.array([3, 40, 99]), np.array([1.0, 2.0, -1.0], dtype=np.float32)) for _ in hidden]
        for k in (1, 10, 100):
            lists = best_by_blocks(hidden, table, k, left_out, allowed, added)
            for row, (items, values) in enumerate(lists):
                scores = scores_of_all(hidden[[row]], table)[0]
                scores[added[row][0]] += added[row][1]
                scores[~allowed] = scores[left_out[row]] = -np.inf
                expected = best_of(scores, k)
                assert items.tolist() == expected.tolist() and np.array_equal(values, scores[expected])
        norms = np.linalg.norm(table.astype(np.float32), axis=1)
        np.testing.assert_allclose(row_norms(table), np.where(norms > 0, norms, 1), rtol=1e-5)


def test_ids_are_found_by_their_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns answer as a dictionary does, unknown ids by -1, and equal hashes don't confuse two ids."""
    ids = pl.Series([f"item {number}" for number in range(500)])
    asked = ["item 0", "item 499", "nobody", "item 17", ""]
    expected = ItemIds(ids).indices(asked).tolist()
    assert expected == [0, 499, -1, 17, -1]
    monkeypatch.setattr(_item_ids, "AS_OBJECTS", 10)
    assert ItemIds(ids).indices(asked).tolist() == expected and ItemIds(ids).indices([]).tolist() == []
    with monkeypatch.context() as patch:
        patch.setattr(pl.Series, "hash", lambda self: self.str.len_chars().cast(pl.UInt64))
        assert ItemIds(ids).indices(asked).tolist() == expected


@pytest.mark.parametrize("kind", [SASRec, GRU4Rec])
def test_a_graph_without_a_table_computes_the_same(kind: type[SequentialRecommender], tmp_path: Path) -> None:
    """The vectors of a batch's items are its input: hidden states are the network's; without a table it says so."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student = kind(60, dim=8, max_length=6).eval()
    write_graph(student, tmp_path / "model.onnx", with_table=False)
    table = student.item_table().detach().numpy()
    items, lengths = pad([np.array([3, 4, 3]), np.array([59]), np.arange(6)])
    with torch.no_grad():
        expected = student.last_hidden(torch.from_numpy(items), torch.from_numpy(lengths)).numpy()
    np.testing.assert_allclose(
        OnnxNetwork(tmp_path / "model.onnx", table=table).hidden(items, lengths), expected, atol=1e-5
    )
    assert (tmp_path / "model.onnx").stat().st_size < 400_000
    with pytest.raises(DeshiError, match="holds no item table"):
        OnnxNetwork(tmp_path / "model.onnx")


def test_export_stores_a_large_table_once(
    _finished_root: Path, tmp_path: Path, engine: Engine, large: None
) -> None:  # fmt: skip
    """Neither graph nor weights hold it; in fp16 the bundle says what rounding changes, and answers nearly alike."""
    result = deshi.export(
        f"paths.root={_finished_root}", run="tiny_seed0", output=str(tmp_path / "b"), table_dtype="fp16"
    )  # fmt: skip
    assert "items.weight" not in load_file(result.folder / "weights.safetensors")
    bundle = ServingBundle.load(result.folder)
    assert bundle.item_table.dtype == np.float16 and result.parity["fp32"].holds
    assert result.parity["fp16 table"].largest_score_difference > 0 and "fp16 table: " in str(result)
    histories = [np.array([1, 2, 3]), np.array([7])]
    items, scores = Engine(bundle).top(histories, 5)
    expected = engine.top(histories, 5)
    np.testing.assert_allclose(scores, expected[1], atol=0.02)
    assert (items == expected[0]).mean() > 0.5


def test_an_index_of_clusters_finds_the_best_items(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Above some millions of items: with all clusters searched nothing is missed, with few of them little."""
    monkeypatch.setattr(approximate_search, "CLUSTERS_ABOVE", 1000)
    draw = np.random.default_rng(0)
    table = draw.standard_normal((6000, 16), dtype=np.float32)
    build_index(table.astype(np.float16), tmp_path / "items.faiss")
    index = ItemIndex(tmp_path / "items.faiss", table)
    states = table[:40] + 0.3 * draw.standard_normal((40, 16), dtype=np.float32)
    few = measure_recall(index, table, [states]).recall10
    monkeypatch.setattr(approximate_search, "PROBES", 1)  # all clusters
    assert 0.5 < few < measure_recall(index, table, [states]).recall10 > 0.99


def test_evaluation_by_the_index_is_that_of_its_lists(finished_root: Path, counted: Path, serving: Path) -> None:
    """An index that finds everything gives the exact ranks; the evaluation says what the index misses."""
    words, run = f"paths.root={finished_root}", "tiny_seed0"
    exact = deshi.evaluate(words, run=run, served=str(counted))
    approximate = deshi.evaluate(words, run=run, served=str(counted), search="approximate")
    assert approximate.ranks.equals(exact.ranks)
    assert approximate.metrics["test/ndcg@10"] == exact.metrics["test/ndcg@10"]
    assert "approximate search" in str(approximate) and any("finds 100.00% of" in note for note in approximate.notes)
    with pytest.raises(DeshiError, match="has no index"):
        deshi.evaluate(words, run=run, served=str(serving), search="approximate")

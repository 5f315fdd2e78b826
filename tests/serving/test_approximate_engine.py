"""The engine on a bundle with an index: the same rules as with exact scoring, whatever the index finds."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import deshi
from deshi.serving import approximate_search
from deshi.serving.approximate_search import ItemIndex
from deshi.serving.bundle import TABLE, ServingBundle
from deshi.serving.engine import Engine, Recommendation
from deshi.stages._serve import _start
from deshi.stages.serve import ServeConfig
from deshi.types import DeshiError
from tiny_exports import with_index


@pytest.fixture(scope="module")
def exact(indexed: Path) -> Engine:
    return deshi.load(indexed, search="exact")


@pytest.fixture(scope="module")
def near(indexed: Path) -> Engine:
    return deshi.load(indexed, batch_size=3)


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine items are looked up at least, and two for each that is wanted: a large catalogue in the small."""
    monkeypatch.setattr(approximate_search, "LEAST", 9)
    monkeypatch.setattr(approximate_search, "FACTOR", 2)


def indices(answer: Recommendation) -> list[int]:
    return [item.index for item in answer.items]


def scored_whole(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Where the rows are noted that an engine scores whole."""
    noted: list[list[int]] = []
    original = engine._scores

    def noting(histories: Any, rows: Any) -> Any:
        noted.append(rows.tolist())
        return original(histories, rows)

    monkeypatch.setattr(engine, "_scores", noting)
    return noted


def test_answers_are_the_exact_ones_where_the_index_finds_everything(exact: Engine, near: Engine) -> None:
    """By every rule, one at a time and in a batch; an empty history among them."""
    histories = [[3, 1], [5], [], list(range(12)), [7, 8, 9], [39] * 20]
    cases: list[dict[str, Any]] = [
        {},
        {"exclude": [0, 2]},
        {"filter_seen": False},
        {"candidates": [6, 7, 8]},
        {"k": 40},
    ]
    for rules in cases:
        expected = exact.recommend_batch(histories, **rules)
        for found in (near.recommend_batch(histories, **rules), [near.recommend(h, **rules) for h in histories]):
            for one, other in zip(expected, found, strict=True):
                assert indices(one) == indices(other) and one.fallback == other.fallback
                np.testing.assert_allclose([i.score for i in one.items], [i.score for i in other.items], rtol=1e-4)


def test_the_index_is_asked_and_most_rows_are_never_scored(near: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The point of it all."""
    noted = scored_whole(near, monkeypatch)
    near.recommend_batch([[3, 1], [], [5]], exclude=[2])
    assert noted == [[1]]


@pytest.mark.usefixtures("coarse")
def test_what_the_index_cannot_answer_is_scored_whole(
    exact: Engine, near: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where much is left out, looking up takes longer than scoring; where too little is found, the list is short."""
    noted = scored_whole(near, monkeypatch)
    long, narrow = list(range(12)), [3]
    cases: list[dict[str, Any]] = [{"filter_seen": False}, {}, {"candidates": [6, 7]}, {"exclude": [0, 1, 2, 4]}]
    for rules in cases:
        found = near.recommend_batch([long, narrow], 2, **rules)
        for one, other in zip(exact.recommend_batch([long, narrow], 2, **rules), found, strict=True):
            assert rules == {"filter_seen": False} or len(other.items) == len(one.items)
    assert noted == [[], [0], [0, 1], [0, 1]]
    monkeypatch.setattr(ItemIndex, "find", lambda self, hidden, wanted, *more: (np.array([3, 5]), np.array([2.0, 1.0])))
    noted.clear()
    assert indices(near.recommend([3], 2)) == indices(exact.recommend([3], 2)) and noted == [[0]]
    assert indices(near.recommend([3], 1)) == [5] and noted == [[0], []]


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_the_rules_hold_whatever_the_index_finds(near: Engine, data: st.DataObject) -> None:
    """Nothing seen and nothing excluded, as many as there are, best first and equal ones by index."""
    items = st.integers(0, 39)
    histories = data.draw(st.lists(st.lists(items, max_size=8), min_size=1, max_size=4))
    exclude, k = data.draw(st.lists(items, max_size=4)), data.draw(st.integers(1, 12))
    filter_seen, least = data.draw(st.booleans()), data.draw(st.integers(1, 40))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approximate_search, "LEAST", least)
        patch.setattr(approximate_search, "FACTOR", 1)
        answers = near.recommend_batch(histories, k, exclude, filter_seen=filter_seen)
    for history, answer in zip(histories, answers, strict=True):
        gone = {*exclude, *(history if filter_seen else [])}
        assert len(answer.items) == min(k, 40 - len(gone)) and not gone & {*indices(answer)}
        assert indices(answer) == [i.index for i in sorted(answer.items, key=lambda i: (-i.score, i.index))]


def test_equal_scores_are_ordered_by_index(serving: Path, tmp_path: Path) -> None:
    """As with exact scoring: here each odd item is its even neighbour's twin."""
    folder = tmp_path / "twins"
    shutil.copytree(serving, folder)
    table = load_file(folder / TABLE)["item_table"]
    table[1::2] = table[::2]
    save_file({"item_table": table}, folder / TABLE)
    with_index(folder)
    found = Engine(ServingBundle.load(folder)).recommend([4, 9], 40, filter_seen=False)
    assert len(found.items) == 40
    assert all(odd == even + 1 and even % 2 == 0 for even, odd in zip(*[iter(indices(found))] * 2, strict=True))


def test_threads_may_share_the_index(near: Engine) -> None:
    """A server answers many requests at a time with one index."""
    histories = [[item, (item * 7) % 40] for item in range(40)] * 3
    alone = [near.recommend(history, 5) for history in histories]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda history: near.recommend(history, 5), histories)) == alone


def test_the_settings_reach_the_engine(indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`search=exact` must work where the package is missing, and nothing else may be understood as it."""
    with pytest.raises(DeshiError, match="search is 'approx', expected one of auto, exact"):
        deshi.load(indexed, search="approx")
    bundle = ServingBundle.load(indexed)
    assert _start(ServeConfig(bundle="x"), bundle)._item_index is not None
    assert _start(ServeConfig(bundle="x", search="exact"), bundle)._item_index is None
    pl.DataFrame({"user_id": ["a"], "item_id": bundle.items["item_id"][:1]}).write_csv(tmp_path / "events.csv")
    asked: list[int] = []
    find = ItemIndex.find

    def noting(self: ItemIndex, hidden: Any, wanted: int, *more: Any) -> Any:
        asked.append(wanted)
        return find(self, hidden, wanted, *more)

    monkeypatch.setattr(ItemIndex, "find", noting)
    for search, times in (("exact", 0), ("auto", 1)):
        deshi.recommend(bundle=str(indexed), input=str(tmp_path / "events.csv"), k=3, search=search)
        assert len(asked) == times

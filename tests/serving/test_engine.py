"""The engine: exact lists by every rule that a request may ask for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import deshi
from deshi.serving._title_search import TitleIndex, plain
from deshi.serving.bundle import ServingBundle
from deshi.serving.engine import Engine, Recommendation, RequestError
from deshi.serving.onnx_network import OnnxNetwork
from deshi.serving.top_k import best_of
from deshi.types import DeshiError

LONG = [3, 1, 4, 15, 9, 2, 6, 5, 35, 8, 7, 32, 38]
"""Longer than the ten items that the network reads."""


def scores_of(bundle: ServingBundle, history: list[int]) -> np.ndarray:
    """The reference: the last ten items through the graph, alone, times the item table."""
    items = np.array([history[-bundle.max_length :]], dtype=np.int64)
    return (OnnxNetwork(bundle.graph()).hidden(items, np.array([items.shape[1]])) @ bundle.item_table.T)[0]


def ranked(scores: np.ndarray, allowed: set[int], k: int) -> list[int]:
    return sorted(allowed, key=lambda item: (-scores[item], item))[:k]


def indices(answer: Recommendation) -> list[int]:
    return [item.index for item in answer.items]


def test_the_list_is_the_exact_one_without_seen_items(engine: Engine, bundle: ServingBundle) -> None:
    """Against every item's score, sorted: also for items that are too long ago for the network to read."""
    scores = scores_of(bundle, LONG)
    answer = engine.recommend(LONG, k=12)
    assert indices(answer) == ranked(scores, set(range(40)) - set(LONG), 12)
    np.testing.assert_allclose([item.score for item in answer.items], scores[indices(answer)], rtol=1e-5)
    ids, titles = bundle.items["item_id"], bundle.items["title"]
    assert [(item.item_id, item.title) for item in answer.items] == [(ids[i], titles[i]) for i in indices(answer)]
    assert (answer.known_events, answer.unknown_events, answer.fallback) == (13, 0, None)


def test_rules_narrow_the_list_together(engine: Engine, bundle: ServingBundle) -> None:
    """Exclusions, candidates and a prepared filter are what a shop has at once."""
    scores, everything = scores_of(bundle, [3, 1]), set(range(40))
    mask = engine.mask(np.arange(0, 40, 2))
    evens = set(range(0, 40, 2))
    assert indices(engine.recommend([3, 1], 40, exclude=[0, 2])) == ranked(scores, everything - {0, 1, 2, 3}, 40)
    assert indices(engine.recommend([3, 1], 5, allowed=mask)) == ranked(scores, evens, 5)
    assert indices(engine.recommend([3, 1], 5, candidates=[7, 9, 8], exclude=[9])) == ranked(scores, {7, 8}, 5)
    both = engine.recommend([3, 1], 5, candidates=[6, 7, 8], allowed=mask)
    assert indices(both) == ranked(scores, {6, 8}, 5)
    assert engine.recommend([3, 1], 5, candidates=[]).items == ()


def test_the_seen_policy(engine: Engine, bundle: ServingBundle) -> None:
    """As the bundle says for the whole catalogue; chosen candidates are ranked seen or not, unless told otherwise."""
    scores = scores_of(bundle, [3, 1])
    assert indices(engine.recommend([3, 1], 40, filter_seen=False)) == ranked(scores, set(range(40)), 40)
    assert indices(engine.recommend([3, 1], 9, candidates=[3, 5])) == ranked(scores, {3, 5}, 9)
    assert indices(engine.recommend([3, 1], 9, candidates=[3, 5], filter_seen=True)) == [5]


def test_ids_and_indices_mean_the_same(engine: Engine, bundle: ServingBundle) -> None:
    """A service has ids, an evaluation has indices."""
    ids = bundle.items["item_id"].gather(LONG).to_list()
    assert engine.recommend(ids, 7) == engine.recommend(LONG, 7) == engine.recommend(np.array(LONG, dtype=np.int32), 7)


@pytest.mark.parametrize("make", [np.array, pl.Series, tuple, lambda ids: np.array(ids, dtype=object)])
def test_collections_of_ids_are_lists(engine: Engine, bundle: ServingBundle, make: Callable[[list[str]], Any]) -> None:
    """Ids come as an array or a Series of texts, filters as sets; indices as numbers of any library."""
    ids = [str(item) for item in bundle.items["item_id"][:3]]
    expected = engine.recommend(ids, exclude=ids[:1])
    assert engine.recommend(make(ids), exclude=set(ids[:1])) == expected
    assert engine.recommend(pl.Series([0, 1, 2]), exclude=np.array(ids[:1])) == expected
    assert engine.item(np.int64(1)) == engine.item(1)


def test_unknown_ids_are_left_out_and_counted(engine: Engine, bundle: ServingBundle) -> None:
    """New items come every day; an answer must neither fail for them nor hide that it ignored them."""
    ids = bundle.items["item_id"].gather([3, 1]).to_list()
    answer = engine.recommend(["new", ids[0], "", ids[1], "new"], 5)
    assert answer.items == engine.recommend([3, 1], 5).items and (answer.known_events, answer.unknown_events) == (2, 3)


@pytest.mark.parametrize("history", [[], ["unknown_events"], np.zeros(0, dtype=np.int64)])
def test_without_a_known_item_popularity_answers(engine: Engine, bundle: ServingBundle, history: list[str]) -> None:
    """A new visitor gets something sensible, and the caller can tell."""
    counts = bundle.items["count"].to_numpy()
    answer = engine.recommend(history, 6, exclude=[int(counts.argmax())])
    assert answer.fallback == "popularity" and answer.known_events == 0 and answer.unknown_events == len(history)
    assert indices(answer) == ranked(counts, set(range(40)) - {int(counts.argmax())}, 6)


def test_a_batch_is_its_single_answers_in_order(engine: Engine) -> None:
    """Sorting by length and padding inside a batch must not show."""
    histories = [LONG, [5], [], [7, 8, 9], [5, 6], [1] * 25, [39]]
    together = engine.recommend_batch(histories, 6)
    for history, answer in zip(histories, together, strict=True):
        alone = engine.recommend(history, 6)
        assert indices(alone) == indices(answer)
        np.testing.assert_allclose([i.score for i in alone.items], [i.score for i in answer.items], rtol=1e-4)
    assert engine.recommend_batch([], 6) == []


def test_threads_may_share_an_engine(engine: Engine) -> None:
    """A server answers many requests at a time with one engine."""
    histories = [[item, (item * 7) % 40] for item in range(40)] * 3
    alone = [engine.recommend(history, 5) for history in histories]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda history: engine.recommend(history, 5), histories)) == alone


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda engine: engine.recommend([1], 0), "k is 0"),
        (lambda engine: engine.recommend([40]), "no item index 40, expected 0 to 39"),
        (lambda engine: engine.recommend([-1]), "no item index -1"),
        (lambda engine: engine.recommend(["12", 3]), "not mixed"),
        (lambda engine: engine.recommend([1.5]), "whole numbers"),
        (lambda engine: engine.recommend([[1, 2]]), "shape"),
        (lambda engine: engine.recommend("12"), r"write \['12'\]"),
        (lambda engine: engine.recommend([1], allowed=np.ones(39, dtype=bool)), r"expected bool\(40,\)"),
        (lambda engine: engine.similar_items("absent"), "no item 'absent' among the 40"),
        (lambda engine: engine.similar_items(3, 0), "k is 0"),
        (lambda engine: engine.search_items("film", 0), "limit is 0"),
    ],
)
def test_questions_that_make_no_sense_are_refused(engine: Engine, ask: Callable[[Engine], object], said: str) -> None:
    """A service turns these into an answer to the caller, so each must be a RequestError with a reason."""
    with pytest.raises(RequestError, match=said):
        ask(engine)


def test_similar_items_by_cosine(engine: Engine, bundle: ServingBundle) -> None:
    """The inner product would put items with long vectors beside everything."""
    unit = bundle.item_table / np.linalg.norm(bundle.item_table, axis=1, keepdims=True)
    cosine = unit @ unit[7]
    found = engine.similar_items(7, 5)
    assert [item.index for item in found] == ranked(cosine, set(range(40)) - {7}, 5)
    np.testing.assert_allclose([item.score for item in found], cosine[[item.index for item in found]], rtol=1e-5)
    assert engine.similar_items(bundle.items["item_id"][7], 5) == found
    assert len(engine.similar_items(7, 100)) == 39


def test_titles_are_found_by_words_best_first() -> None:
    """People type without accents, in any order of the words, and mean the well-known film."""
    titles = [
        "Amélie (2001)",
        "Star Wars (1977)",
        "Star Trek: First Contact",
        "The Star Maker",
        "Restart",
        None,
        "Star",
    ]
    counts = [5, 50, 20, 10, 99, 7, 1]
    items = pl.DataFrame(
        {"index": range(7), "item_id": [f"m{i}" for i in range(7)], "title": titles, "count": counts},
        schema={"index": pl.Int32, "item_id": pl.String, "title": pl.String, "count": pl.Int64},
    )
    index = TitleIndex(items)
    assert index.find("star", 10).tolist() == [6, 1, 2, 3, 4]
    assert index.find("STAR  trek", 10).tolist() == index.find("trek star", 10).tolist() == [2]
    assert index.find("amelie", 10).tolist() == index.find("AMÉLIE", 10).tolist() == [0]
    assert index.find("m5", 10).tolist() == [5] and index.find("star", 2).tolist() == [6, 1]
    assert index.find("", 10).tolist() == index.find(" .*( ", 10).tolist() == index.find("absent", 10).tolist() == []


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_any_text_can_be_searched_for(text: str) -> None:
    """The box takes what users paste: it must never be read as a pattern."""
    items = pl.DataFrame(
        {"index": [0], "item_id": ["a"], "title": [text], "count": [1]},
        schema={"index": pl.Int32, "item_id": pl.String, "title": pl.String, "count": pl.Int64},
    )
    assert TitleIndex(items).find(text, 5).tolist() == ([0] if plain(text) or text.strip() == "a" else [])


@settings(deadline=None)
@given(st.lists(st.sampled_from([-np.inf, -1.5, 0.0, 0.5, 2.0, 7.25]), min_size=1, max_size=40), st.data())
def test_the_best_of_a_row_are_those_of_a_full_sort(values: list[float], data: st.DataObject) -> None:
    """With ties at every place, the last one included."""
    k = data.draw(st.integers(1, len(values)))
    expected = sorted((i for i, v in enumerate(values) if v > -np.inf), key=lambda i: (-values[i], i))[:k]
    assert best_of(np.array(values, dtype=np.float32), k).tolist() == expected


def test_int8_answers_nearly_the_same(bundle: ServingBundle, engine: Engine) -> None:
    """The smaller graph is another model: it must be loadable, and close."""
    small = Engine(bundle, precision="int8")
    shared = [
        len(
            {item.index for item in small.recommend([i, i + 1], 10).items}
            & {*indices(engine.recommend([i, i + 1], 10))}
        )
        for i in range(30)
    ]
    assert np.mean(shared) > 7


def test_loading_says_what_is_wrong(serving: Path, tmp_path: Path) -> None:
    """`deshi.load` is where a deployment fails first."""
    assert deshi.load(serving, threads=1).recommend([1], 3).known_events == 1
    with pytest.raises(DeshiError, match="deshi export RUN"):
        deshi.load(tmp_path)
    with pytest.raises(DeshiError, match="batch_size is 0"):
        deshi.load(serving, batch_size=0)
    shutil.copytree(serving, tmp_path / "copy")
    (tmp_path / "copy" / "model.onnx").write_bytes(b"")
    with pytest.raises(DeshiError, match="sha256"):
        deshi.load(tmp_path / "copy")
    with pytest.raises(DeshiError, match="can't be read by onnxruntime"):
        deshi.load(tmp_path / "copy", check=False)


def test_serving_loads_no_pytorch(serving: Path) -> None:
    """It would take a second to start and 200 MB that an answer doesn't need."""
    code = (
        f"import sys, deshi; engine = deshi.load({str(serving)!r}); engine.recommend([1, 2], 5); "
        "engine.search_items('film'); print([m for m in ('torch', 'lightning', 'onnx', 'hydra') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_ids_are_counted_wherever_they_come_in(engine: Engine) -> None:
    """A caller whose ids are those of another system must see it in the answer."""
    answer = engine.recommend(["3", "new"], 5, exclude=["9", "i9", "i8"], candidates=["1", "2", "i1"])
    assert (answer.unknown_events, answer.unknown_excluded, answer.unknown_candidates) == (1, 2, 1)
    assert {item.item_id for item in answer.items} == {"1", "2"}


def test_blanks_around_an_id_are_no_part_of_it(engine: Engine) -> None:
    """Prepare strips ids, so that one with blanks can only be the one without."""
    answer = engine.recommend([" 3", "14 "], 5, exclude=[" 1 "])
    assert answer == engine.recommend(["3", "14"], 5, exclude=["1"]) and answer.unknown_events == 0
    assert engine.index_of(" 3 ") == engine.index_of("3")

"""Foreign rows find the event that they were made after, and nothing is guessed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deshi.data.bundle import Bundle
from deshi.soft_labels import Histories, SoftLabels, write_lists
from deshi.soft_labels.foreign._alignment import ForeignLists, align_embeddings, align_rows
from deshi.soft_labels.foreign._mapping import AMBIGUOUS, Titles, map_by_id, map_by_index, map_by_title
from deshi.soft_labels.foreign._matching import SEVERAL, UNMATCHED, contained
from deshi.types import PAD, DeshiError
from tiny_bundles import tiny_bundle

SEQUENCES = [[0, 1, 2, 3, 4, 5], [2, 3, 4, 1], [5, 0, 1, 2, 3, 5], [0, 3]]


def lists(histories: list[list[int]], nexts: list[int], window: int = 99) -> ForeignLists:
    """Lists ``[0, 1]`` with distances after the given histories."""
    rows = len(histories)
    return ForeignLists(
        np.tile([0, 1], (rows, 1)), np.tile([0.5, 2.0], (rows, 1)), False,
        np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64),
        np.array([item for history in histories for item in history], dtype=np.int64),
        np.array(nexts), window, "teacher.txt",
    )  # fmt: skip


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path, SEQUENCES, n_items=6)


def test_a_row_is_the_position_of_its_last_event(bundle: Bundle) -> None:
    """Row r is the ranking after the events up to and including r: off by one, and every list teaches the past."""
    found = align_rows(lists([[0, 1], [2, 3, 4], [5]], [2, 1, 0], window=10), bundle, map_by_index(bundle))
    assert found.rows.tolist() == [1, 8, 10]
    assert found.report.matched == 3 and found.report.unmatched == 0


def test_distances_become_scores(bundle: Bundle) -> None:
    """The store's scores are higher for better items."""
    found = align_rows(lists([[0, 1]], [2]), bundle, map_by_index(bundle))
    assert found.scores is not None and found.scores.tolist() == [[-0.5, -2.0]] and found.scores.dtype == np.float32
    up = align_rows(replace(lists([[0, 1]], [2]), higher_is_better=True), bundle, map_by_index(bundle))
    assert up.scores is not None and up.scores.tolist() == [[0.5, 2.0]]


def test_only_a_history_of_the_windows_length_may_be_cut(bundle: Bundle) -> None:
    """(1, 2, 3) is the end of a longer history, so a program that pads to ten would have shown more of it."""
    cut = lists([[1, 2, 3], [0, 1]], [4, 2], window=3)
    assert align_rows(cut, bundle, map_by_index(bundle)).rows.tolist() == [3, 1]
    whole = align_rows(replace(cut, window=10), bundle, map_by_index(bundle))
    assert whole.rows.tolist() == [PAD, 1] and whole.report.unmatched == 1


def test_ambiguous_rows_are_left_out(bundle: Bundle) -> None:
    """4 follows (2, 3) in two users' histories; a longer history or another next item can tell which it is."""
    two = lists([[2, 3], [3, 4]], [4, 5], window=2)
    found = align_rows(two, bundle, map_by_index(bundle))
    assert found.rows.tolist() == [PAD, 4] and found.report.ambiguous == 1
    assert (found.items[0] == PAD).all() and found.scores is not None and (found.scores[0] == 0).all()
    told = align_rows(lists([[1, 2, 3], [1, 2, 3]], [4, 5], window=3), bundle, map_by_index(bundle))
    assert told.rows.tolist() == [3, 14]


def test_a_last_event_has_no_next_item(bundle: Bundle) -> None:
    """The next user's first item must not be taken for what follows a user's last one."""
    with pytest.raises(DeshiError, match=r"teacher\.txt fits nowhere.*1 unmatched"):
        align_rows(lists([[2, 3, 4, 1]], [5]), bundle, map_by_index(bundle))


def test_every_row_is_counted_once(bundle: Bundle) -> None:
    """The counts are what tells a user that half the teacher's rows were lost, and why."""
    many = lists([[0, 1], [], [99, 1], [0, 1], [4, 4], [1, 2, 3], [0]], [2, 0, 2, 2, 4, 99, 3], window=3)
    report = align_rows(many, bundle, map_by_index(bundle)).report
    assert (report.matched, report.empty, report.unknown, report.repeated, report.unmatched) == (2, 1, 2, 1, 1)
    assert report.rows == 7 == sum(
        (report.matched, report.empty, report.unknown, report.unmatched, report.ambiguous, report.repeated)
    )  # fmt: skip
    assert "2 of 7 rows aligned" in report.describe()


def test_list_entries_without_an_item_are_left_out(bundle: Bundle) -> None:
    """A teacher may list items that the bundle has filtered out: the others move up in their order."""
    items, scores = np.array([[99, 4, 98, 3]]), np.array([[0.1, 0.2, 0.3, 0.4]])
    found = align_rows(replace(lists([[0, 1]], [2]), items=items, scores=scores), bundle, map_by_index(bundle))
    assert found.items.tolist() == [[4, 3, PAD, PAD]] and found.report.unlisted == 2
    assert found.scores is not None and np.allclose(found.scores, [[-0.2, -0.4, 0, 0]])


def test_aligned_rows_become_a_store(tmp_path: Path, bundle: Bundle) -> None:
    """Rows in rising order, empty lists left out, scores that fall: what write_lists takes as it is."""
    foreign = lists([[5], [3, 3], [0, 1], [0, 1, 2]], [0, 1, 2, 3], window=9)
    foreign = replace(foreign, items=np.array([[0, 1], [0, 1], [99, 1], [99, 98]]))
    found = align_rows(foreign, bundle, map_by_index(bundle))
    assert found.report.listless == 1 and found.report.matched == 3
    rows, items, scores = found.aligned()
    assert (
        rows.tolist() == [1, 10] and items.tolist() == [[1, PAD], [0, 1]] and scores.tolist() == [[-2, 0], [-0.5, -2]]
    )
    write_lists(
        rows, items, scores, Histories.of(bundle), tmp_path / "k", teacher={"name": "t"}, score_kind=found.score_kind
    )
    store = SoftLabels.load(tmp_path / "k", bundle, check=True)
    assert np.flatnonzero(store.covered).tolist() == [1, 10]
    unscored = align_rows(replace(foreign, scores=None), bundle, map_by_index(bundle))
    assert unscored.score_kind == "reciprocal_rank" and unscored.aligned()[2].tolist() == [[1, 0], [1, 0.5]]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=6), st.integers(1, 5))
def test_alignment_is_what_a_plain_search_finds(
    tmp_path_factory: pytest.TempPathFactory, sequences: list[list[int]], window: int
) -> None:
    """Hashing and sorting must give what looking at every event gives, with repeated items and all."""
    bundle = tiny_bundle(tmp_path_factory.mktemp("data"), sequences, n_items=4)
    events = [(user, place) for user, history in enumerate(sequences) for place in range(len(history) - 1)]
    if not events:
        return
    seen = [sequences[user][: place + 1][-window:] for user, place in events]
    nexts = [sequences[user][place + 1] for user, place in events]
    keys = [(tuple(history), following) for history, following in zip(seen, nexts, strict=True)]
    expected = [
        bundle.offsets[user] + place if keys.count(key) == 1 else PAD
        for (user, place), key in zip(events, keys, strict=True)
    ]
    if all(row == PAD for row in expected):
        with pytest.raises(DeshiError):
            align_rows(lists(seen, nexts, window), bundle, map_by_index(bundle))
        return
    assert align_rows(lists(seen, nexts, window), bundle, map_by_index(bundle)).rows.tolist() == expected


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=7), min_size=1, max_size=5), st.integers(0, 10**6))
def test_containment_is_what_a_plain_search_finds(
    tmp_path_factory: pytest.TempPathFactory, sequences: list[list[int]], seed: int
) -> None:
    """The inverted lists must give what asking every user gives, ties in time included."""
    times = [[1000 * (place // 2) for place in range(len(history))] for history in sequences]
    bundle = tiny_bundle(tmp_path_factory.mktemp("data"), sequences, times, n_items=6)
    random = np.random.default_rng(seed)
    histories = random.integers(0, 6, (8, 2)).tolist()
    nexts = random.integers(0, 6, 8).tolist()
    expected = [containing(sequences, times, bundle.offsets, *row) for row in zip(histories, nexts, strict=True)]
    found = contained(np.array(histories), np.array(nexts), bundle, cut=False)
    assert found.tolist() == expected


def containing(
    sequences: list[list[int]], times: list[list[int]], offsets: np.ndarray, history: list[int], following: int
) -> int:
    """The same by looking at every user."""
    places, doubtful = [], False
    for user, items in enumerate(sequences):
        if following not in items or items.index(following) == 0 or following in history:
            continue
        place = items.index(following)
        if all(item in items and times[user][items.index(item)] <= times[user][place] for item in history):
            places.append(int(offsets[user]) + place - 1)
            doubtful |= items.count(following) > 1
    return SEVERAL if len(places) > 1 or doubtful else places[0] if places else UNMATCHED


def test_filtered_and_reordered_histories_are_found_when_asked(tmp_path: Path) -> None:
    """LLaRA's MovieLens frames leave out ratings below 3 and order ties otherwise: no history stands event by event."""
    sequences = [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 1, 3]]
    times = [[0, 0, 0, 1000, 2000, 2000], [0, 1, 2, 3, 4, 5]]
    bundle = tiny_bundle(tmp_path, sequences, times, n_items=10)
    foreign = lists([[2, 0, 5], [9, 6]], [4, 1], window=3)
    with pytest.raises(DeshiError, match="how=contained"):
        align_rows(foreign, bundle, map_by_index(bundle))
    assert align_rows(foreign, bundle, map_by_index(bundle), how="contained").rows.tolist() == [3, 9]


def with_titles(tmp_path: Path, titles: list[str | None]) -> Bundle:
    table = pl.DataFrame({"item_id": [f"i{item}" for item in range(len(titles))], "title": titles})
    return tiny_bundle(tmp_path, [list(range(len(titles)))], items=table)


def test_duplicate_titles_are_counted_and_left_out(tmp_path: Path) -> None:
    """Two items with one title can't be told apart: picking one would teach the wrong item silently."""
    bundle = with_titles(tmp_path, ["A", "B", "b ", None, "C", "D"])
    mapping = map_by_title({10: "a", 11: '"B"', 12: "C", 13: "c", 14: "E", 15: "D"}, bundle)
    assert mapping.to_bundle(np.array([[10, 15], [11, 12]])).tolist() == [[0, 5], [PAD, PAD]]
    assert mapping.report == {
        "items": 6, "matched": 2, "without": 4, "unknown": 1, "duplicates": 1, "foreign_duplicates": 2,
        "duplicate_titles": ["b", "c"],
    }  # fmt: skip
    assert "duplicates 1" in mapping.describe()
    with pytest.raises(DeshiError, match="None of the foreign titles"):
        map_by_title({0: "Z"}, bundle)


def test_titles_answer_with_a_number_or_say_why_not(tmp_path: Path) -> None:
    """The formats that hold titles count what they couldn't tell."""
    names = Titles({3: "A", 4: "B", 5: "b"})
    assert [names.number(text) for text in (' "a"', "B", "x")] == [3, AMBIGUOUS, PAD]
    assert (names.ambiguous, names.unknown, names.duplicates) == (1, 1, 2) and "A " in names


def test_ids_map_to_items(bundle: Bundle) -> None:
    """Item ids are the safest bridge; two numbers for one id are an error, unknown ids are counted."""
    mapping = map_by_id({7: "i3", 2: "i0", 9: "nothing"}, bundle)
    assert mapping.to_bundle(np.array([7, 2, 9, PAD, 5])).tolist() == [3, 0, PAD, PAD, PAD]
    assert mapping.report["unknown"] == 1 and mapping.report["without"] == 4
    with pytest.raises(DeshiError, match="expected each id once"):
        map_by_id({1: "i3", 2: "i3"}, bundle)
    assert map_by_index(bundle).to_bundle(np.array([PAD, 0, 5, 6])).tolist() == [PAD, 0, 5, PAD]


def test_embeddings_go_to_their_items(bundle: Bundle) -> None:
    """Rows come in the foreign order; items without one are refused, with the counts."""
    vectors = torch.arange(12.0).reshape(6, 2)
    reverse = map_by_id({number: f"i{5 - number}" for number in range(6)}, bundle)
    table = align_embeddings(vectors, "v.pt", bundle, reverse)
    assert table.tolist() == [[10, 11], [8, 9], [6, 7], [4, 5], [2, 3], [0, 1]] and table.dtype == torch.float32
    shifted = map_by_id({number: f"i{number - 1}" for number in range(1, 7)}, bundle)
    with pytest.raises(DeshiError, match=r"v\.pt has vectors for 5 of 6 items.*1 of its 6 rows"):
        align_embeddings(vectors, "v.pt", bundle, shifted)


def test_bad_embeddings_are_refused(bundle: Bundle) -> None:
    """A NaN in a table poisons every gradient."""
    vectors = torch.ones(6, 2)
    vectors[2, 1] = torch.nan
    with pytest.raises(DeshiError, match="1 of 6 vectors hold NaN"):
        align_embeddings(vectors, "v.pt", bundle, map_by_index(bundle))

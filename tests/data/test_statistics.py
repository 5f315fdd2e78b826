"""The figures of a data set against hand values, and the picture's determinism."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from deshi.data import statistics


def test_figures_of_a_hand_made_set() -> None:
    """Two users, histories of four and two, one repeated pair, one tie inside a history and one across users."""
    offsets = np.array([0, 4, 6])
    items = np.array([0, 1, 0, 2, 1, 2])
    timestamps = np.array([0, 5, 5, 86_400_000, 86_400_000, 86_400_001])
    figures = statistics.compute(offsets, items, timestamps, n_items=4, time_unit="ms")
    assert (figures["users"], figures["items"], figures["interactions"]) == (2, 4, 6)
    assert figures["density"] == 6 / 8
    assert figures["length"]["median"] == 3 and figures["length"]["max"] == 4
    assert figures["repeated_pairs"] == 1
    assert figures["repeated_last_events"] == 0 and statistics.repeats_sentence(figures) is None
    assert figures["tied_timestamps_share"] == pytest.approx(2 / 6)
    assert figures["time"]["first"] == "1970-01-01T00:00:00" and figures["time"]["days"] == pytest.approx(1)
    assert figures["popularity_gini"] == pytest.approx(0.25)


def test_repeated_last_events_by_hand() -> None:
    """Of three histories that leave-one-out tests, one ends with an item it had; two equal events are no example."""
    offsets, items = np.array([0, 3, 6, 8, 11]), np.array([0, 1, 0, 0, 0, 1, 2, 2, 2, 1, 0])
    figures = statistics.compute(offsets, items, np.arange(11), 3, "position")
    assert figures["repeated_last_events"] == 1 and figures["repeated_last_events_share"] == pytest.approx(1 / 3)
    sentence = statistics.repeats_sentence(figures)
    assert (
        sentence is not None and sentence.startswith("33% of the last events") and "eval.filter_seen=false" in sentence
    )


def test_gini_hand_values() -> None:
    """Equal counts are 0; everything on one of n items is (n - 1) / n."""
    assert statistics.gini(np.array([3, 3, 3])) == 0
    assert math.isclose(statistics.gini(np.array([0, 0, 0, 8])), 0.75)


def test_positions_have_no_time_span() -> None:
    """Positions are no dates and must not be shown as such."""
    figures = statistics.compute(np.array([0, 2]), np.array([0, 1]), np.array([0, 1]), 2, "position")
    assert figures["time"] is None
    assert ("time", "positions only") in statistics.rows(figures)


@pytest.mark.parametrize("lengths", [[1], [5, 5], [1, 2, 3, 400]])
def test_picture_has_the_same_bytes_each_time(tmp_path: Path, lengths: list[int]) -> None:
    """The bundle is deterministic to the byte, its picture included, whatever the shape of the data."""
    for name in ("a.png", "b.png"):
        statistics.draw(tmp_path / name, np.array(lengths), np.array([9, 3, 1]), "title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"Software" not in (tmp_path / "a.png").read_bytes()

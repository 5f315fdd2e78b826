"""Preparation in slices, ranges and streams: the same bundle, report and messages as of whole columns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from random_tables import outcome_of

from deshi import arrays
from deshi.arrays import blocks, count_codes, offsets_of, row_blocks, take
from deshi.artifacts import fingerprint
from deshi.data import vocabulary
from deshi.data.sources import columns
from deshi.data.vocabulary import encode_events, number_ids

OUTCOMES = json.loads((Path(__file__).parent / "random_tables.json").read_text())
"""What `prepare` made of each random table when it still held all columns whole (29 November 2026)."""


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, so that small tables have many of them."""
    monkeypatch.setattr(columns, "SLICE", 11)
    monkeypatch.setattr(arrays, "BLOCK", 7)
    monkeypatch.setattr(vocabulary, "BLOCK", 9)
    for function in (blocks, row_blocks):
        monkeypatch.setattr(function, "__defaults__", (7,))


@pytest.mark.parametrize("seed", OUTCOMES)
def test_random_tables_give_what_they_gave(seed: str, tmp_path: Path, tiny_blocks: None) -> None:
    """Ties, duplicates, nulls, malformed rows, several files and partitions: not a bit or a word changes."""
    assert outcome_of(tmp_path / "case", int(seed)) == OUTCOMES[seed]


def test_events_are_in_the_order_of_user_time_and_file(tiny_blocks: None) -> None:
    """Ranges of users that are sorted one by one give the order of one stable sort."""
    generator = np.random.default_rng(0)
    users, items, times = (generator.integers(high, size=500) for high in (60, 9, 5))
    texts = {"user_id": pl.Series(users).cast(pl.String), "item_id": pl.Series(items).cast(pl.String)}
    frame = pl.DataFrame(texts | {"timestamp": pl.Series(times)})
    codes = number_ids(frame["user_id"])[1].to_numpy()
    order = np.lexsort((np.arange(500), times, codes))
    events = encode_events(frame)
    assert events.frame["user"].to_list() == codes[order].tolist()
    assert events.item_ids.gather(events.frame["item"]).to_list() == [str(item) for item in items[order]]
    assert events.frame["timestamp"].to_list() == times[order].tolist()
    assert frame.width == 0


def test_ids_are_numbered_by_their_first_row(tiny_blocks: None) -> None:
    """Codes of a stream come in any order, with texts that no row has any more, and null is an id."""
    texts = pl.Series([*"zyx", None, *"abcbazq", None]).cast(pl.Categorical(pl.Categories.random()))
    names, codes = number_ids(texts[3:])
    assert names.to_list() == [None, "a", "b", "c", "z", "q"]
    assert codes.to_list() == [0, 1, 2, 3, 2, 1, 4, 5, 0] and codes.dtype == pl.Int32


def test_blocks_cover_everything_once(tiny_blocks: None) -> None:
    """Rows longer than a block, empty ones and the last short block are all there."""
    offsets = offsets_of([0, 3, 20, 0, 0, 4, 4, 1, 0])
    parts = list(row_blocks(offsets))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(9))
    assert all(offsets[part.stop] - offsets[part.start] <= 7 or part.stop - part.start == 1 for part in parts)
    codes = np.random.default_rng(1).integers(5, size=40, dtype=np.uint8)
    assert count_codes(codes, 6).tolist() == np.bincount(codes, minlength=6).tolist()
    assert take(np.arange(5.0), codes).tolist() == codes.tolist()


def test_a_fingerprint_of_parts_is_that_of_the_list() -> None:
    """Millions of ids are hashed without a list of them all."""
    ids = ["a", 'b"', "é", "d"]
    for parts in ([ids], [ids[:1], [], ids[1:]], [[], ids]):
        assert fingerprint([("ids", iter(parts))]) == fingerprint([("ids", ids)])
    assert fingerprint([("ids", iter([]))]) == fingerprint([("ids", [])])

"""The data bundle on disk: round trip, mapping, damage, fingerprint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from deshi.data.bundle import Bundle, write_bundle
from deshi.data.vocabulary import Events, encode_events
from deshi.runs import load_bundle
from deshi.types import MAX_ID, DeshiError
from tiny_bundles import random_sequences, tiny_bundle


def test_round_trip(tmp_path: Path) -> None:
    """What is written is what is read, and the arrays are mapped, not loaded."""
    written = tiny_bundle(tmp_path, [[2, 0, 1], [1, 1]], timestamps=[[5, 5, 9], [1, 2]], n_items=4)
    bundle = Bundle.load(written.path, check=True)
    assert (bundle.n_users, bundle.n_items, bundle.n_interactions) == (2, 4, 5)
    assert bundle.history(0).tolist() == [2, 0, 1] and bundle.history(1).tolist() == [1, 1]
    assert bundle.offsets.tolist() == [0, 3, 5] and bundle.timestamps.tolist() == [5, 5, 9, 1, 2]
    assert (bundle.offsets.dtype, bundle.items.dtype, bundle.timestamps.dtype) == (np.int64, np.int32, np.int64)
    assert isinstance(bundle.items, np.memmap)
    assert bundle.users["user_id"].to_list() == ["u0", "u1"]
    assert bundle.vocabulary["item_id"].to_list() == ["i0", "i1", "i2", "i3"]
    with pytest.raises(DeshiError, match="expected 0 to 1"):
        bundle.history(2)


def test_a_row_of_the_table_is_the_flat_position(tmp_path: Path) -> None:
    """The soft-label store names events by flat position: interactions.parquet must agree with the arrays."""
    bundle = tiny_bundle(tmp_path, random_sequences(20, 30, 1, 9))
    table = pl.read_parquet(bundle.path / "interactions.parquet")
    assert table["item"].to_list() == bundle.items.tolist()
    assert table["user"].to_list() == np.repeat(np.arange(20), np.diff(bundle.offsets)).tolist()
    assert table["item_id"].to_list() == [f"i{item}" for item in bundle.items]


def test_encode_tells_how_many_ids_are_unknown(tmp_path: Path) -> None:
    """Serving meets items that the vocabulary has never seen: they are counted, not guessed."""
    bundle = tiny_bundle(tmp_path, [["a", "b", "c"]])
    indices, unknown = bundle.encode(["c", "new", "a", "c"])
    assert indices.tolist() == [2, 0, 2] and indices.dtype == np.int64 and unknown == 1
    assert bundle.encode([])[0].shape == (0,)


def test_item_table_joins_texts_and_keeps_items_without_any(tmp_path: Path) -> None:
    """A teacher reads `text`; an item that the item file doesn't know must stay in its place."""
    items = pl.DataFrame(
        {"item_id": ["b", "a", "other"], "title": ["Bee", None, "O"], "category": ["Insect", "Letter", "X"]}
    )
    table = tiny_bundle(tmp_path, [["a", "b", "c"]], items=items).item_table()
    assert table.columns == ["index", "item_id", "title", "text", "category"]
    assert table["item_id"].to_list() == ["a", "b", "c"]
    assert table["text"].to_list() == ["category: Letter", "Bee; category: Insect", None]


def test_a_text_column_of_the_source_is_kept(tmp_path: Path) -> None:
    """The source knows best what describes an item."""
    items = pl.DataFrame({"item_id": ["a"], "title": ["A"], "text": ["own words"]})
    assert tiny_bundle(tmp_path, [["a"]], items=items).item_table()["text"].to_list() == ["own words"]


def test_fingerprint_follows_content_not_name(tmp_path: Path) -> None:
    """Artifacts are matched by fingerprint: equal for equal content, different for any other."""
    base = tiny_bundle(tmp_path, [[0, 1, 2]])
    assert tiny_bundle(tmp_path, [[0, 1, 2]], name="copy").fingerprint == base.fingerprint
    others = [
        tiny_bundle(tmp_path, [[0, 2, 1]], name="order"),
        tiny_bundle(tmp_path, [[0, 1, 2]], timestamps=[[0, 1, 3]], name="times"),
        tiny_bundle(tmp_path, [[0, 1, 2]], time_unit="position", name="unit"),
        tiny_bundle(tmp_path, [[0, 1, 2]], n_items=4, name="catalogue"),
    ]
    assert len({bundle.fingerprint for bundle in (base, *others)}) == 5


def test_missing_and_damaged_bundles_say_what_to_do(tmp_path: Path) -> None:
    """Every kind of damage is one clear error, not a stack trace in the middle of training."""
    with pytest.raises(DeshiError, match="no data bundle tiny.*deshi prepare data=tiny"):
        Bundle.load(tmp_path / "tiny")
    path = tiny_bundle(tmp_path, random_sequences(5, 9, 2, 5)).path
    array = path / "sequences" / "items.npy"
    good = array.read_bytes()
    array.write_bytes(good[:-4])
    with pytest.raises(DeshiError, match="damaged.*items.npy"):
        Bundle.load(path)
    np.save(array, np.zeros(3, dtype=np.int32))
    with pytest.raises(DeshiError, match="damaged.*expected"):
        Bundle.load(path)
    array.write_bytes(good[:-4] + b"\1\0\0\0")
    with pytest.raises(DeshiError, match="damaged.*sha256"):
        Bundle.load(path, check=True)
    array.write_bytes(good)
    assert Bundle.load(path, check=True).n_users == 5
    (path / "users.parquet").unlink()
    with pytest.raises(DeshiError, match="users.parquet missing"):
        Bundle.load(path)


def test_a_bundle_of_another_format_is_refused(tmp_path: Path) -> None:
    """An old layout must not be read as the new one."""
    path = tiny_bundle(tmp_path, [[0, 1]]).path
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(DeshiError, match="format 99, expected 1"):
        Bundle.load(path)


def test_unsorted_events_are_refused(tmp_path: Path) -> None:
    """CSR arrays of ungrouped events would give users each other's histories."""
    frame = pl.DataFrame({"user": [0, 1, 0], "item": [0, 0, 0], "timestamp": [1, 2, 3]})
    events = Events(pl.Series(["u", "v"]), pl.Series(["a"]), frame)
    with pytest.raises(DeshiError, match="compact"):
        write_bundle(tmp_path / "bad", "bad", events)
    assert not (tmp_path / "bad").exists()


def test_a_missing_bundle_says_where_was_looked(tmp_path: Path) -> None:
    """`prepare data=base` helps nobody whose bundle lies under another root, or is a table of his own."""
    tiny_bundle(tmp_path, [[0, 1]], name="shop")
    with pytest.raises(
        DeshiError, match=f"no data bundle base: {tmp_path} holds shop.*paths.root=FOLDER.*data=tabular"
    ):
        load_bundle("base", tmp_path)
    with pytest.raises(DeshiError, match="x does not exist.*deshi prepare data=ml-1m "):
        load_bundle("ml-1m", tmp_path / "x")


def test_ids_longer_than_requests_may_hold_are_refused() -> None:
    """What can be prepared can be asked for: one limit for both, told with the id."""

    def rows(length: int) -> pl.DataFrame:
        return pl.DataFrame({"user_id": ["u"], "item_id": ["x" * length], "timestamp": [1]})

    assert encode_events(rows(MAX_ID)).item_ids.len() == 1
    with pytest.raises(DeshiError, match="has 2,049 characters, expected at most 2,048"):
        encode_events(rows(MAX_ID + 1))

"""Random bytes, random JSON and random files: whatever comes, a sentence goes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from deshi.data.histories import HistoryColumns
from deshi.serving.histories import read_histories
from deshi.types import MAX_ID, DeshiError
from service_process import client_on

FEW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
IDS = st.text(max_size=300) | st.integers(1, 40).map(str)
VALUES = JSON | st.lists(IDS, max_size=30)
KEYS = ["history", "histories", "k", "exclude", "candidates", "filter_seen", "other"]


@pytest.fixture(scope="module")
def client(serving: Path) -> Iterator[TestClient]:
    """Any exception that isn't turned into an answer is raised in the test."""
    with client_on(serving) as client:
        yield client


def check(answered: Any, good: tuple[int, ...]) -> None:
    """An answer of a documented status, in JSON, that tells nothing of the inside."""
    assert answered.status_code in good, answered.text
    assert answered.headers["content-type"] == "application/json"
    json.loads(answered.content.decode("utf-8"))
    assert "Traceback" not in answered.text and "/src/" not in answered.text


@FEW
@given(content=st.binary(max_size=400) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes(client: TestClient, content: bytes) -> None:
    """What isn't a request is refused."""
    check(client.post("/recommend", content=content, headers={"content-type": "application/json"}), (400, 422))


@FEW
@given(body=JSON | st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6), path=st.sampled_from(["", "/batch"]))
def test_any_json(client: TestClient, body: Any, path: str) -> None:
    """Keys that exist with values of every kind."""
    content = json.dumps(body)
    check(
        client.post(f"/recommend{path}", content=content, headers={"content-type": "application/json"}),
        (200, 400, 413, 422),
    )


@FEW
@given(history=st.lists(IDS, max_size=60), k=st.integers(1, 50), exclude=st.lists(IDS, max_size=10))
def test_any_history(client: TestClient, history: list[str], k: int, exclude: list[str]) -> None:
    """Ids in any script: none is lost, none that is excluded or seen comes back."""
    answered = client.post("/recommend", json={"history": history, "k": k, "exclude": exclude})
    if any(len(one) > MAX_ID for one in [*history, *exclude]):
        assert answered.status_code == 422
        return
    check(answered, (200,))
    found = answered.json()
    ids = [one["item_id"] for one in found["items"]]
    assert found["known_events"] + found["unknown_events"] == len(history)
    assert len(ids) == len(set(ids)) <= k and not set(ids) & {*history, *exclude}


@FEW
@given(query=st.text(min_size=1, max_size=200))
def test_any_search(client: TestClient, query: str) -> None:
    """Signs that mean something in a pattern or an address are letters here."""
    check(client.get("/items", params={"query": query}), (200, 422))


@FEW
@given(item_id=st.text(max_size=60), suffix=st.text(max_size=20))
def test_any_path(client: TestClient, item_id: str, suffix: str) -> None:
    """Whatever an address holds."""
    from urllib.parse import quote

    path = f"/items/{quote(item_id, safe='')}/similar{quote(suffix, safe='/')}"
    check(client.get(path), (200, 404, 405, 422))


LINES = st.lists(st.lists(st.text(max_size=6) | st.integers().map(str), max_size=5).map(",".join), max_size=8)
FILES = st.binary(max_size=200) | LINES.map(lambda lines: "\n".join(["user_id,item_id,timestamp", *lines]).encode())
JSONL = st.lists(st.fixed_dictionaries({"user_id": JSON, "items": JSON}).map(json.dumps), max_size=5)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl", ".json", ".csv.gz"])
@settings(FEW, max_examples=30)
@given(content=FILES | JSONL.map(lambda lines: "\n".join(lines).encode()))
def test_any_file_of_histories(tmp_path: Path, suffix: str, content: bytes) -> None:
    """It is read, or a sentence names the file: polars' own exceptions and panics stay inside."""
    path = tmp_path / f"histories{suffix}"
    path.write_bytes(content)
    ids = pl.Series(["1", "2", "3"])
    try:
        found = read_histories(path, ids, HistoryColumns())
    except DeshiError as error:
        assert str(path) in str(error)
        return
    assert found.offsets[-1] == len(found.items) <= found.events and len(found.offsets) == len(found) + 1

"""The HTTP service: the engine's answers, and clear refusals for all else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from deshi.serving.bundle import ServingBundle
from deshi.serving.engine import Engine, Recommendation
from deshi.serving.http import schemas
from deshi.types import MAX_ID
from service_process import KEY, LONGEST, client_on, renamed

ERROR = {"error", "message", "problems", "request_id"}


@pytest.fixture(scope="module")
def client(serving: Path) -> Iterator[TestClient]:
    """A client of a service without a key."""
    with client_on(serving) as client:
        yield client


def as_json(answer: Recommendation) -> dict[str, Any]:
    """What the service makes of an engine's answer."""
    items = [{"item_id": one.item_id, "title": one.title, "score": one.score} for one in answer.items]
    return {
        "items": items,
        "known_events": answer.known_events,
        "unknown_events": answer.unknown_events,
        "unknown_excluded": answer.unknown_excluded,
        "unknown_candidates": answer.unknown_candidates,
        "fallback": answer.fallback,
    }


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"k": 3},
        {"k": 40, "filter_seen": False},
        {"exclude": ["1", "2", "nothing like it"]},
        {"candidates": ["4", "5", "6"], "filter_seen": True},
        {"candidates": []},
    ],
)
def test_it_answers_as_the_engine_does(client: TestClient, engine: Engine, rules: dict[str, Any]) -> None:
    """Every rule of a request reaches the engine, and no digit is lost on the way back."""
    history = ["3", "14", "15", "unheard-of"]
    answered = client.post("/recommend", json={"history": history, **rules})
    assert answered.status_code == 200
    assert answered.json() == as_json(engine.recommend(history, **rules)) | {"version": engine.bundle.version}


def test_a_whole_number_may_be_written_with_a_point(client: TestClient) -> None:
    """JSON Schema counts 3.0 among the integers, and so do clients in languages that have one kind of number."""
    assert len(client.post("/recommend", json={"history": ["1"], "k": 3.0}).json()["items"]) == 3


def test_a_batch_is_answered_in_its_order(client: TestClient, engine: Engine) -> None:
    """Also the histories of nobody and of somebody unknown, who get what is popular."""
    histories = [["3", "14"], [], ["unheard-of"], ["9"] * 30]
    answered = client.post("/recommend/batch", json={"histories": histories, "k": 4}).json()
    assert answered["answers"] == [as_json(one) for one in engine.recommend_batch(histories, 4)]
    assert [one["fallback"] for one in answered["answers"]] == [None, "popularity", "popularity", None]
    assert answered["version"] == engine.bundle.version


def test_items_are_searched_and_compared(client: TestClient, engine: Engine) -> None:
    """The two questions of a shop's page beside the list."""
    found = client.get("/items", params={"query": "film 12", "limit": 3}).json()["items"]
    assert [one["item_id"] for one in found] == [one.item_id for one in engine.search_items("film 12", 3)]
    similar = client.get("/items/7/similar", params={"k": 5}).json()["items"]
    assert similar == [
        {"item_id": one.item_id, "title": one.title, "score": one.score} for one in engine.similar_items("7", 5)
    ]
    assert client.get("/items", params={"query": "..."}).json()["items"] == []


IDS = {0: "a/b", 1: "ünïcødé 弟子 🎬", 2: "?&#%", 3: "..", 4: "x" * MAX_ID, 5: "line\nbreak\x00"}


def test_ids_are_any_text(serving: Path, tmp_path: Path) -> None:
    """Ids come from elsewhere: slashes, other scripts, and what means something in an address."""
    from urllib.parse import quote

    with client_on(renamed(serving, tmp_path / "renamed", IDS)) as client:
        for item_id in IDS.values():
            answered = client.post("/recommend", json={"history": [item_id], "k": 40, "filter_seen": False}).json()
            assert answered["known_events"] == 1 and item_id in [one["item_id"] for one in answered["items"]]
            if item_id != ".." and item_id.isprintable():  # clients resolve the first; a path has one line
                found = client.get(f"/items/{quote(item_id, safe='')}/similar")
                assert found.status_code == 200, item_id
            if item_id.isprintable():
                found = client.get("/items", params={"query": item_id[: schemas.MAX_QUERY]}).json()["items"]
                assert len(item_id) > schemas.MAX_QUERY or found[0]["item_id"] == item_id


GOOD: dict[str, Any] = {"history": ["1"]}
WRONG = [
    ({}, "body.history", "nothing"),
    ({"history": "1"}, "body.history", "'1'"),
    ({"history": ["1", 2]}, "body.history.1", "2"),
    ({"history": [None]}, "body.history.0", "None"),
    ({"history": ["x" * (MAX_ID + 1)]}, "body.history.0", "'xxx"),
    ({"history": ["1"] * (schemas.MAX_HISTORY + 1)}, "body.history", "['1', '1', '1', ...]"),
    (GOOD | {"k": 0}, "body.k", "0"),
    (GOOD | {"k": schemas.MAX_K + 1}, "body.k", "1001"),
    (GOOD | {"k": "5"}, "body.k", "'5'"),
    (GOOD | {"k": True}, "body.k", "True"),
    (GOOD | {"k": 1e300}, "body.k", "1000000"),
    (GOOD | {"k": 2.5}, "body.k", "2.5"),
    (GOOD | {"filter_seen": "no"}, "body.filter_seen", "'no'"),
    (GOOD | {"exclude": {"a": 1}}, "body.exclude", "{'a': 1}"),
    (GOOD | {"K": 5}, "body.K", "5"),
    ([], "body", "[]"),
    (None, "body", "None"),
]


@pytest.mark.parametrize(("body", "where", "got"), WRONG, ids=[f"{where}-{n}" for n, (_, where, _) in enumerate(WRONG)])
def test_a_wrong_request_is_told_what_is_wrong(client: TestClient, body: Any, where: str, got: str) -> None:
    """Whoever calls must find the mistake without our log, and never sees a traceback."""
    answered = client.post("/recommend", content=json.dumps(body), headers={"content-type": "application/json"})
    assert answered.status_code == 422 and set(answered.json()) == ERROR
    problem = answered.json()["problems"][0]
    assert problem["location"] == where and problem["got"].startswith(got) and problem["expected"]
    assert len(answered.content) < 4000


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/recommend", 405),
        ("GET", "/items", 422),
        ("GET", "/items?query=", 422),
        ("GET", f"/items?query={'x' * 201}", 422),
        ("GET", "/items?query=x&limit=0", 422),
        ("GET", "/items?query=x&limit=abc", 422),
        ("GET", "/items?query=x&Limit=3", 422),
        ("GET", "/items/nobody/similar", 404),
        ("GET", "/items/7/similar?k=1001", 422),
        ("GET", f"/items/{'7' * (MAX_ID + 1)}/similar", 422),
        ("GET", "/items//similar", 422),
        ("POST", "/recommend/batch", 422),
        ("POST", "/reload", 403),
    ],
)
def test_a_wrong_path_or_query_is_refused(client: TestClient, method: str, path: str, status: int) -> None:
    """In the one form of all errors."""
    answered = client.request(method, path)
    assert answered.status_code == status and set(answered.json()) == ERROR
    assert answered.json()["message"] and answered.json()["request_id"] == answered.headers["x-request-id"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"history": ["1"', "no JSON"),
        (b"", "nothing"),
        (b"\xff\xfe", ""),
        (b"[" * 50_000, ""),
        (b'{"history": [' + b"9" * 5_000 + b"]}", ""),
        (b'{"history": ["\\ud800"]}', ""),
        (b'{"history": ["1"], "k": NaN}', "nan"),
        (b'{"\\ud800": 1}', ""),
    ],
    ids=["cut", "empty", "no-utf8", "deep", "digits", "surrogate", "nan", "surrogate-key"],
)
def test_bytes_that_are_no_request(client: TestClient, content: bytes, said: str) -> None:
    """Half a surrogate pair can't be written back, depth exhausts parsers, a huge number takes forever to print."""
    answered = client.post("/recommend", content=content, headers={"content-type": "application/json"})
    assert answered.status_code in (400, 422) and set(answered.json()) == ERROR
    assert said in answered.text and "Traceback" not in answered.text


def test_json_must_be_called_json(client: TestClient) -> None:
    """A page of another site can send text without asking the browser first, but no JSON."""
    answered = client.post("/recommend", content=b'{"history": ["1"]}', headers={"content-type": "text/plain"})
    assert answered.status_code == 422 and "content-type: application/json" in answered.json()["message"]


def test_a_large_body_is_refused_before_it_is_read(client: TestClient) -> None:
    """By its announced length, and by what comes where none is announced."""

    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 10_000

    announced = client.post("/recommend", content=b" " * (LONGEST + 1))
    unannounced = client.post("/recommend", content=(part for part, _ in zip(endless(), range(100), strict=False)))
    for answered in (announced, unannounced):
        assert answered.status_code == 413 and set(answered.json()) == ERROR
        assert f"expected {LONGEST:,} at most" in answered.json()["message"]
        assert answered.headers["connection"] == "close"
    assert client.post("/recommend", json={"history": ["x" * 250] * 300}).status_code == 413


def test_a_request_has_a_number(client: TestClient) -> None:
    """The caller's own is kept if it is a plain word, so that logs can be joined; it can't be used to forge lines."""
    assert client.get("/health", headers={"x-request-id": "order-66"}).headers["x-request-id"] == "order-66"
    for given in ("a b", "x" * 65, 'a"}', ""):
        made = client.get("/health", headers={"x-request-id": given}).headers["x-request-id"]
        assert made != given and len(made) == 16


def test_health_readiness_and_metrics(serving: Path, bundle: ServingBundle) -> None:
    """What an orchestrator and Prometheus ask."""
    with client_on(serving) as client:
        assert client.get("/health").json() == {"status": "ok"}
        ready = {"status": "ready", "bundle": bundle.name, "version": bundle.version, "items": 40, "counts": None}
        assert client.get("/ready").json() == ready
        client.post("/recommend", json={"history": ["1", "unheard-of"]})
        client.post("/recommend/batch", json={"histories": [["1"], []]})
        client.get("/items/secret-item/similar")
        text = client.get("/metrics").text
    for line in (
        'deshi_requests_total{route="/recommend",status="200"} 1.0',
        'deshi_requests_total{route="/items/{item_id}/similar",status="404"} 1.0',
        "deshi_histories_total 3.0",
        'deshi_history_events_total{known="no"} 1.0',
        "deshi_popularity_answers_total 1.0",
        f'deshi_bundle{{name="{bundle.name}",version="{bundle.version}"}} 1.0',
        'deshi_request_seconds_bucket{le="0.0005",route="/recommend"}',
        "process_resident_memory_bytes",
    ):
        assert line in text, line
    assert "secret-item" not in text, "an address that a client chooses must not become a label"


@pytest.mark.parametrize("given", [None, "", KEY[:-1], KEY + "x", KEY.upper(), "ü" * 20])
def test_a_key_is_asked_for(serving: Path, given: str | None) -> None:
    """Nothing but what a probe needs is answered without it, and a body isn't read before."""
    headers: list[tuple[bytes, bytes]] = [] if given is None else [(b"x-api-key", given.encode())]
    with client_on(serving, api_key=KEY) as client:
        for method, path in (("POST", "/recommend"), ("GET", "/items?query=film"), ("POST", "/reload"), ("GET", "/x")):
            answered = client.request(method, path, headers=headers)
            assert answered.status_code == 401 and set(answered.json()) == ERROR and KEY not in answered.text
        assert [client.get(path).status_code for path in ("/health", "/ready", "/metrics", "/openapi.json")] == [
            200
        ] * 4
        assert client.post("/recommend", json=GOOD, headers={"X-API-Key": KEY}).status_code == 200


def test_an_answer_in_time_or_none(serving: Path) -> None:
    """A request that hangs must not hold its caller; those after it are answered."""
    from time import sleep

    class Slow(Engine):
        def recommend_batch(self, *args: Any, **values: Any) -> Any:
            sleep(0.6 if len(args[0]) > 1 else 0)
            return super().recommend_batch(*args, **values)

    with client_on(serving, start=Slow, timeout=0.3) as client:
        answered = client.post("/recommend/batch", json={"histories": [["1"], ["2"]]})
        assert answered.status_code == 504 and "0.3 s" in answered.json()["message"]
        assert client.post("/recommend", json=GOOD).status_code == 200


def test_a_bug_is_an_answer_without_a_traceback(serving: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log has it, under the number that the caller gets."""

    class Broken(Engine):
        def similar_items(self, *args: Any, **values: Any) -> Any:
            raise ZeroDivisionError("the secret of line 42")

    with client_on(serving, start=Broken) as client:
        answered = client.get("/items/7/similar")
        assert answered.status_code == 500 and set(answered.json()) == ERROR
        assert "secret" not in answered.text and "Traceback" not in answered.text
        assert client.get("/health").status_code == 200
    record = next(one for one in caplog.records if one.exc_info)
    assert vars(record)["fields"]["request_id"] == answered.json()["request_id"]


def test_scores_and_titles_may_be_missing(serving: Path, bundle: ServingBundle) -> None:
    """A catalogue without titles answers null, not an empty text."""

    class Untitled(Engine):
        def __init__(self, bundle: ServingBundle) -> None:
            super().__init__(bundle)
            self._titles = [None] * self.n_items

    with client_on(serving, start=Untitled) as client:
        found = client.post("/recommend", json=GOOD).json()["items"]
    assert [one["title"] for one in found] == [None] * 10
    assert np.isfinite([one["score"] for one in found]).all()


def test_the_document_names_every_route_and_limit(client: TestClient) -> None:
    """A client is generated from it."""
    document = client.get("/openapi.json").json()
    assert {
        "/recommend", "/recommend/batch", "/items", "/items/{item_id}/similar",
        "/health", "/ready", "/metrics", "/reload",
    } == set(document["paths"])  # fmt: skip
    history = document["components"]["schemas"]["RecommendRequest"]["properties"]["history"]
    assert (history["maxItems"], history["items"]["maxLength"]) == (schemas.MAX_HISTORY, MAX_ID)
    assert document["components"]["schemas"]["RecommendRequest"]["additionalProperties"] is False
    assert {"413", "422", "504"} <= set(document["paths"]["/recommend"]["post"]["responses"])

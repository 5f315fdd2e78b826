"""The page's routes, its file of test users, and what it says about lists; the browser has a test of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from deshi.serving.bundle import ServingBundle
from deshi.serving.engine import Engine
from deshi.serving.http.app import create_app
from deshi.serving.http.comparison import ModelList, compared, rank_of, reasons
from deshi.serving.http.demo import Demo, DemoUser, write_demo
from deshi.serving.http.page import PAGE, page, policy
from deshi.soft_labels import Histories, write_lists
from deshi.types import DeshiError
from html_checks import Page
from service_process import KEY, renamed, service_on
from tiny_bundles import random_sequences, tiny_bundle

DEMO = Demo(
    data="tiny",
    teacher="llm",
    users=[
        DemoUser(user_id="u1", history=["1", "2", "3"], truth="4", teacher=["9", "4", "8"]),
        DemoUser(user_id="u2", history=["5"], truth="<script>alert(1)</script>"),
    ],
)


@pytest.fixture(scope="module")
def client(serving: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The page with a second bundle and two test users."""
    other = renamed(serving, tmp_path_factory.mktemp("page") / "other", {0: "another"})
    service = service_on(serving)
    app = create_app(service, [page(service, {"plain": Engine(ServingBundle.load(other))}, DEMO)])
    with TestClient(app) as client:
        yield client


def test_the_page_is_one_file_that_loads_nothing(client: TestClient) -> None:
    """It must work where nothing else can be reached, and run no script but its own."""
    answered = client.get("/")
    assert answered.headers["content-type"] == "text/html; charset=utf-8"
    read = Page(re.sub(r"<script>.*?</script>", "", answered.text, flags=re.S))
    assert read.problems == [] and len(read.ids) == len(set(read.ids))
    assert sorted(read.headings) == [1, 2, 2, 2, 2, 3]
    assert read.links == ["data:,", "#answers", "/openapi.json"]
    rules = answered.headers["content-security-policy"]
    assert rules == policy(PAGE.read_text(encoding="utf-8")) and "default-src 'none'" in rules
    assert "unsafe" not in rules and rules.count("sha256-") == 2 and "frame-ancestors 'none'" in rules
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", answered.text)


def test_the_page_opens_without_the_key_and_answers_with_it(serving: Path) -> None:
    """The page asks for it; what it shows is as guarded as the rest."""
    service = service_on(serving, api_key=KEY)
    with TestClient(create_app(service, [page(service, {}, DEMO)])) as client:
        assert client.get("/").status_code == 200
        assert [client.get(path).status_code for path in ("/demo", "/demo/users/0")] == [401, 401]
        assert client.get("/demo", headers={"X-API-Key": KEY}).status_code == 200


def test_models_and_test_users_are_named(client: TestClient, engine: Engine) -> None:
    """What the page begins with."""
    found = client.get("/demo").json()
    assert [(one["label"], one["api"]) for one in found["models"]] == [(engine.bundle.name, True), ("plain", False)]
    assert (found["teacher"], found["data"], len(found["users"])) == ("llm", "tiny", 2)
    user = client.get("/demo/users/0").json()
    assert [one["item_id"] for one in user["history"]] == ["1", "2", "3"] and user["truth"]["title"].startswith(
        "Film 4"
    )
    unknown = client.get("/demo/users/1").json()["truth"]
    assert unknown == {"item_id": "<script>alert(1)</script>", "title": None, "events": 0}
    assert [client.get(f"/demo/users/{number}").status_code for number in (2, -1, "x")] == [404, 404, 422]


def test_a_test_user_is_compared_with_the_truth(client: TestClient, engine: Engine) -> None:
    """Lists are those of the interface; the truth's place is exact, also where it is beyond the list."""
    history = ["1", "2", "3"]
    body = {"history": history, "k": 5, "user": 0}
    found = client.post("/demo/compare", json=body).json()
    labels = [one["label"] for one in found["models"]]
    assert labels == [engine.bundle.name, "plain", "llm"] and found["truth"]["item_id"] == "4"
    own = [one.item_id for one in engine.recommend(history, 40).items]
    model, _, teacher = found["models"]
    assert [one["item_id"] for one in model["items"]] == own[:5] and model["rank"] == own.index("4") + 1
    assert model["milliseconds"] > 0 and model["shared"]["plain"] == 5
    assert [one["item_id"] for one in teacher["items"]] == ["9", "4", "8"]
    assert (teacher["rank"], teacher["depth"], teacher["milliseconds"]) == (2, 3, None)
    assert model["events"] == np.median([engine.item(one).score for one in own[:5]])


def test_an_augmented_history_has_no_truth_and_no_stored_list(client: TestClient) -> None:
    """The teacher isn't asked now: what it said about another history would be a lie."""
    for body in ({"history": ["1", "2"], "user": 0}, {"history": ["1", "2", "3"]}, {"history": ["5"], "user": 1}):
        found = client.post("/demo/compare", json=body).json()
        assert found["models"][2]["items"] == [] and "stored" in found["models"][2]["note"]
        assert (found["truth"] is None) == (body.get("user") != 1)
    assert client.post("/demo/compare", json={"history": ["1"], "user": 7}).status_code == 404
    assert client.post("/demo/compare", json={"history": ["1"], "k": 51}).status_code == 422
    assert "popular" in client.post("/demo/compare", json={"history": []}).json()["models"][0]["note"]


def test_the_reasons_are_counted(engine: Engine) -> None:
    """Overlap, popularity and the truth in words; a list that is empty is no reason."""
    lists = [
        ModelList("one", ["1", "2", "3"], 1.0, 2, 40),
        ModelList("two", ["3", "4", "5"], 1.0, None, 40),
        ModelList("none", [], None, None, 0),
    ]
    said = reasons(engine, lists, "2")
    assert said[0] == "one and two share 1 of 3 items." and said[-1].endswith("in the list of one: place 2.")
    assert not any("none" in sentence for sentence in said)
    assert reasons(engine, lists[1:], "2") == ["No model has what came next in its list."]
    assert reasons(engine, lists[2:], None) == [] and compared(engine, lists[2:], None)["models"][0]["events"] == 0
    assert (rank_of(None, ["1"]), rank_of("2", ["1"]), rank_of("1", ["1"])) == (None, None, 1)


@pytest.fixture
def data(tmp_path: Path) -> Any:
    """Twelve users over 30 items; two have too few events for a test."""
    return tiny_bundle(tmp_path, [*random_sequences(10, 30, 4, 9), [1, 2], [3]], n_items=30)


def test_users_are_drawn_with_their_truth_and_the_teachers_list(data: Any, tmp_path: Path) -> None:
    """A row of the store is that of the last event before the truth; users that it covers come first."""
    covered = [3, 7]
    rows = np.array([data.offsets[user + 1] - 2 for user in covered])
    lists = np.array([[20, 21, 22], [23, 24, -1]])
    scores = np.array([[3.0, 2.0, 1.0], [2.0, 1.0, 0.0]], dtype=np.float32)
    write_lists(rows, lists, scores, Histories.of(data), tmp_path / "store", teacher={"name": "llm", "run": "none"})
    found = Demo.load(write_demo(tmp_path / "demo.json", data.path, tmp_path / "store", users=6, k=2))
    assert (found.data, found.teacher, len(found.users)) == ("tiny", "llm", 6)
    assert {one.user_id for one in found.users[:2]} == {"u3", "u7"}
    assert {one.user_id: one.teacher for one in found.users[:2]} == {"u3": ["i20", "i21"], "u7": ["i23", "i24"]}
    assert [one.teacher for one in found.users[2:]] == [None] * 4
    for one in found.users:
        events = [f"i{item}" for item in data.history(int(one.user_id[1:]))]
        assert [*one.history, one.truth] == events
    again = write_demo(tmp_path / "again.json", data.path, tmp_path / "store", users=6, k=2)
    assert again.read_bytes() == (tmp_path / "demo.json").read_bytes()
    assert write_demo(tmp_path / "other.json", data.path, users=6, seed=1).read_bytes() != again.read_bytes()
    assert len(Demo.load(write_demo(tmp_path / "all.json", data.path)).users) == 10


@pytest.mark.parametrize("content", ["", "[]", '{"users": [{"user_id": 1}]}', '{"format": 2}', '{"other": 1}', "\x00"])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    """A service with the wrong file must say so at its start."""
    path = tmp_path / "demo.json"
    path.write_text(content)
    with pytest.raises(DeshiError, match="write_demo|expected 1"):
        Demo.load(path)
    with pytest.raises(DeshiError, match="can't be read"):
        Demo.load(tmp_path / "none.json")


def test_titles_stay_text(client: TestClient) -> None:
    """What comes from data goes through JSON, and never into the page's source."""
    answered = client.get("/demo")
    assert answered.headers["content-type"] == "application/json" and json.loads(answered.text)
    assert answered.headers["x-content-type-options"] == "nosniff"

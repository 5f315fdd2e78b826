"""Another bundle takes the place of the one that answers, and nobody notices but by its version."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from deshi.serving.bundle import GRAPHS, ServingBundle
from deshi.serving.engine import Engine
from deshi.serving.http.reload import Engines, ReloadBusy
from deshi.types import DeshiError
from service_process import KEY, app_on, client_on, renamed, service_on

HEADERS = {"X-API-Key": KEY}


@pytest.fixture
def place(serving: Path, tmp_path: Path) -> Path:
    """A folder of one's own in which the tiny bundle lies."""
    return Path(shutil.copytree(serving, tmp_path / "place"))


@pytest.fixture
def other(serving: Path, tmp_path: Path) -> Path:
    """Another version of it, which calls its first item NEW."""
    return renamed(serving, tmp_path / "other", {0: "NEW"})


def put(source: Path, place: Path) -> None:
    """Another bundle in the place of the one that lies there, as an export does it."""
    shutil.move(place, place.with_name(f"{place.name}.old"))
    shutil.rmtree(place.with_name(f"{place.name}.old"))
    shutil.copytree(source, place.with_name(f"{place.name}.new"))
    shutil.move(place.with_name(f"{place.name}.new"), place)


def test_a_new_bundle_answers_after_a_reload(place: Path, other: Path) -> None:
    """Its items are known then and weren't before; the same bundle again changes nothing."""
    old, new = ServingBundle.load(place).version, ServingBundle.load(other).version
    with client_on(place, api_key=KEY) as client:
        client.headers.update(HEADERS)
        put(other, place)
        before = client.post("/recommend", json={"history": ["NEW"]}).json()
        answered = client.post("/reload").json()
        after = client.post("/recommend", json={"history": ["NEW"]}).json()
        again = client.post("/reload").json()
        text = client.get("/metrics").text
    assert (before["version"], before["known_events"], after["version"], after["known_events"]) == (old, 0, new, 1)
    assert (answered["reloaded"], answered["previous"], answered["version"]) == (True, old, new)
    assert (again["reloaded"], again["previous"], again["version"]) == (False, new, new)
    assert 'deshi_reloads_total{result="swapped"} 1.0' in text and f'version="{new}"}} 1.0' in text
    assert old not in text


@pytest.mark.parametrize("harm", ["gone", "damaged", "unreadable"])
def test_a_bad_bundle_leaves_the_old_one_answering(place: Path, other: Path, harm: str) -> None:
    """A deployment that went wrong must not stop the service."""
    with client_on(place, api_key=KEY) as client:
        client.headers.update(HEADERS)
        before = client.post("/recommend", json={"history": ["1"]}).json()
        put(other, place)
        if harm == "gone":
            shutil.rmtree(place)
        elif harm == "damaged":
            (place / GRAPHS["fp32"]).write_bytes(b"no graph")
        else:
            (place / "manifest.json").write_bytes(b"\xff{")
        answered = client.post("/reload")
        assert answered.status_code == 503 and "The old bundle keeps answering" in answered.json()["message"]
        assert client.post("/recommend", json={"history": ["1"]}).json() == before
        assert client.get("/ready").status_code == 200
        assert 'deshi_reloads_total{result="failed"} 1.0' in client.get("/metrics").text


def test_an_engine_that_does_not_answer_is_not_taken(place: Path, other: Path) -> None:
    """A bundle may be whole and its graph fail all the same."""

    class Failing(Engine):
        def recommend(self, *args: Any, **values: Any) -> Any:
            if "NEW" in self._ids:
                raise RuntimeError("onnxruntime says no")
            return super().recommend(*args, **values)

    engines = service_on(place, start=Failing).engines
    old = engines.current
    put(other, place)
    with pytest.raises(DeshiError, match="does not answer .onnxruntime says no"):
        engines.reload()
    assert engines.current is old


def test_one_reload_at_a_time(place: Path, other: Path) -> None:
    """Two at once would hold three bundles in memory."""
    entered, go = threading.Event(), threading.Event()

    def slow(bundle: ServingBundle) -> Engine:
        if "NEW" in bundle.items["item_id"]:
            entered.set()
            assert go.wait(30)
        return Engine(bundle)

    engines: Engines = service_on(place, start=slow).engines
    put(other, place)
    thread = threading.Thread(target=engines.reload)
    thread.start()
    assert entered.wait(30)
    with pytest.raises(ReloadBusy, match="under way"):
        engines.reload()
    go.set()
    thread.join(30)
    assert "NEW" in engines.current.bundle.items["item_id"] and not engines.reload().reloaded


def test_no_request_is_lost_while_bundles_change(place: Path, serving: Path, other: Path) -> None:
    """Requests of all kinds beside exchanges and reloads: each is answered, by one bundle and not by half of two."""
    versions = {ServingBundle.load(folder).version: folder == other for folder in (serving, other)}
    app = app_on(place, api_key=KEY)
    counts: Counter[str] = Counter()

    async def ask(client: httpx.AsyncClient, done: asyncio.Event) -> None:
        while not done.is_set():
            one = (await client.post("/recommend", json={"history": ["NEW", "7"], "k": 5})).raise_for_status().json()
            assert one["known_events"] == 1 + versions[one["version"]]
            both = await client.post("/recommend/batch", json={"histories": [["NEW"], ["7"]]})
            found = both.raise_for_status().json()
            assert found["answers"][0]["known_events"] == versions[found["version"]]
            (await client.get("/items/7/similar")).raise_for_status()
            counts[one["version"]] += 1
            await asyncio.sleep(0)

    async def change(client: httpx.AsyncClient, done: asyncio.Event) -> None:
        for number in range(6):
            await asyncio.to_thread(put, other if number % 2 == 0 else serving, place)
            several = await asyncio.gather(*(client.post("/reload") for _ in range(3)))
            assert {answered.status_code for answered in several} <= {200, 409}
            counts["reloads"] += sum(answered.json().get("reloaded", False) for answered in several)
            await asyncio.sleep(0.05)
        done.set()

    async def play() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=HEADERS) as client:
            done = asyncio.Event()
            await asyncio.gather(change(client, done), *(ask(client, done) for _ in range(4)))

    asyncio.run(play())
    assert counts["reloads"] == 6 and all(counts[version] > 0 for version in versions)

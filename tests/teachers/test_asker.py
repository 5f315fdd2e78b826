"""Requests to an endpoint: faults, limits, the cache, kills, two processes, and the key."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, chat_server, completion
from fastapi import Response
from starlette.responses import StreamingResponse

from deshi.teachers._answer_cache import Answer, AnswerCache
from deshi.teachers._asker import Asker
from deshi.teachers.cost import Budget, BudgetReached, Prices
from deshi.teachers.endpoint import Endpoint, Key
from deshi.types import DeshiError

KEY = "sk-a-key-of-the-tests-0123456789"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as server:
        server.rule = lambda body, number: body["messages"][0]["content"].upper()
        yield server


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def asker(server: ChatServer, folder: Path, budget: Budget | None = None, **settings: Any) -> Asker:
    settings = {"retries": 2, "timeout": 5.0} | settings
    return Asker(Endpoint(server.url, "scripted", **settings), budget or Budget(), folder)


def ask(asker: Asker, *texts: str) -> list[str]:
    requests = [asker.endpoint.request([{"role": "user", "content": text}], 10) for text in texts]
    return [answer.text for answer, _ in asker.ask(requests)]


def broken_off() -> Iterator[bytes]:
    yield b'{"id": "1", "choices": [{"mess'
    raise ConnectionError("the scripted server breaks off")


FAULTS: dict[str, Any] = {
    "429": lambda: Response("slow down", 429, {"retry-after": "1"}),
    "500": lambda: Response('{"error": {"message": "no"}}', 500),
    "503": lambda: Response("", 503),
    "half a body": lambda: Response('{"id": "1", "choices": [{"mess', media_type="application/json"),
    "broken connection": lambda: StreamingResponse(broken_off(), media_type="application/json"),
    "no choices": lambda: Response('{"id": "1", "choices": []}', media_type="application/json"),
    "a web page": lambda: Response("<html>gateway</html>", media_type="text/html"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_asked_again(fault: str, server: ChatServer, tmp_path: Path) -> None:
    """What passes is waited for; nothing of the fault is kept as an answer."""
    server.rule = lambda body, number: FAULTS[fault]() if number == 0 else "fine"
    begin = time.monotonic()
    assert ask(asker(server, tmp_path), "one") == ["fine"] and len(server.bodies) == 2
    assert fault != "429" or time.monotonic() - begin >= 1, "Retry-After is honoured"
    assert [answer.text for answer in _cached(tmp_path)] == ["fine"]


def test_a_slow_answer_is_asked_again(server: ChatServer, tmp_path: Path) -> None:
    """A request that hangs must not hang the whole."""

    def slow_once(body: dict[str, Any], number: int) -> str:
        time.sleep(1.0 if number == 0 else 0.0)
        return "fine"

    server.rule = slow_once
    assert ask(asker(server, tmp_path, timeout=0.3), "one") == ["fine"] and len(server.bodies) == 2


def test_a_server_that_stays_broken_is_given_up(server: ChatServer, tmp_path: Path) -> None:
    """After so many retries, with a message; what other requests brought is kept."""
    server.rule = lambda body, number: Response("", 500) if body["messages"][0]["content"] == "bad" else "fine"
    with pytest.raises(DeshiError, match=r"gave no answer after 1 retries.*asks nothing twice"):
        ask(asker(server, tmp_path, retries=1, concurrency=1), "good", "bad", "never")
    assert [body["messages"][0]["content"] for body in server.bodies] == ["good", "bad", "bad"]
    assert len(_cached(tmp_path)) == 1


def test_no_server_is_a_clear_message(tmp_path: Path) -> None:
    """The commonest mistake."""
    quiet = Asker(Endpoint("http://127.0.0.1:9/v1", "m", retries=0), Budget(), tmp_path)
    with pytest.raises(DeshiError, match=r"127.0.0.1:9/v1 can't be reached.*server running"):
        ask(quiet, "one")


@pytest.mark.parametrize(("status", "words"), [(400, "refuses the request"), (404, "doesn't know 'scripted'")])
def test_what_no_retry_mends_is_told_at_once(status: int, words: str, server: ChatServer, tmp_path: Path) -> None:
    """A wrong model or parameter costs one request."""
    server.rule = lambda body, number: Response('{"error": {"message": "max_tokens: no"}}', status)
    with pytest.raises(DeshiError, match=words):
        ask(asker(server, tmp_path), "one")
    assert len(server.bodies) == 1


def test_a_refused_key_is_told_without_it(server: ChatServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Some servers repeat the key in their message."""
    server.rule = lambda body, number: Response(
        json.dumps({"error": {"message": f"bad key {server.headers[-1]['authorization']}"}}), 401
    )
    caplog.set_level("DEBUG")
    with pytest.raises(DeshiError, match=r"refuses the key.*\*\*\*.*OPENAI_API_KEY") as caught:
        ask(asker(server, tmp_path), "one")
    assert server.headers[-1]["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value) and KEY not in caplog.text


def test_a_key_is_asked_for_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of this machine need none; others are asked about before any work."""
    assert Key("OPENAI_API_KEY", "https://api.example.org/v1").problem(Path()) is None
    monkeypatch.delenv("OPENAI_API_KEY")
    problem = Key("OPENAI_API_KEY", "https://api.example.org/v1").problem(Path())
    assert problem is not None and "export OPENAI_API_KEY=" in problem and "key_variable=null" in problem
    assert Key(None, "https://api.example.org/v1").problem(Path()) is None
    assert Key("OPENAI_API_KEY", "http://localhost:8000/v1").problem(Path()) is None


@pytest.mark.parametrize("url", ["https://user:secret@example.org/v1", "https://example.org/v1?key=secret"])
def test_a_url_with_a_secret_is_refused(url: str) -> None:
    """The URL is written to the run's configuration; the message must not repeat the secret either."""
    with pytest.raises(DeshiError, match="key_variable") as caught:
        Endpoint(url, "m")
    assert "secret" not in str(caught.value)


def test_wrong_numbers_are_refused() -> None:
    """Before anything is paid for."""
    numbers: list[dict[str, Any]] = [{"concurrency": 0}, {"timeout": 0}, {"retries": -1}, {"tokens_per_minute": -5}]
    for settings in numbers:
        with pytest.raises(DeshiError, match=next(iter(settings))):
            Endpoint("http://localhost/v1", "m", **settings)
    for wrong in ("localhost:8000", "ftp://x/v1", ""):
        with pytest.raises(DeshiError, match="endpoint.url"):
            Endpoint(wrong, "m")
    with pytest.raises(DeshiError, match="never be reached"):
        Asker(Endpoint("http://localhost/v1", "m"), Budget(money=1.0), Path())


def test_nothing_is_asked_twice(server: ChatServer, tmp_path: Path) -> None:
    """Not in a call, not in the next one, not by another object; another parameter is another request."""
    first = asker(server, tmp_path)
    assert ask(first, "a", "b", "a") == ["A", "B", "A"] and len(server.bodies) == 2
    assert ask(first, "b", "c") == ["B", "C"] and ask(asker(server, tmp_path), "a", "b", "c") == ["A", "B", "C"]
    assert len(server.bodies) == 3
    ask(asker(server, tmp_path, parameters={"seed": 1}), "a")
    assert len(server.bodies) == 4 and server.bodies[-1]["seed"] == 1
    costs = [cost for _, cost in first.ask([first.endpoint.request([{"role": "user", "content": "a"}], 10)])]
    assert costs[0].cached == 1 and costs[0].prompt_tokens == 100 and first.spent.requests == 3


def test_parameters_replace_and_remove(server: ChatServer, tmp_path: Path) -> None:
    """Endpoints differ in what they take."""
    ask(asker(server, tmp_path, parameters={"max_tokens": None, "max_completion_tokens": 7, "temperature": None}), "a")
    assert {"max_tokens", "temperature"}.isdisjoint(server.bodies[0]) and server.bodies[0]["max_completion_tokens"] == 7


def test_no_more_than_so_many_at_once(server: ChatServer, tmp_path: Path) -> None:
    """Concurrency is used, and kept to."""
    server.delay = 0.05
    ask(asker(server, tmp_path, concurrency=3), *"abcdefghi")
    assert server.most_at_once == 3


@pytest.mark.parametrize("limit", [{"requests_per_minute": 600}, {"tokens_per_minute": 14_400}])
def test_limits_per_minute_space_requests(
    limit: dict[str, Any], server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten requests a second; or tokens, 24 of each by the estimate (10 of the answer, 14 of the prompt)."""
    limited, pauses = asker(server, tmp_path, **limit), list[float]()
    request = limited.endpoint.request([{"role": "user", "content": "x" * 20}], 10)
    monkeypatch.setattr("deshi.teachers._asker.time.monotonic", lambda: 1000.0 + sum(pauses))
    monkeypatch.setattr("deshi.teachers._asker.time.sleep", pauses.append)
    for _ in range(4):
        limited._pace(limited.expected(request))
    assert pauses == pytest.approx([0.0, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("budget", "asked"),
    [
        (Budget(requests=3), 3),
        (Budget(tokens=235), 2),  # 110 of each as the server counts, 19 before by the estimate
        (Budget(money=235e-6), 2),  # one for a million tokens
        (Budget(requests=0), 0),
    ],
)
def test_a_budget_ends_cleanly(budget: Budget, asked: int, server: ChatServer, tmp_path: Path) -> None:
    """It is never exceeded by more than the estimate errs, what came is kept, and the next command goes on."""
    limited = asker(server, tmp_path, budget, concurrency=1, prices=Prices(1.0, 1.0))
    with pytest.raises(BudgetReached, match=r"budget\.\w+=.* is reached: .* requests, .* tokens.*asks nothing twice"):
        ask(limited, *"abcdef")
    assert len(server.bodies) == asked == limited.spent.requests == len(_cached(tmp_path))
    assert ask(asker(server, tmp_path), *"abcdef") == list("ABCDEF")
    assert server.asked_twice == 0 and len(server.bodies) == 6


def test_a_server_that_counts_no_tokens_is_estimated(server: ChatServer, tmp_path: Path) -> None:
    """A budget of tokens must hold there, too."""
    server.rule = lambda body, number: completion("A" * 35, usage=False)
    counting = asker(server, tmp_path)
    ask(counting, "x" * 70)
    assert (counting.spent.prompt_tokens, counting.spent.answer_tokens) == (28, 10)


def test_an_answer_without_text_is_one(server: ChatServer, tmp_path: Path) -> None:
    """A refusal by a filter has no content: it is read as an empty answer, and asked once."""
    empty = completion("")
    empty["choices"][0]["message"]["content"] = None
    server.rule = lambda body, number: empty
    assert ask(asker(server, tmp_path), "one") == [""] == ask(asker(server, tmp_path), "one")
    assert len(server.bodies) == 1


def test_it_works_where_an_event_loop_runs(server: ChatServer, tmp_path: Path) -> None:
    """As in a notebook."""
    import asyncio

    async def cell() -> list[str]:
        return ask(asker(server, tmp_path), "one")

    assert asyncio.run(cell()) == ["ONE"]


PROGRAM = """
import sys
import types
from pathlib import Path

import deshi

package = types.ModuleType("deshi.teachers")  # its own __init__ takes seconds, for networks that aren't needed here
package.__path__ = [str(Path(deshi.__file__).parent / "teachers")]
sys.modules["deshi.teachers"] = package
from deshi.teachers._asker import Asker
from deshi.teachers.cost import Budget
from deshi.teachers.endpoint import Endpoint

asker = Asker(Endpoint(sys.argv[1], "scripted", concurrency=2), Budget(), Path(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
requests = [asker.endpoint.request([{"role": "user", "content": text}], 10) for text in sys.argv[3]]
print("".join(answer.text for answer, _ in asker.ask(requests)), flush=True)
"""


def _process(server: ChatServer, folder: Path, texts: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.url, str(folder), texts],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    return process


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_kill_loses_no_answer_and_two_processes_share_one_cache(server: ChatServer, tmp_path: Path) -> None:
    """SIGKILL in the middle, then two processes at once on the same requests: no answer is paid for twice."""
    hold = threading.Event()

    def held_after_six(body: dict[str, Any], number: int) -> str:
        if number >= 6:
            hold.wait(20)
        return str(body["messages"][0]["content"]).upper()

    server.rule = held_after_six
    processes = [_process(server, tmp_path, "abcdefghijkl") for _ in range(3)]
    try:
        _go(processes[0])
        deadline = time.monotonic() + 30
        while len(server.bodies) < 8 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(server.bodies) == 8 and len(_cached(tmp_path)) == 6, "six are answered, two are under way"
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        answered = {body["messages"][0]["content"] for body in server.bodies[:6]}
        hold.set()
        server.delay = 0.05
        for process in processes[1:]:
            _go(process)
        printed = [process.communicate(timeout=60)[0] for process in processes[1:]]
    finally:
        hold.set()
        for process in processes:
            process.kill()
            process.wait()
    assert printed == ["ABCDEFGHIJKL\n"] * 2
    later = [body["messages"][0]["content"] for body in server.bodies[8:]]
    assert sorted(later) == sorted(set("abcdefghijkl") - answered), "each once, by one of the two"


def test_the_key_is_in_no_answer(server: ChatServer, tmp_path: Path) -> None:
    """The cache holds requests: their bodies, never their headers."""
    ask(asker(server, tmp_path), "one")
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def _cached(folder: Path) -> list[Answer]:
    cache = AnswerCache(folder)
    with cache._mutex:
        rows = cache._database.execute("SELECT key FROM answers").fetchall()
    return list(cache.read(key for (key,) in rows).values())

"""A scripted chat endpoint on this machine: answers by a rule, with faults where a test asks for them."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

Rule = Callable[[dict[str, Any], int], "dict[str, Any] | Response | str"]

_CANDIDATE = re.compile(r'^(\w+): (".*")$', re.MULTILINE)


def candidates(body: dict[str, Any]) -> dict[str, str]:
    """Titles of a request's candidates by the ids that it gave them."""
    question = next(message["content"] for message in body["messages"] if message["role"] == "user")
    return {name: json.loads(title) for name, title in _CANDIDATE.findall(question)}


def by_title(body: dict[str, Any], number: int = 0) -> str:
    """The candidates in alphabetical order of their titles: what the first stage can't know."""
    titles = candidates(body)
    return ", ".join(sorted(titles, key=lambda name: titles[name]))


def completion(text: str, first_tokens: dict[str, float] | None = None, usage: bool = True) -> dict[str, Any]:
    """A chat completion."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    if first_tokens is not None:
        best = [{"token": token, "logprob": value, "bytes": None} for token, value in first_tokens.items()]
        choice["logprobs"] = {"content": [best[0] | {"top_logprobs": best}]}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "scripted-1", "choices": [choice]}
    counts = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return body | ({"usage": counts} if usage else {})


class ChatServer:
    """Counts what it is asked, by content.

    Attributes:
        rule: gives the answer to a request body and its number: a text, a completion, or any response.
        bodies: of all requests.
        headers: of all requests.
        answered: requests that were answered with status 200, by content.
        most_at_once: requests that were worked on at the same time.
    """

    def __init__(self) -> None:
        self.rule: Rule = by_title
        self.delay = 0.0
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answered: Counter[str] = Counter()
        self.times: list[float] = []
        self.most_at_once = 0
        self._running = 0
        self._mutex = threading.Lock()
        self.url = ""

    @property
    def asked_twice(self) -> int:
        """Requests that were answered more than once."""
        return sum(count - 1 for count in self.answered.values())

    def answer(self, body: dict[str, Any], headers: dict[str, str]) -> Response:
        """Answer a request in a thread of its own."""
        with self._mutex:
            number = len(self.bodies)
            self.bodies.append(body)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
        try:
            time.sleep(self.delay)
            answer = self.rule(body, number)
        finally:
            with self._mutex:
                self._running -= 1
        if isinstance(answer, Response):
            return answer
        with self._mutex:
            self.answered[json.dumps(body, sort_keys=True)] += 1
        content = completion(answer) if isinstance(answer, str) else answer
        return Response(json.dumps(content), media_type="application/json")


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """A server on a free port of this machine, for the time of a test."""
    server, app = ChatServer(), FastAPI()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        body = json.loads(await request.body())
        return await run_in_threadpool(server.answer, body, dict(request.headers))

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        runner = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=runner.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            runner.should_exit = True
            runner.force_exit = True
            thread.join(timeout=10)

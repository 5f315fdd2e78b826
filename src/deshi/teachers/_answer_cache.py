"""Answers of chat models on disk, by the content of the request: one SQLite file, safe with several processes."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

FILE = "answers.sqlite"
_TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, request TEXT NOT NULL, answer TEXT NOT NULL)"
_BUSY_SECONDS = 60.0
_KEYS = 500
"""Keys of one query."""


@dataclass(frozen=True)
class Answer:
    """What an endpoint answered to a request.

    Attributes:
        text: of the first choice.
        prompt_tokens: as the endpoint counted them; an estimate where it doesn't count.
        answer_tokens: the same of the answer.
        seconds: from the request to the answer, retries included.
        first_tokens: the most probable first tokens with their log-probabilities, best first; None where the endpoint
            gives none.
        model: as the endpoint calls it.
    """

    text: str
    prompt_tokens: int
    answer_tokens: int
    seconds: float
    first_tokens: list[tuple[str, float]] | None = None
    model: str = ""


def request_key(request: Mapping[str, Any]) -> str:
    """The sha256 of a request: the model's name, messages and parameters."""
    return hashlib.sha256(_json(request).encode()).hexdigest()


class AnswerCache:
    """Answers in ``folder``, each written as soon as it is there, so that a kill loses none that has arrived.

    Args:
        folder: of the file, made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        self._mutex = threading.Lock()
        self._database = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, check_same_thread=False)
        with self._mutex, self._database:
            self._database.execute(_TABLE)

    def read(self, keys: Iterable[str]) -> dict[str, Answer]:
        """The answers that are there, by key."""
        wanted, rows = list(dict.fromkeys(keys)), []
        for begin in range(0, len(wanted), _KEYS):
            part = wanted[begin : begin + _KEYS]
            query = f"SELECT key, answer FROM answers WHERE key IN ({','.join('?' * len(part))})"
            with self._mutex:
                rows += self._database.execute(query, part).fetchall()
        return {key: _answer(text) for key, text in rows}

    def write(self, request: Mapping[str, Any], answer: Answer) -> None:
        """Keep an answer; the first one to a request stays."""
        row = (request_key(request), _json(request), json.dumps(asdict(answer), ensure_ascii=False))
        with self._mutex, self._database:  # committed, and so on disk, when this returns
            self._database.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", row)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Let one process at a time ask what isn't here; the lock falls with its process, however that ends.

        Two processes with the same requests would pay twice without it, and together exceed an endpoint's limits.
        """
        with FileLock(self.path.with_suffix(".lock")):
            yield

    def __len__(self) -> int:
        with self._mutex:
            return int(self._database.execute("SELECT count(*) FROM answers").fetchone()[0])


def _answer(text: str) -> Answer:
    values = json.loads(text)
    if values["first_tokens"] is not None:
        values["first_tokens"] = [(token, value) for token, value in values["first_tokens"]]
    return Answer(**values)


def _json(request: Mapping[str, Any]) -> str:
    return json.dumps(request, sort_keys=True, ensure_ascii=False)

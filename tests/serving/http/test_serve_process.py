"""``deshi serve`` as people run it: a process, its signals, its log, its port."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import deshi
from deshi.cli import main
from deshi.serving.bundle import ServingBundle
from deshi.serving.http.logs import JsonFormatter
from deshi.stages._serve import read_key
from deshi.stages.serve import ServeConfig
from deshi.types import DeshiError
from service_process import KEY, Process, renamed


def ask(url: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of one request on a connection of its own."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.fixture(scope="module")
def place(serving: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one's own in which the tiny bundle lies."""
    return Path(shutil.copytree(serving, tmp_path_factory.mktemp("process") / "place"))


@pytest.fixture
def process(place: Path) -> Iterator[Process]:
    """A service with a key, answering within a second."""
    started = Process(f"bundle={place}", "timeout=1", "body_bytes=65536", DESHI_API_KEY=KEY)
    yield started
    started.kill()


def test_from_start_to_stop(process: Process, place: Path, serving: Path, tmp_path: Path) -> None:
    """Answers, reloads on SIGHUP without losing a request, answers what is under way when it is stopped."""
    url, key = process.url, {"X-API-Key": KEY}
    assert url.startswith("http://127.0.0.1:")
    old = ServingBundle.load(place).version
    assert ask(url, "/recommend", {"history": ["3"]})[0] == 401
    assert ask(url, "/recommend", {"history": ["3"]}, **key)[1]["version"] == old

    failures: list[Any] = []
    versions: set[str] = set()
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            status, answer = ask(url, "/recommend", {"history": ["3", "14"]}, **key)
            versions.add(answer.get("version", ""))
            if status != 200:
                failures.append((status, answer))

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    shutil.rmtree(place)
    new = renamed(serving, place, {0: "NEW"})
    process.send(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while len(versions) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert failures == [] and versions == {old, ServingBundle.load(new).version}

    host, port = url.removeprefix("http://").split(":")
    slow_body(host, int(port))
    code, printed = process.end(signal.SIGTERM)
    assert code == 0 and "stopped" in printed and "Traceback" not in printed
    messages = [line["message"] for line in process.lines]
    assert messages[0] == "serving" and "reload" in messages and "Application shutdown complete." in messages
    requests = [line for line in process.lines if line["message"] == "request"]
    assert {"request_id", "method", "route", "status", "milliseconds", "client"} <= set(requests[0])
    assert KEY not in json.dumps(process.lines) + printed


def slow_body(host: str, port: int) -> None:
    """A client that announces more than it sends doesn't hold its connection beyond the time."""
    with socket.create_connection((host, port), timeout=30) as connection:
        head = f"POST /recommend HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Length: 5000\r\n\r\n{{"
        connection.sendall(head.encode())
        begin, answered = time.monotonic(), b""
        while part := connection.recv(65536):
            answered += part
    assert b" 408 " in answered.splitlines()[0] and 0.5 < time.monotonic() - begin < 20


def test_ctrl_c_is_no_error(process: Process) -> None:
    """It is how a person stops a service."""
    code, printed = process.end(signal.SIGINT)
    assert code == 0 and "stopped" in printed


def test_a_port_that_is_taken(process: Process, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence and exit code 2."""
    port = process.url.rpartition(":")[2]
    assert main(["serve", f"bundle={place}", f"port={port}"]) == 2
    assert f"can't listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_a_bundle_that_is_missing(tmp_path: Path) -> None:
    """Named before anything listens."""
    with pytest.raises(DeshiError, match="deshi fit|no run|serving bundle"):
        deshi.serve(f"paths.root={tmp_path}", bundle="latest")


def configured(**values: Any) -> ServeConfig:
    return ServeConfig(bundle="x", **values)


def test_where_the_key_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file goes before the environment; neither is no key."""
    file = tmp_path / "key"
    file.write_text(f"{KEY}-of-the-file\n")
    monkeypatch.delenv("DESHI_API_KEY", raising=False)
    assert read_key(configured()) is None
    monkeypatch.setenv("DESHI_API_KEY", KEY)
    monkeypatch.setenv("OTHER", f"{KEY}-other")
    assert read_key(configured()) == KEY
    assert read_key(configured(api_key_env="OTHER")) == f"{KEY}-other"
    assert read_key(configured(api_key_file=file)) == f"{KEY}-of-the-file"
    for encoding in ("utf-8-sig", "utf-16"):  # as editors and PowerShell write it
        file.write_text(f"{KEY}-of-windows\r\n", encoding=encoding)
        assert read_key(configured(api_key_file=file)) == f"{KEY}-of-windows"
    file.write_text("")
    with pytest.raises(DeshiError, match=f"The API key in {file} has 0 characters"):
        read_key(configured(api_key_file=file))


@pytest.mark.parametrize(
    "key", ["", "short", "with spaces between words", "schlüssel-mit-umlaut", "tab\tin-the-middle-of-it"]
)
def test_a_bad_key_is_no_protection(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """An empty variable in a container's settings must not open the service."""
    monkeypatch.setenv("DESHI_API_KEY", key)
    with pytest.raises(DeshiError, match="expected 16 or more") as error:
        read_key(configured())
    assert not key or key not in str(error.value)


def test_a_key_file_that_is_missing(tmp_path: Path) -> None:
    """Without its key the service doesn't start open."""
    with pytest.raises(DeshiError, match="There is no file of the API key, .*none"):
        read_key(configured(api_key_file=tmp_path / "none"))


def test_a_line_of_the_log_is_one_line_of_ascii() -> None:
    """Log collectors split at line ends; a client must not be able to write a line of its own."""
    import logging

    record = logging.LogRecord("deshi.serving.http", logging.INFO, "", 0, 'a\n{"forged": 1} \x1b[31m弟', None, None)
    line = JsonFormatter().format(record)
    assert "\n" not in line and line.isascii() and "\x1b" not in line
    assert json.loads(line)["message"] == record.getMessage()

"""Services for tests: an application on the tiny bundle, bundles with other ids, and a real process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from fastapi import FastAPI
from starlette.testclient import TestClient

from deshi.serving.bundle import ITEMS, MANIFEST, ServingBundle, write_manifest
from deshi.serving.engine import Engine
from deshi.serving.http.app import Service, create_app
from deshi.serving.http.metrics import Metrics
from deshi.serving.http.reload import Engines

KEY = "a-key-of-the-tests-0123456789"
LONGEST = 64 * 1024


def service_on(
    folder: Path,
    start: Callable[[ServingBundle], Engine] = Engine,
    api_key: str | None = None,
    timeout: float = 30.0,
    body_bytes: int = LONGEST,
) -> Service:
    """A service on a bundle's folder."""
    metrics = Metrics()
    engines = Engines(lambda: ServingBundle.load(folder), start, metrics)
    return Service(engines, metrics, api_key, body_bytes, timeout)


def app_on(folder: Path, **options: Any) -> FastAPI:
    """An application on a bundle's folder."""
    return create_app(service_on(folder, **options))


@contextmanager
def client_on(folder: Path, **options: Any) -> Iterator[TestClient]:
    """A client of such an application; an exception in it is the test's."""
    with TestClient(app_on(folder, **options)) as client:
        yield client


def renamed(bundle: Path, folder: Path, names: dict[int, str]) -> Path:
    """A copy of a bundle in which some items, by index, have other ids; its version is another one."""
    shutil.copytree(bundle, folder)
    items = pl.read_parquet(folder / ITEMS)
    ids = [names.get(index, item_id) for index, item_id in enumerate(items["item_id"])]
    items.with_columns(pl.Series("item_id", ids)).write_parquet(folder / ITEMS)
    (folder / MANIFEST).unlink()
    write_manifest(folder, "renamed", {})
    return folder


class Process:
    """``deshi serve`` as a process of its own on a free port.

    Attributes:
        url: where it answers.
        lines: of its log so far, when it has ended all.
    """

    def __init__(self, *words: str, program: Sequence[str] = ("-m", "deshi"), **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *program, "serve", "port=0", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment,
        )  # fmt: skip
        self.lines: list[dict[str, Any]] = []
        self.url = self._wait()

    def send(self, signal: int) -> None:
        """Send a signal."""
        self._process.send_signal(signal)

    def end(self, signal: int) -> tuple[int, str]:
        """Send a signal and wait: the exit code and what it printed."""
        self.send(signal)
        printed, rest = self._process.communicate(timeout=60)
        self.lines += [json.loads(line) for line in rest.splitlines()]
        return self._process.returncode, printed

    def kill(self) -> None:
        """Whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def _wait(self) -> str:
        assert self._process.stderr is not None
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            line = self._process.stderr.readline()
            assert line, f"the service ended: {self._process.communicate()}"
            self.lines.append(json.loads(line))
            if "running on" in self.lines[-1]["message"]:
                return str(self.lines[-1]["message"].split()[3])
        raise AssertionError(f"the service did not start: {self.lines}")

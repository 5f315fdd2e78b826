"""Fetching: order of locations, digests, atomicity; against a server on this machine."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deshi.data.sources.fetch import Address, Package, fetch
from deshi.types import DeshiError

BODY = b"PK the archive" * 1000
SHA256 = "sha256:" + hashlib.sha256(BODY).hexdigest()
MD5 = "md5:" + hashlib.md5(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Serve /good.zip, an error page at /page.zip and half a file at /half.zip."""
        body = {"/good.zip": BODY, "/page.zip": b"<html>moved</html>", "/half.zip": BODY[:50]}.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(BODY) if self.path == "/half.zip" else len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *arguments: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A web server's address."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


@pytest.mark.parametrize("digest", [SHA256, MD5, None])
def test_fetched_once_and_recorded(server: str, tmp_path: Path, digest: str | None) -> None:
    """The second load is served by the cache, without the network, with the same record."""
    first = fetch("x", [Address(f"{server}/good.zip", "sub/a.zip", digest)], tmp_path)
    again = fetch("x", [Address("http://127.0.0.1:1/good.zip", "sub/a.zip", digest)], tmp_path)
    assert first.path.read_bytes() == BODY and again.record.sha256 == first.record.sha256 == SHA256[7:]
    assert first.record.origin == f"{server}/good.zip"


def test_next_place_serves_and_is_named(server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Places are tried in order; the log says which failed and which served."""
    locations = [Address(f"{server}/none.zip", "a.zip", SHA256), Address(f"{server}/good.zip", "b.zip", SHA256)]
    with caplog.at_level(logging.INFO, "deshi"):
        fetched = fetch("x", locations, tmp_path)
    assert fetched.location is locations[1] and fetched.path.name == "b.zip"
    assert "none.zip did not serve it" in caplog.text and "fetched from" in caplog.text
    assert fetch("x", locations, tmp_path).location is locations[1]


@pytest.mark.parametrize("name", ["none", "page", "half"])
def test_nothing_incomplete_stays(server: str, tmp_path: Path, name: str) -> None:
    """A missing file, an error page and a broken connection leave no file that a later run would trust."""
    with pytest.raises(DeshiError) as error:
        fetch("My set", [Address(f"{server}/{name}.zip", "a.zip")], tmp_path)
    assert list(tmp_path.iterdir()) == []
    for part in ("My set", f"{server}/{name}.zip", str(tmp_path / "a.zip"), "data.source.path"):
        assert part in str(error.value)


def test_wrong_digest_is_refused(server: str, tmp_path: Path) -> None:
    """Another file under the same address is not the data set."""
    with pytest.raises(DeshiError, match="expected sha256:00"):
        fetch("x", [Address(f"{server}/good.zip", "a.zip", "sha256:00")], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("digest", [SHA256, None])
def test_damaged_cache_is_told(server: str, tmp_path: Path, digest: str | None) -> None:
    """A cached file that changed since it was fetched is an error that says what to delete."""
    place = Address(f"{server}/good.zip", "a.zip", digest)
    fetch("x", [place], tmp_path)
    (tmp_path / "a.zip").write_bytes(BODY[:-1])
    with pytest.raises(DeshiError, match="Delete it"):
        fetch("x", [place], tmp_path)


def test_a_closed_network_costs_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that never answers is given up by a short time-out."""
    monkeypatch.setattr("deshi.data.sources.fetch.CONNECT_SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(DeshiError):
        fetch("x", [Address("http://10.255.255.1/a.zip", "a.zip")], tmp_path)
    assert time.monotonic() - start < 5


def test_package_is_fetched_by_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel lands in a folder of its own; it moves to the cache once it is checked."""

    def pip(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        assert command[1:4] == ["-m", "pip", "download"] and command[-1] == "x==1" and "--no-deps" in command
        (Path(command[-2]) / "x-1.whl").write_bytes(BODY)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("deshi.data.sources.fetch.subprocess.run", pip)
    fetched = fetch("x", [Package("x==1", "x-1.whl", SHA256)], tmp_path)
    assert fetched.record.origin == "package x==1" and [path.name for path in tmp_path.iterdir()] == ["x-1.whl"]


def test_failing_pip_gives_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line that pip prints is the reason."""
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: a\nERROR: No matching distribution\n")
    monkeypatch.setattr("deshi.data.sources.fetch.subprocess.run", lambda *command, **options: failed)
    with pytest.raises(DeshiError, match="ERROR: No matching distribution"):
        fetch("x", [Package("x==1", "x-1.whl")], tmp_path)
    assert list(tmp_path.iterdir()) == []

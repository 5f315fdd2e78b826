"""Files of data sets: the cache first, then its locations in their order, each checked by its digest.

A location is an address on the web or a Python package that ships the file. Time-outs are short, so that a closed
network costs seconds, and a file is only ever seen under its final name when it is complete and checked.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from deshi.artifacts import atomic_file, file_sha256
from deshi.data.raw import FileRecord
from deshi.types import DeshiError

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
READ_SECONDS = 20.0
PACKAGE_SECONDS = 180.0
MAGIC = {".zip": b"PK", ".whl": b"PK", ".gz": b"\x1f\x8b"}


@dataclass(frozen=True)
class Address:
    """A file on the web.

    Attributes:
        url: where it is.
        file: its name in the cache, with a folder if names would clash.
        digest: ``sha256:...`` or ``md5:...`` as its publisher or several independent users state it; None for a
            file without a known digest, whose first download is recorded instead.
    """

    url: str
    file: str
    digest: str | None = None

    @property
    def origin(self) -> str:
        """What messages call this location."""
        return self.url


@dataclass(frozen=True)
class Package:
    """A wheel that ships the file, fetched by pip and read as a zip archive.

    Attributes:
        requirement: what pip is asked for, for example ``recbole==1.2.1``.
        file: the wheel's name, in the cache too.
        digest: of the wheel.
    """

    requirement: str
    file: str
    digest: str | None = None

    @property
    def origin(self) -> str:
        """What messages call this location."""
        return f"package {self.requirement}"


Location = Address | Package


@dataclass(frozen=True)
class Fetched:
    """A file in the cache, the location that served it, and its record."""

    path: Path
    location: Location
    record: FileRecord


def fetch(name: str, locations: Sequence[Location], cache: Path) -> Fetched:
    """Return the file of the first location that has it: cached ones first, then by download.

    Raises:
        DeshiError: if no location served it; says what failed and which file to put where.
    """
    for location in locations:
        if (cache / location.file).exists():
            return _checked(cache / location.file, location)
    failures = []
    for location in locations:
        try:
            _download(location, cache / location.file)
        except (OSError, DeshiError, http.client.HTTPException, subprocess.SubprocessError) as error:
            log.warning("%s: %s did not serve it (%s)", name, location.origin, error)
            failures.append(f"  {location.origin}: {error}")
        else:
            log.info("%s: fetched from %s", name, location.origin)
            return _checked(cache / location.file, location)
    raise DeshiError(_advice(name, locations, cache, failures))


def _advice(name: str, locations: Sequence[Location], cache: Path, failures: Sequence[str]) -> str:
    manual = next((location for location in locations if isinstance(location, Address)), locations[0])
    return (
        f"{name}: no location served {manual.file}.\n" + "\n".join(failures) + "\n"
        f"Download {manual.origin} by other means and put it at {cache / manual.file}, "
        f"or set data.source.path to where you have it."
    )


def _checked(path: Path, location: Location) -> Fetched:
    """Check a cached file against its digest, or against what was recorded at its first use."""
    sha256 = file_sha256(path)
    note = path.with_name(path.name + ".sha256")
    expected = location.digest or (f"sha256:{note.read_text(encoding='ascii').strip()}" if note.exists() else None)
    if expected is None:
        with atomic_file(note) as temporary:
            temporary.write_text(sha256 + "\n", encoding="ascii")
    elif not _matches(path, sha256, expected):
        raise DeshiError(
            f"{path} has sha256 {sha256}, expected {expected}: it is damaged or another version. "
            f"Delete it (and {note.name} beside it, if there is one) and run again to fetch it anew."
        )
    return Fetched(path, location, FileRecord(path.name, sha256, location.origin))


def _matches(path: Path, sha256: str, expected: str) -> bool:
    kind, _, value = expected.partition(":")
    if kind == "sha256":
        return sha256 == value
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == value


def _download(location: Location, target: Path) -> None:
    with atomic_file(target) as temporary:
        if isinstance(location, Address):
            _download_address(location.url, temporary)
        else:
            _download_package(location, temporary)
        _check_magic(temporary, target.name)
        if location.digest is not None and not _matches(temporary, file_sha256(temporary), location.digest):
            raise DeshiError(f"the file it sent has sha256 {file_sha256(temporary)}, expected {location.digest}")


def _check_magic(path: Path, name: str) -> None:
    """Refuse what is not what its name says, an error page for example."""
    magic = MAGIC.get(Path(name).suffix)
    with path.open("rb") as handle:
        head = handle.read(16)
    if not head or (magic is not None and not head.startswith(magic)):
        raise DeshiError(f"what it sent is not a {Path(name).suffix} file (it begins with {head!r})")


def _download_address(url: str, target: Path) -> None:
    opener = urllib.request.build_opener(_Http, _Https)
    with opener.open(url, timeout=CONNECT_SECONDS) as response, target.open("wb") as handle:
        size = response.headers.get("Content-Length")
        log.info("fetching %s (%s bytes)", url, size or "unknown")
        _copy(response, handle, None if size is None else int(size))


def _copy(response: IO[bytes], handle: IO[bytes], size: int | None) -> None:
    shutil.copyfileobj(response, handle, 1 << 20)
    if size is not None and handle.tell() != size:
        raise OSError(f"the connection ended after {handle.tell()} of {size} bytes")


def _download_package(location: Package, target: Path) -> None:
    """Let pip fetch the wheel into a folder of its own, then move it to ``target``."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [
            sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet",
            "--disable-pip-version-check", "--no-input", "--retries", "1", "--timeout", "10", "-d", folder,
            location.requirement,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=PACKAGE_SECONDS)
        wheel = Path(folder) / location.file
        if done.returncode != 0 or not wheel.exists():
            lines = (done.stderr.strip() or "pip gave no reason").splitlines()
            raise DeshiError(lines[-1])
        shutil.move(wheel, target)


class _PatientHttp(http.client.HTTPConnection):
    """A connection that is given up soon while it is being made and later once data may flow."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ_SECONDS)


class _PatientHttps(http.client.HTTPSConnection):
    """The same with TLS."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ_SECONDS)


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_PatientHttp, request)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_PatientHttps, request, context=ssl.create_default_context())

"""Files that stages leave behind: atomic writes, fingerprints, manifests and run folders."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from deshi.types import DeshiError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it replaces ``path``, on an error it vanishes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it replaces ``path`` whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
            os.replace(path, old / path.name)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON artifact.

    Raises:
        DeshiError: if the file is missing or isn't JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DeshiError(f"{path} does not exist. Run the stage that writes it, or check the path.") from error
    except json.JSONDecodeError as error:
        raise DeshiError(f"{path} is not valid JSON ({error}). Delete it and run its stage again.") from error


def file_sha256(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fingerprint(parts: Iterable[tuple[str, Any]]) -> str:
    """A sha256 over named parts: numpy arrays by dtype, shape and bytes, all else by its canonical JSON."""
    digest = hashlib.sha256()
    for name, part in parts:
        digest.update(name.encode() + b"\0")
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(json.dumps(part, sort_keys=True, ensure_ascii=False).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    """What a run ran on: Python, platform, cores, git commit (if any) and every installed package's version."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "git": _git_commit(),
        "packages": dict(_packages()),
    }


@cache
def _packages() -> list[tuple[str, str]]:
    """Every installed package and its version, read once: some 150 files of metadata."""
    versions = {
        package["Name"]: package["Version"]
        for package in (distribution.metadata for distribution in metadata.distributions())
    }
    return sorted(versions.items(), key=lambda pair: str(pair[0]).lower())


def _git_commit() -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def new_run_folder(root: Path, stage: str, name: str) -> Path:
    """Make ``root/stage/<UTC timestamp>_<name>``, no two in a second: names sort in the order of their making."""
    while True:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        folder = root / stage / f"{stamp}_{name}"
        if not any((root / stage).glob(f"{stamp}_*")):
            with suppress(FileExistsError):  # another process was quicker: the next second is ours
                folder.mkdir(parents=True)
                return folder
        time.sleep(0.05)

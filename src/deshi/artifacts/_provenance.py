"""What identifies an artifact: hashes of files, fingerprints of content, the environment of a run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np


def file_sha256(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fingerprint(parts: Iterable[tuple[str, Any]]) -> str:
    """A sha256 over named parts: numpy arrays by dtype, shape and bytes, all else by its canonical JSON.

    An iterator of lists counts as the list of all their entries.
    """
    digest = hashlib.sha256()
    for name, part in parts:
        digest.update(name.encode() + b"\0")
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        elif isinstance(part, Iterator):
            digest.update(b"[")
            for number, entries in enumerate(filter(None, part)):
                digest.update((", " * (number > 0) + _canonical(entries)[1:-1]).encode())
            digest.update(b"]")
        else:
            digest.update(_canonical(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


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

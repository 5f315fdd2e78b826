"""Build the environments of the libraries that deshi is compared with, outside the repository.

    python benchmarks/peers/build.py [rectools] [recbole]

Each gets its own virtual environment in ``$DESHI_BENCH_CACHE`` (default ``~/.cache/deshi-bench``), because their
pins exclude each other's and deshi's. An environment whose requirements haven't changed is left alone.
``NAME/freeze.txt`` there lists every version that was installed. Needs Python 3.10 to 3.12 (NumPy 1).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = ("rectools", "recbole")


def cache() -> Path:
    """Where environments and converted data sets live."""
    return Path(os.environ.get("DESHI_BENCH_CACHE", "~/.cache/deshi-bench")).expanduser().resolve()


def python_of(peer: str) -> Path:
    """The interpreter of ``peer``'s environment."""
    return cache() / peer / "bin" / "python"


def build(peer: str) -> Path:
    """Create ``peer``'s environment unless it is up to date, and return its interpreter."""
    requirements = HERE / f"{peer}.txt"
    folder = cache() / peer
    stamp = folder / "built"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python_of(peer)
    print(f"building {folder} from {requirements.name} (some minutes)", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip = [str(python_of(peer)), "-m", "pip"]
    subprocess.run([*pip, "install", "--quiet", "--requirement", str(requirements)], check=True)
    frozen = subprocess.run([*pip, "freeze", "--all"], check=True, capture_output=True, text=True).stdout
    (folder / "freeze.txt").write_text(frozen)
    stamp.write_text(wanted)
    return python_of(peer)


def main() -> None:
    """Build the named environments, or all."""
    names = sys.argv[1:] or list(PEERS)
    for name in names:
        if name not in PEERS:
            sys.exit(f"Unknown peer {name!r}, expected one of {', '.join(PEERS)}.")
        print(build(name))


if __name__ == "__main__":
    main()

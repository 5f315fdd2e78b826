"""Files and folders that appear as a whole or not at all, whoever else writes them; new run folders."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

TEMPORARY, OLD = ".tmp", ".old"
_HIDDEN = re.compile(r"\.([^/]+)\.\w{8}\.(?:tmp|old)")
"""The name of a temporary folder, with the name that its content is written for."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success the file there replaces ``path``, on an error it vanishes.

    Of two writers at once the later one wins, see :func:`atomic_folder`.
    """
    if path.is_dir():
        raise _system_error(errno.EISDIR, path)
    with _temporary_folder(path) as folder:
        yield folder / path.name
        (folder / path.name).chmod(0o644)
        os.replace(folder / path.name, path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it replaces ``path`` whole, on an error it vanishes.

    Of two writers at once the later one wins. Each holds a lock (``flock``) on its temporary folder, which the system
    releases with the process. Temporary folders without a lock are those of killed writers: the next writer removes
    them. On a file system without locks of folders (some NFS) they stay, and of two writers that replace one folder in
    the same moment one may fail with an error that names it.
    """
    with suppress(FileNotFoundError):  # one look: another writer may replace it between two
        if not stat.S_ISDIR(path.stat().st_mode):
            raise _system_error(errno.ENOTDIR, path)
    with _temporary_folder(path) as folder:
        (folder / path.name).mkdir(mode=0o755)
        yield folder / path.name
        replace_folder(folder / path.name, path)


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` for its new content, locked until it is removed; errors of the system name ``path``."""
    with _naming(path):
        with _locked(path.parent):
            _remove_leftovers(path)
            folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent))
            handle = os.open(folder, os.O_RDONLY)
            _lock(handle)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def replace_folder(new: Path, path: Path) -> None:
    """Give the folder ``new`` the name ``path``, on the same disk, in the place of what had it."""
    old = path.with_name(f".{path.name}.{secrets.token_hex(4)}{OLD}")
    with _locked(path.parent):
        _remove_leftovers(path)
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)
    _remove(old)


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(path: Path) -> None:
    """Remove what killed writers of ``path`` have left beside it, or put back what they had moved away."""
    for folder in path.parent.glob(f".{escape(path.name)}.*"):
        hidden = _HIDDEN.fullmatch(folder.name)
        if hidden is None or hidden[1] != path.name:
            continue
        if folder.suffix == OLD and not path.exists():
            os.replace(folder, path)
            continue
        with suppress(OSError):  # another writer was quicker
            handle = os.open(folder, os.O_RDONLY)
            try:
                if _lock(handle):
                    _remove(folder)
            finally:
                os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make ``folder`` and hold its lock: for renames and the like, never during work."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Lock an open file or folder until it is closed; False if another has the lock, or there are no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name ``path`` in an error of the system that names no file, or a temporary one."""
    try:
        yield
    except OSError as error:
        named = error.filename is not None and not _HIDDEN.search(str(error.filename))
        foreign = type(error).__module__ != "builtins" or isinstance(error, ConnectionError | TimeoutError)
        if named or foreign:
            raise
        raise system_error(error, path) from error


def system_error(error: Exception, path: Path) -> OSError:
    """``error`` as one that names ``path``; native code tells the system's number in the message only."""
    number = re.search(r"os error (\d+)", str(error))
    code = int(number[1]) if number else getattr(error, "errno", None)
    return _system_error(code, path) if code else OSError(errno.EIO, str(error), str(path))


def _system_error(code: int, path: Path) -> OSError:
    return OSError(code, os.strerror(code), str(path))


def new_run_folder(root: Path, stage: str, name: str) -> Path:
    """Make ``root/stage/<UTC timestamp>_<name>``, no two in a second: names sort in the order of their making."""
    while True:
        with _locked(root / stage):
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            if not any((root / stage).glob(f"{stamp}_*")):
                folder = root / stage / f"{stamp}_{name}"
                with suppress(FileExistsError):  # where there are no locks another process may be quicker
                    folder.mkdir()
                    return folder
        time.sleep(0.05)

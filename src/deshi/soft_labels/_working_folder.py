"""The hidden folder that a store is written into, shard by shard, so that a killed export can go on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from deshi.artifacts import read_json, replace_folder, write_json
from deshi.data.freshness import differences
from deshi.soft_labels._manifest import MANIFEST, SCORES, TOPK, working_path
from deshi.types import PAD, DeshiError

STATE, LOCK, TIME = "progress.json", "lock", "time.json"
_FILL = 1 << 16
"""Rows of the new arrays that are set to ``PAD`` at a time."""


def compare_requests(target: Path, old: dict[str, Any], new: dict[str, Any], unfinished: bool) -> None:
    """Refuse to go on with, or to reuse, what was made from another request.

    Raises:
        DeshiError: with every difference.
    """
    changed = differences(old, new)
    if changed:
        kind = "An unfinished export" if unfinished else "A soft-label store"
        path = working_path(target) if unfinished else target
        raise DeshiError(
            f"{kind} of the name {target.name} was made from another request ({path}): {'; '.join(changed)}. "
            f"Choose another name, repeat the request as it was, or set force=true to write this one instead."
        )


class WorkingFolder:
    """The working folder of one export, locked as long as it is entered.

    A shard counts once the arrays are flushed and ``progress.json`` names it; whatever was written of a later one is
    written again with the same values. The manifest is the last file; then the folder takes the target's name at once.

    Args:
        target: the store's folder.
        request: JSON-able, everything that the content depends on.
        n_rows: rows of the arrays.
        k: columns of the arrays.
        dtype: of the scores.
        force: throw the unfinished export of another request away.

    Attributes:
        done: shards on disk.
        cost: of their answers, where answers are paid for, summed over all attempts.
    """

    def __init__(
        self, target: Path, request: dict[str, Any], n_rows: int, k: int, dtype: str, force: bool = False
    ) -> None:
        self.path = working_path(target)
        self._target, self._request, self._force = target, request, force
        self._shapes = {TOPK: ((n_rows, k), np.dtype(np.int32)), SCORES: ((n_rows, k), np.dtype(dtype))}
        self._lock = FileLock(self.path / LOCK, blocking=False)
        self._arrays: dict[str, np.memmap[Any, Any]] = {}
        self.done = 0
        self.cost: dict[str, Any] | None = None
        self._seconds = 0.0
        self._begin = time.perf_counter()

    def __enter__(self) -> WorkingFolder:
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise DeshiError(
                f"Another process is writing {self._target.name} ({self.path}). Wait for it, or choose another name."
            ) from error
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._lock.release()

    def _open(self) -> None:
        if not (self.path / STATE).is_file():
            self._create()
        state = read_json(self.path / STATE)
        if self._force and state["request"] != self._request:
            self._create()
            state = read_json(self.path / STATE)
        compare_requests(self._target, state["request"], self._request, unfinished=True)
        self.done, self._seconds, self.cost = state["shards_done"], state["seconds"], state["cost"]
        self._arrays = {name: self._map(name) for name in self._shapes}

    def _create(self) -> None:
        """New arrays without any list; the state is written last, so that half-made arrays are never taken up."""
        for path in self.path.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, (shape, dtype) in self._shapes.items():
            array = np.lib.format.open_memmap(self.path / name, mode="w+", dtype=dtype, shape=shape)
            for begin in range(0, shape[0] if name == TOPK else 0, _FILL):
                array[begin : begin + _FILL] = PAD
            array.flush()
            del array
        self._write_state()

    def _map(self, name: str) -> np.memmap[Any, Any]:
        shape, dtype = self._shapes[name]
        try:
            np.load(self.path / name, mmap_mode="r", allow_pickle=False)  # "r+" would lengthen a short file by zeros
            array: np.memmap[Any, Any] = np.load(self.path / name, mmap_mode="r+", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise DeshiError(
                f"{self.path / name} can't be read ({error}). Delete {self.path} and start again."
            ) from error
        if array.shape != shape or array.dtype != dtype:
            got = f"{array.dtype}{array.shape}, expected {dtype}{shape}"
            raise DeshiError(f"{self.path / name} is {got}. Delete {self.path} and start again.")
        return array

    def put(self, rows: NDArray[np.int64], items: NDArray[Any], scores: NDArray[Any]) -> None:
        """Write lists; they count when their shard is marked."""
        self._arrays[TOPK][rows] = items
        self._arrays[SCORES][rows] = scores

    def mark(self, before: Mapping[str, Any] | None = None, now: Mapping[str, Any] | None = None) -> Any:
        """The next shard is on disk, and its answers cost what lies between two accounts; returns the later one."""
        for array in self._arrays.values():
            array.flush()
        self.done += 1
        if now is not None:
            old = self.cost or {}
            self.cost = {name: old.get(name, 0) + now[name] - (before or {}).get(name, 0) for name in now}
        self._write_state()
        return now

    def _write_state(self) -> None:
        now = time.perf_counter()
        self._seconds += now - self._begin
        self._begin = now
        state = {"request": self._request, "shards_done": self.done, "seconds": self._seconds, "cost": self.cost}
        write_json(self.path / STATE, state)

    def finish(self, write_manifest: Callable[[Path], dict[str, Any]], rows: int) -> None:
        """Complete the folder and give it the target's name.

        Args:
            write_manifest: writes the other files of a store into the folder and returns the manifest.
            rows: number of rows requested, for ``time.json``.
        """
        self._close()
        if not (self.path / MANIFEST).is_file():  # it is there if the process died between manifest and rename
            manifest = write_manifest(self.path)
            self._write_state()
            seconds = {"export_seconds": round(self._seconds, 3), "rows": rows}
            write_json(self.path / TIME, seconds | {"rows_per_second": round(rows / max(self._seconds, 1e-9), 3)})
            write_json(self.path / MANIFEST, manifest)
        self._lock.release()
        (self.path / LOCK).unlink(missing_ok=True)
        for leftover in self.path.glob(".*.tmp"):  # of a kill while a file was replaced
            shutil.rmtree(leftover)
        replace_folder(self.path, self._target)
        (self._target / STATE).unlink()  # not before: without it the folder would count as half made

    def _close(self) -> None:
        """Let the maps go: a folder with open files can't be renamed everywhere."""
        self._arrays.clear()

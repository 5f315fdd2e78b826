"""The full check of a store: bad rows of each kind, counted, with the first examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deshi.arrays import Array
from deshi.artifacts import file_sha256
from deshi.types import PAD, DeshiError

Seen = Callable[[NDArray[np.int64], Array], NDArray[np.bool_]]
"""As :meth:`deshi.soft_labels.FirstEvents.seen`."""

_BLOCK = 1 << 15
"""Rows read at a time."""

EXAMPLES = 5
"""Row numbers (or file names) that a problem names."""

PROBLEMS = {
    "outside": "hold numbers that are no item of the catalogue",
    "duplicates": "list an item twice",
    "gap": "have an item after the list's end",
    "nan": "hold a score that is NaN or infinite",
    "unsorted": "have scores that rise along the list",
    "padded_score": "have a score other than 0 after the list's end",
    "seen": "list an item of their own history although the store says that it has none",
}
"""The problems of rows, each as the end of a sentence about rows."""


@dataclass(frozen=True)
class Problem:
    """One kind of problem: how many rows (or files) have it, and the first of them."""

    kind: str
    count: int
    examples: Sequence[int | str]
    sentence: str


@dataclass(frozen=True)
class CheckResult:
    """The result of a full check.

    Attributes:
        covered: number of rows with a list.
        problems: in the order of :data:`PROBLEMS`, then those of files; empty if there are none.
    """

    covered: int
    problems: Sequence[Problem] = ()

    def refuse(self) -> None:
        """Stop if there is any problem.

        Raises:
            DeshiError: with every kind of problem, its count and its first examples.
        """
        if self.problems:
            lines = "\n".join(f"- {problem.sentence}" for problem in self.problems)
            raise DeshiError(f"The lists can't be used:\n{lines}\nWrite them again, or fix their source.")


def check_lists(items: Array, scores: Array, n_items: int, seen: Seen | None = None) -> CheckResult:
    """Count bad rows of each kind.

    Args:
        items: ``(R, K)`` item indices, ``PAD`` after the end of a list.
        scores: ``(R, K)``.
        n_items: size of the catalogue.
        seen: tells seen items; None doesn't look for them.
    """
    rows = {kind: list[int]() for kind in PROBLEMS}
    counts, covered = dict.fromkeys(PROBLEMS, 0), 0
    for begin in range(0, len(items), _BLOCK):
        block, values = np.asarray(items[begin : begin + _BLOCK]), np.asarray(scores[begin : begin + _BLOCK])
        covered += int((block[:, 0] != PAD).sum())
        for kind, bad in _bad_rows(block, values, n_items, seen, begin).items():
            counts[kind] += int(bad.sum())
            rows[kind] += (np.flatnonzero(bad)[: EXAMPLES - len(rows[kind])] + begin).tolist()
    problems = [
        Problem(kind, count, rows[kind], _sentence(kind, count, len(items), rows[kind]))
        for kind, count in counts.items()
        if count
    ]
    return CheckResult(covered, problems)


def _bad_rows(
    items: Array, scores: Array, n_items: int, seen: Seen | None, first_row: int
) -> dict[str, NDArray[np.bool_]]:
    """``(R,)`` for each kind of problem."""
    real = items != PAD
    ordered = np.sort(items, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != PAD)
    values = scores.astype(np.float64)
    finite = np.isfinite(values)
    steps = np.diff(np.where(finite, values, 0.0), axis=1)
    bad = {
        "outside": ((items < PAD) | (items >= n_items)).any(1),
        "duplicates": twice.any(1),
        "gap": (real[:, 1:] & ~real[:, :-1]).any(1),
        "nan": (~finite).any(1),
        "unsorted": ((steps > 0) & real[:, 1:] & finite[:, 1:] & finite[:, :-1]).any(1),
        "padded_score": (~real & finite & (values != 0)).any(1),
    }
    if seen is not None:
        rows = np.arange(first_row, first_row + len(items))
        bad["seen"] = seen(rows, items).any(1)
    return bad


def check_files(path: Path, manifest: dict[str, Any], covered: int) -> list[Problem]:
    """Files that aren't as the manifest says, and a coverage that isn't."""
    changed = [
        name
        for name, digest in manifest["files"].items()
        if not (path / name).is_file() or file_sha256(path / name) != digest
    ]
    problems = []
    if changed:
        text = f"{len(changed)} of {len(manifest['files'])} files are missing or changed since they were written: "
        problems.append(Problem("files", len(changed), changed[:EXAMPLES], text + ", ".join(changed[:EXAMPLES]) + "."))
    written = manifest["coverage"]["rows"]
    if written != covered:
        text = f"{covered:,} rows hold a list, the manifest says {written:,}."
        problems.append(Problem("coverage", abs(written - covered), [], text))
    return problems


def _sentence(kind: str, count: int, rows: int, examples: Sequence[int]) -> str:
    return f"{count:,} of {rows:,} rows {PROBLEMS[kind]}, such as {', '.join(str(row) for row in examples)}."

"""The full check of a store: every kind of bad row counted, with the first examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deshi.arrays import Array
from deshi.artifacts import file_sha256
from deshi.types import PAD, DeshiError

Had = Callable[[NDArray[np.int64], Array], NDArray[np.bool_]]
_BLOCK = 1 << 15
"""Rows read at a time."""

EXAMPLES = 5
"""Row numbers (or file names) that a fault names."""

FAULTS = {
    "outside": "hold numbers that are no item of the catalogue",
    "duplicates": "list an item twice",
    "gap": "have an item after the list's end",
    "nan": "hold a score that is NaN or infinite",
    "unsorted": "have scores that rise along the list",
    "padded_score": "have a score other than 0 after the list's end",
    "seen": "list an item of their own history although the store says that it has none",
}
"""What a row can be guilty of, each as the end of a sentence about rows."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault: how many rows (or files) have it, and the first of them."""

    kind: str
    count: int
    examples: Sequence[int | str]
    sentence: str


@dataclass(frozen=True)
class Report:
    """The outcome of a full check.

    Attributes:
        rows: number of rows read.
        covered: number of rows with a list.
        faults: in the order of :data:`FAULTS`, then those of files; empty if all is well.
    """

    rows: int
    covered: int
    faults: Sequence[Fault] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def plus(self, faults: Sequence[Fault]) -> Report:
        """The same report with further faults."""
        return replace(self, faults=[*self.faults, *faults])

    def refuse(self) -> None:
        """Stop here if anything is wrong.

        Raises:
            DeshiError: with every kind of fault, its count and its first examples.
        """
        if self.faults:
            found = "\n".join(f"- {fault.sentence}" for fault in self.faults)
            raise DeshiError(f"The lists can't be used:\n{found}\nWrite them again, or fix their source.")


def inspect_rows(items: Array, scores: Array, n_items: int, had: Had | None = None, first_row: int = 0) -> Report:
    """Count bad rows of each kind.

    Args:
        items: ``(R, K)`` item indices, ``PAD`` after the end of a list.
        scores: ``(R, K)``.
        n_items: size of the catalogue.
        had: see :meth:`deshi.soft_labels.histories.FirstSeen.had`; None doesn't look for seen items.
        first_row: the number of the first row.
    """
    counts, examples, covered = dict.fromkeys(FAULTS, 0), {kind: list[int | str]() for kind in FAULTS}, 0
    for begin in range(0, len(items), _BLOCK):
        block, values = np.asarray(items[begin : begin + _BLOCK]), np.asarray(scores[begin : begin + _BLOCK])
        covered += int((block[:, 0] != PAD).sum())
        for kind, bad in _bad_rows(block, values, n_items, had, first_row + begin).items():
            counts[kind] += int(bad.sum())
            numbers = (np.flatnonzero(bad)[: EXAMPLES - len(examples[kind])] + first_row + begin).tolist()
            examples[kind] += numbers
    faults = [
        Fault(kind, counts[kind], examples[kind], _sentence(kind, counts[kind], len(items), examples[kind]))
        for kind in FAULTS
        if counts[kind]
    ]
    return Report(len(items), covered, faults)


def _bad_rows(
    items: Array, scores: Array, n_items: int, had: Had | None, first_row: int
) -> dict[str, NDArray[np.bool_]]:
    """``(R,)`` of each kind of fault."""
    real = items != PAD
    ordered = np.sort(items, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != PAD)
    values = scores.astype(np.float64)
    finite = np.isfinite(values)
    steps = np.diff(np.where(finite, values, 0.0), axis=1)
    found = {
        "outside": ((items < PAD) | (items >= n_items)).any(1),
        "duplicates": twice.any(1),
        "gap": (real[:, 1:] & ~real[:, :-1]).any(1),
        "nan": (~finite).any(1),
        "unsorted": ((steps > 0) & real[:, 1:] & finite[:, 1:] & finite[:, :-1]).any(1),
        "padded_score": (~real & finite & (values != 0)).any(1),
    }
    if had is not None:
        rows = np.arange(first_row, first_row + len(items))
        found["seen"] = had(rows, items).any(1)
    return found


def inspect_files(path: Path, manifest: dict[str, Any], covered: int) -> list[Fault]:
    """Files that aren't as the manifest says, and a coverage that isn't."""
    changed = [
        name
        for name, digest in manifest["files"].items()
        if not (path / name).is_file() or file_sha256(path / name) != digest
    ]
    faults = []
    if changed:
        text = f"{len(changed)} of {len(manifest['files'])} files are missing or changed since they were written: "
        faults.append(Fault("files", len(changed), changed[:EXAMPLES], text + ", ".join(changed[:EXAMPLES]) + "."))
    written = manifest["coverage"]["rows"]
    if written != covered:
        text = f"{covered:,} rows hold a list, the manifest says {written:,}."
        faults.append(Fault("coverage", abs(written - covered), [], text))
    return faults


def _sentence(kind: str, count: int, rows: int, examples: Sequence[int | str]) -> str:
    return f"{count:,} of {rows:,} rows {FAULTS[kind]}, such as {', '.join(str(row) for row in examples)}."

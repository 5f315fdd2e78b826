"""Alignment of foreign lists and vectors with the rows and items of a bundle."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from deshi.arrays import Ints, offsets_of
from deshi.data.bundle import Bundle
from deshi.soft_labels.foreign._mapping import ItemMapping
from deshi.soft_labels.foreign._matching import SEVERAL, UNMATCHED, contained, exact
from deshi.types import PAD, DeshiError, ScoreKind


@dataclass(frozen=True, eq=False)
class ForeignLists:
    """Ranked lists from elsewhere, one a row, each after a history. All items are foreign numbers.

    Attributes:
        items: ``(M, K)`` int64, best first, negative where there is none.
        scores: ``(M, K)`` float, or None if only the order is known.
        higher_is_better: what the scores' direction is; False for distances.
        offsets: ``(M + 1,)`` int64: row ``i``'s history is ``history[offsets[i]:offsets[i + 1]]``.
        history: ``(T,)`` int64, oldest first, without padding; negative where an item couldn't be told.
        next_items: ``(M,)`` int64, what followed the history.
        window: a history of this length may have lost its beginning; a shorter one is whole.
        source: the file, for messages.
        notes: remarks of the reader.
    """

    items: Ints
    scores: np.ndarray | None
    higher_is_better: bool
    offsets: Ints
    history: Ints
    next_items: Ints
    window: int
    source: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class AlignmentReport:
    """Counts of foreign rows by outcome; every row is counted once.

    Attributes:
        rows: foreign rows.
        matched: at exactly one event.
        empty: without a history.
        unknown: with an item in the history, or a next item, that has no item in the bundle.
        unmatched: whose history (and next item) isn't in the bundle.
        ambiguous: whose history (and next item) is in the bundle more than once.
        repeated: at the event of an earlier row; the earlier one is kept.
        unlisted: (not rows) entries of the matched lists that have no item in the bundle; they are left out.
        listless: (of the matched) without any item in their list.
    """

    rows: int
    matched: int
    empty: int
    unknown: int
    unmatched: int
    ambiguous: int
    repeated: int
    unlisted: int
    listless: int

    def describe(self) -> str:
        """The counts in one sentence."""
        lost = {name: getattr(self, name) for name in ("empty", "unknown", "unmatched", "ambiguous", "repeated")}
        reasons = ", ".join(f"{count} {name}" for name, count in lost.items() if count) or "none lost"
        return (
            f"{self.matched} of {self.rows} rows aligned ({reasons}), {self.listless} of them with an empty list; "
            f"{self.unlisted} list entries have no item in the bundle"
        )


@dataclass(frozen=True, eq=False)
class Alignment:
    """Foreign lists on the bundle's rows.

    Attributes:
        rows: ``(M,)`` int64, the flat position of the last event of each row's history, ``PAD`` if it isn't aligned.
        items: ``(M, K)`` int64 item indices, best first, ``PAD`` where the list ends.
        scores: ``(M, K)`` float32, higher is better, 0 where the item is ``PAD``; or None.
        report: counts of the rows by outcome.
    """

    rows: Ints
    items: Ints
    scores: np.ndarray | None = field(repr=False)
    report: AlignmentReport

    @property
    def score_kind(self) -> ScoreKind:
        """What :meth:`aligned`'s scores are, in the store's words."""
        return ScoreKind.SCORE if self.scores is not None else ScoreKind.RANK

    def aligned(self) -> tuple[Ints, Ints, np.ndarray]:
        """Rows, items and scores of the aligned rows with at least one item, by rising row: what a store is written of.

        Where no scores are known, they are the reciprocal ranks.
        """
        kept = np.flatnonzero((self.rows != PAD) & (self.items[:, 0] != PAD))
        kept = kept[np.argsort(self.rows[kept])]
        items = self.items[kept]
        ranks = np.float32(1) / np.arange(1, items.shape[1] + 1, dtype=np.float32)
        scores = np.where(items == PAD, np.float32(0), ranks) if self.scores is None else self.scores[kept]
        return self.rows[kept], items, scores


def align_rows(
    lists: ForeignLists, bundle: Bundle, mapping: ItemMapping, how: Literal["exact", "contained"] = "exact"
) -> Alignment:
    """Find the event after which each foreign list was made: by history and next item, in one user's sequence.

    Nothing is guessed: a row that fits nowhere or at two events is left out and counted.

    Args:
        lists: the foreign lists.
        bundle: the data.
        mapping: from foreign numbers to item indices.
        how: ``exact``: the history stands in the bundle event by event. A history shorter than ``lists.window`` must be
            a user's whole history up to that event; one of that length may be its end. ``contained``: for data that
            were filtered or ordered (ties in time) otherwise: exactly one user has all items of the history not later
            than the next item, and the row is the event before that. The student's history there is another than the
            teacher's was.

    Raises:
        DeshiError: if no row can be aligned, with the counts of the reasons.
    """
    history = mapping.to_bundle(lists.history)
    nexts = mapping.to_bundle(lists.next_items)
    lengths = np.diff(lists.offsets)
    unknown_before = offsets_of(history == PAD)
    unknown = unknown_before[lists.offsets[1:]] > unknown_before[lists.offsets[:-1]]
    unknown = (unknown | (nexts == PAD)) & (lengths > 0)
    events = np.full(len(lists), UNMATCHED, dtype=np.int64)
    search = exact if how == "exact" else contained
    for length in np.unique(lengths[(lengths > 0) & ~unknown]):
        chosen = np.flatnonzero((lengths == length) & ~unknown)
        windows = history[lists.offsets[chosen][:, None] + np.arange(length)]
        events[chosen] = search(windows, nexts[chosen], bundle, cut=lists.window == length)
    rows, repeated = _first_of_each(events)
    items, scores, unlisted = _lists(lists, mapping, rows)
    report = AlignmentReport(
        rows=len(lists),
        matched=int((rows != PAD).sum()),
        empty=int((lengths == 0).sum()),
        unknown=int(unknown.sum()),
        unmatched=int(((events == UNMATCHED) & (lengths > 0) & ~unknown).sum()),
        ambiguous=int((events == SEVERAL).sum()),
        repeated=repeated,
        unlisted=unlisted,
        listless=int(((rows != PAD) & (items[:, 0] == PAD)).sum()),
    )
    if not report.matched:
        raise DeshiError(
            f"{lists.source} fits nowhere in the bundle {bundle.name}: {report.describe()}. Check the item mapping "
            f"({mapping.describe()}), the filters, the order of ties in time (how=contained allows for both), and "
            f"window={lists.window}."
        )
    return Alignment(rows, items, scores, report)


def _first_of_each(events: Ints) -> tuple[Ints, int]:
    """Each row's event, ``PAD`` where there is none or an earlier row has it, and how many rows repeat an event."""
    rows = np.where(events >= 0, events, PAD)
    matched = np.flatnonzero(rows != PAD)
    _, first = np.unique(rows[matched], return_index=True)
    repeated = np.setdiff1d(matched, matched[first])
    rows[repeated] = PAD
    return rows, len(repeated)


def _lists(lists: ForeignLists, mapping: ItemMapping, rows: Ints) -> tuple[Ints, np.ndarray | None, int]:
    """Item indices and scores with the known entries moved to the left, in their order."""
    items = mapping.to_bundle(lists.items)
    aligned = (rows != PAD)[:, None]
    unlisted = int(((items == PAD) & (lists.items != PAD) & aligned).sum())
    items = np.where(aligned, items, PAD)
    order = np.argsort(items == PAD, axis=1, kind="stable")
    items = np.take_along_axis(items, order, axis=1)
    if lists.scores is None:
        return items, None, unlisted
    scores = np.take_along_axis(np.asarray(lists.scores, dtype=np.float32), order, axis=1)
    return items, np.where(items == PAD, np.float32(0), scores if lists.higher_is_better else -scores), unlisted


def align_embeddings(vectors: Tensor, source: Path | str, bundle: Bundle, mapping: ItemMapping) -> Tensor:
    """Item vectors in the bundle's order, ``(n_items, D)`` float32.

    Args:
        vectors: ``(N, D)``, row ``i`` is the foreign item ``i``.
        source: the file, for messages.
        bundle: the data.
        mapping: from foreign numbers to item indices.

    Raises:
        DeshiError: for NaN or infinity, or items without a vector.
    """
    items = torch.from_numpy(mapping.to_bundle(np.arange(len(vectors))))
    kept = items != PAD
    bad = ~vectors[kept].isfinite().all(dim=1)
    if bad.any():
        raise DeshiError(f"{source}: {bad.sum()} of {kept.sum()} vectors hold NaN or infinity, expected none.")
    if int(kept.sum()) < bundle.n_items:
        raise DeshiError(
            f"{source} has vectors for {kept.sum()} of {bundle.n_items} items of {bundle.name} "
            f"({len(items) - kept.sum()} of its {len(items)} rows belong to none). Check the item mapping "
            f"({mapping.describe()})."
        )
    table = torch.empty(bundle.n_items, vectors.shape[1])
    table[items[kept]] = vectors[kept].float()
    return table

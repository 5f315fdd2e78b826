"""Foreign lists and vectors, and the rows and items of the bundle that they belong to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from deshi.arrays import Ints, offsets_of
from deshi.data.bundle import Bundle
from deshi.soft_labels.foreign import matching
from deshi.soft_labels.foreign.mapping import ItemMapping
from deshi.soft_labels.foreign.matching import SEVERAL, UNMATCHED
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
        next_items: ``(M,)`` int64, what followed the history, or None.
        window: a history of this length may have lost its beginning; a shorter one is whole. None: all are whole.
        source: the file, for messages.
        notes: what the importer had to remark.
    """

    items: Ints
    scores: np.ndarray | None
    higher_is_better: bool
    offsets: Ints
    history: Ints
    next_items: Ints | None
    window: int | None
    source: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rows = len(self.items)
        sizes = {"offsets": len(self.offsets) - 1} | ({} if self.next_items is None else {"next": len(self.next_items)})
        if self.scores is not None and self.scores.shape != self.items.shape:
            raise DeshiError(f"{self.source}: scores have the shape {self.scores.shape}, expected {self.items.shape}.")
        for name, size in sizes.items():
            if size != rows:
                raise DeshiError(f"{self.source}: {name} has {size} rows, expected {rows} as the lists have.")

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, eq=False)
class ForeignEmbeddings:
    """Item vectors from elsewhere.

    Attributes:
        matrix: ``(N, D)`` float.
        ids: ``(N,)`` int64, the foreign number of each row.
        source: the file, for messages.
        notes: what the importer had to remark.
    """

    matrix: np.ndarray
    ids: Ints
    source: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class AlignmentReport:
    """What became of the foreign rows; every row is counted once.

    Attributes:
        rows: foreign rows.
        matched: found at exactly one event.
        empty: without a history.
        unknown: with an item in the history, or a next item, that has no item in the bundle.
        unmatched: whose history (and next item) isn't in the bundle.
        ambiguous: whose history (and next item) is in the bundle more than once.
        repeated: found at the event of an earlier row; the earlier one is kept.
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
        report: what became of the rows.
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
        DeshiError: if no row can be aligned, with the counts of the reasons; or for ``contained`` without next items.
    """
    history = mapping.to_bundle(lists.history)
    following = None if lists.next_items is None else mapping.to_bundle(lists.next_items)
    lengths = np.diff(lists.offsets)
    unknown_before = offsets_of(history == PAD)
    unknown = unknown_before[lists.offsets[1:]] > unknown_before[lists.offsets[:-1]]
    if following is not None:
        unknown |= following == PAD
    unknown &= lengths > 0
    found = np.full(len(lists), UNMATCHED, dtype=np.int64)
    search = matching.exact if how == "exact" else matching.contained
    for length in np.unique(lengths[(lengths > 0) & ~unknown]):
        chosen = np.flatnonzero((lengths == length) & ~unknown)
        windows = history[lists.offsets[chosen][:, None] + np.arange(length)]
        nexts = None if following is None else following[chosen]
        found[chosen] = search(windows, nexts, bundle, cut=lists.window == length)
    rows, repeated = _first_of_each(found)
    items, scores, unlisted = _lists(lists, mapping, rows)
    report = AlignmentReport(
        rows=len(lists),
        matched=int((rows != PAD).sum()),
        empty=int((lengths == 0).sum()),
        unknown=int(unknown.sum()),
        unmatched=int(((found == UNMATCHED) & (lengths > 0) & ~unknown).sum()),
        ambiguous=int((found == SEVERAL).sum()),
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


def _first_of_each(found: Ints) -> tuple[Ints, int]:
    """The rows with ``PAD`` for those without a place and for repetitions, and how many repetitions there were."""
    rows = np.where(found >= 0, found, PAD)
    placed = np.flatnonzero(rows != PAD)
    _, first = np.unique(rows[placed], return_index=True)
    repeated = np.setdiff1d(placed, placed[first])
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


def align_embeddings(embeddings: ForeignEmbeddings, bundle: Bundle, mapping: ItemMapping) -> Tensor:
    """Item vectors in the bundle's order, ``(n_items, D)`` float32.

    Raises:
        DeshiError: for NaN or infinity, two vectors of an item, or items without a vector.
    """
    matrix = np.asarray(embeddings.matrix, dtype=np.float32)
    items = mapping.to_bundle(embeddings.ids)
    kept = items != PAD
    bad = ~np.isfinite(matrix[kept]).all(axis=1)
    if bad.any():
        raise DeshiError(
            f"{embeddings.source}: {bad.sum()} of {kept.sum()} vectors hold NaN or infinity, expected none."
        )
    if len(np.unique(items[kept])) != kept.sum():
        raise DeshiError(f"{embeddings.source}: {kept.sum()} vectors for {len(np.unique(items[kept]))} items.")
    lacking = bundle.n_items - int(kept.sum())
    if lacking:
        raise DeshiError(
            f"{embeddings.source} has vectors for {kept.sum()} of {bundle.n_items} items of {bundle.name} "
            f"({len(items) - kept.sum()} of its {len(items)} rows belong to none). Check the item mapping "
            f"({mapping.describe()})."
        )
    table = np.empty_like(matrix[kept])
    table[items[kept]] = matrix[kept]
    return torch.from_numpy(table)

"""A teacher's ranked lists after rows, in one pass a history where the scorer allows it and one by one elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.arrays import Ints
from deshi.data.example_batches import padded_rows
from deshi.data.sequences import history_batches
from deshi.metrics import best_items
from deshi.models.scorers import Scorer
from deshi.soft_labels._histories import Histories
from deshi.types import PAD, Batch, DeshiError

PADDED = 64
"""Padded positions that one pass may read for each row that it may score: 64 * batch."""

RankedLists = tuple[Ints, NDArray[np.int32], NDArray[np.float32]]
"""Row numbers ``(M,)``, items ``(M, K)`` and scores ``(M, K)``."""


def check_catalogue(scorer: Scorer, histories: Histories) -> None:
    """Refuse a scorer of another catalogue.

    Raises:
        DeshiError: with both numbers of items.
    """
    if scorer.n_items != histories.n_items:
        raise DeshiError(
            f"The teacher knows {scorer.n_items} items, {histories.name} has {histories.n_items}. Write the soft "
            f"labels of a teacher that was trained on these data."
        )


@dataclass(frozen=True, eq=False)
class Labeller:
    """A scorer with the histories that it ranks items after, and the kind of lists that are wanted of it.

    A row at position ``p`` of its history (counted from its first event) is scored in one pass together with the
    other rows of the history, if ``p`` is below the scorer's ``max_length``: a causal model's window begins at the
    history's first event there, so the pass reads the same events as a pass for that row alone. Later rows are scored
    one by one, with their whole history, or, with ``min_context``, in passes over overlapping windows.

    Attributes:
        scorer: the teacher.
        histories: what the rows are about.
        k: length of a list.
        filter_seen: leave the items of the history up to and including the row out.
        normalise: store log-probabilities over the candidates instead of the scores as they are.
        batch: rows scored at a time; one pass holds at least one history, so it may be ``max_length`` rows.
        device: where the scorer computes.
        min_context: score later rows in windows of ``max_length`` events that begin every ``max_length - min_context``
            events: the list of such a row reads more than ``min_context`` of its latest events, not ``max_length``.
    """

    scorer: Scorer
    histories: Histories
    k: int
    filter_seen: bool = True
    normalise: bool = False
    batch: int = 256
    device: torch.device | str = "cpu"
    min_context: int | None = None

    def __post_init__(self) -> None:
        check_catalogue(self.scorer, self.histories)
        for name in ("k", "batch"):
            if getattr(self, name) < 1:
                raise DeshiError(f"{name} is {getattr(self, name)}, expected a number from 1.")
        longest = self.longest
        if self.min_context is not None and not 1 <= self.min_context < longest:
            reads = f"reads {longest} events in one pass" if longest else "scores whole histories only"
            hint = f"Give a number from 1 to {longest - 1}, or leave it out." if longest else "Leave it out."
            raise DeshiError(f"min_context is {self.min_context}, but this teacher {reads}. {hint}")

    @property
    def longest(self) -> int:
        """The longest history inside of which the scorer ranks in one pass, 0 if it can't."""
        return self.scorer.max_length

    def to(self, device: torch.device | str) -> Labeller:
        """The same with the scorer on ``device``."""
        return replace(self, scorer=self.scorer.to(device), device=device)

    def label(self, rows: Ints) -> Iterator[RankedLists]:
        """The lists of ascending ``rows`` ``(M,)``, in blocks and in any order, each row once."""
        owners = self.histories.owners(rows)
        starts = self.histories.offsets[owners]
        # how many of the row's events don't fit into a window that begins at the history's first event
        beyond = rows + 1 - starts - self.longest
        if self.min_context is not None:
            # windows begin every `step` events: take the first one that reaches the row, rounding up
            step = self.longest - self.min_context
            starts = starts + np.maximum(-(-beyond // step), 0) * step
        inside = (beyond <= 0) | (self.min_context is not None)
        yield from self._in_one_pass(rows[inside], owners[inside], starts[inside])
        yield from self._one_by_one(rows[~inside], owners[~inside])

    def _in_one_pass(self, rows: Ints, owners: Ints, starts: Ints) -> Iterator[RankedLists]:
        """Lists of rows ``(M,)`` by the windows that begin at the events ``starts`` ``(M,)``, a pass a window."""
        if not len(rows):
            return
        # rows ascend, so those of a window stand together: it ends with the last of them
        windows, first, counts = np.unique(starts, return_index=True, return_counts=True)
        sequences, ends = owners[first], rows[first + counts - 1] + 1
        for members in _packs(ends - windows, counts, self.batch):
            batch = self._batch(sequences[members], windows[members], ends[members])
            # windows overlap: a position is scored if its row is to be labelled, and by this window (whose first event
            # stands in column 0) rather than by another that reads it too
            positions = batch.rows.numpy()
            index = np.searchsorted(rows, positions).clip(max=len(rows) - 1)
            mask = torch.from_numpy((rows[index] == positions) & (starts[index] == positions[:, :1]))
            labelled = batch.rows[mask].numpy()
            scores = self.scorer.position_scores(self._to_device(batch), mask.to(self.device))
            for begin in range(0, len(labelled), self.batch):
                part = slice(begin, begin + self.batch)
                yield self._best(labelled[part], scores[part])

    def _one_by_one(self, rows: Ints, owners: Ints) -> Iterator[RankedLists]:
        """Lists of rows ``(M,)`` by their whole histories, the longest first, so that little is padded."""
        starts, ends = self.histories.offsets[owners], rows + 1
        order = np.argsort(starts - ends, kind="stable")
        for begin in range(0, len(rows), self.batch):
            members = order[begin : begin + self.batch]
            batch = self._batch(owners[members], starts[members], ends[members])
            yield self._best(rows[members], self.scorer.scores(self._to_device(batch)))

    def _batch(self, sequences: Ints, starts: Ints, ends: Ints) -> Batch:
        """One batch of the events ``starts[i] .. ends[i] - 1`` of sequences."""
        users, items = self.histories.users[sequences], self.histories.items
        _, batch = next(history_batches(items, users, starts, ends, len(items), len(sequences)))
        return batch

    def _to_device(self, batch: Batch) -> Batch:
        if self.histories.augmented:  # their rows aren't the bundle's: a scorer that looks up rows must see none
            rows = torch.full_like(batch.rows, PAD)
            batch = Batch(batch.users, batch.items, batch.lengths, batch.targets, rows)
        return batch.to(self.device)

    def _best(self, rows: Ints, scores: Tensor) -> RankedLists:
        seen: Tensor | None = None
        if self.filter_seen:
            starts = self.histories.offsets[self.histories.owners(rows)]
            seen = torch.from_numpy(padded_rows(self.histories.items, starts, rows + 1)).to(scores.device)
        self._check(rows, scores)
        items, best = best_items(scores.float(), seen, self.k, self.normalise)
        return rows, items.cpu().numpy().astype(np.int32), best.cpu().numpy()

    def _check(self, rows: Ints, scores: Tensor) -> None:
        expected = (len(rows), self.histories.n_items)
        if scores.shape != expected:
            raise DeshiError(
                f"The teacher gave scores of shape {tuple(scores.shape)}, expected {expected}: a score for each item "
                f"and row."
            )
        bad = (scores.isnan() | (scores == torch.inf)).any(1)
        if bool(bad.any()):
            row = int(rows[int(bad.nonzero()[0])])
            user = int(self.histories.users[self.histories.owners(np.array([row]))[0]])
            raise DeshiError(
                f"The teacher's scores hold NaN or infinity in {int(bad.sum())} of {len(rows)} rows, first row {row} "
                f"(user index {user}). Its training may have diverged, or its precision is too low: try fp32."
            )


def _packs(lengths: Ints, counts: Ints, batch: int) -> Iterator[Ints]:
    """Windows that are read together: of similar lengths, with at most ``batch`` rows in all (``counts`` of each)."""
    order = np.argsort(-lengths, kind="stable")
    begin = 0
    while begin < len(order):
        # the first is the longest: so many of its length may be padded together
        room = max(1, PADDED * batch // int(lengths[order[begin]]))
        # of those, as many as have no more than `batch` rows together
        fitting = int(np.searchsorted(np.cumsum(counts[order[begin : begin + room]]), batch, side="right"))
        yield order[begin : begin + max(1, fitting)]
        begin += max(1, fitting)

"""What a selection strategy may ask about the positions that it chooses from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.arrays import Float32s, Ints, range_rows
from deshi.data.sequences import history_batches
from deshi.models.base import Student
from deshi.soft_labels.histories import Histories
from deshi.soft_labels.store import SoftLabels
from deshi.types import PAD, DeshiError

POSITIONS = 2048
"""Positions that one pass of the student reads: their scores of the whole catalogue are in memory together."""
GRADED = ("logit", "log_probability", "probability")
"""Kinds of scores that say how much better one item is than the next."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What a student says at rows, each ``(M,)`` float32.

    Attributes:
        loss: ``-log p`` of the item that really came next, in nats.
        entropy: of its distribution over the catalogue, in nats.
        margin: probability of its first item less that of its second.
    """

    loss: Float32s
    entropy: Float32s
    margin: Float32s


class Evidence:
    """Rows to choose from, and what a student and a teacher say there, computed when it is first asked for.

    A student reads histories as it does in training, many positions in one pass. Histories that are longer than it
    reads are cut into windows that overlap by a half, so that no position but a history's first ones is judged with
    less than half of what the student could see.

    Args:
        histories: what the rows are about.
        rows: ``(M,)`` ascending flat positions, each followed by an event of the same history.
        student: a finished plain student, for the strategies that look at one; it is switched to evaluation mode.
        soft_labels: a store that covers the rows, for the strategies that look at the teacher's lists.
        device: where the student computes.

    Raises:
        DeshiError: for rows that aren't ascending positions with a next event, or that the store doesn't cover.
    """

    def __init__(
        self,
        histories: Histories,
        rows: Ints,
        student: Student | None = None,
        soft_labels: SoftLabels | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not len(rows) or rows[0] < 0 or (np.diff(rows) <= 0).any() or rows[-1] >= histories.n_interactions:
            raise DeshiError(
                f"A strategy got {len(rows)} rows to choose from, expected one or more ascending positions of the "
                f"{histories.n_interactions} events."
            )
        last = np.isin(rows, histories.offsets[1:] - 1)
        missing = np.zeros(1, dtype=np.bool_) if soft_labels is None else ~soft_labels.covered[rows]
        if last.any() or missing.any():
            raise DeshiError(
                f"Of {len(rows)} rows to choose from, {int(last.sum())} have no next event and {int(missing.sum())} no "
                "list in the store, expected neither: give training positions that the store covers."
            )
        self.histories, self.rows = histories, rows
        self._student, self._soft_labels, self._device = student, soft_labels, device

    def __len__(self) -> int:
        return len(self.rows)

    def mark(self, places: NDArray[np.integer]) -> NDArray[np.bool_]:
        """``(R,)`` over all events, true at the rows in ``places`` (numbers below ``len(self)``)."""
        marked = np.zeros(self.histories.n_interactions, dtype=np.bool_)
        marked[self.rows[places]] = True
        return marked

    @property
    def student(self) -> Student:
        """The student.

        Raises:
            DeshiError: if there is none.
        """
        if self._student is None:
            raise DeshiError("The strategy looks at a student, but none was given: name a finished run.")
        return self._student

    @property
    def soft_labels(self) -> SoftLabels:
        """The teacher's lists.

        Raises:
            DeshiError: if there are none, or their scores have no scale.
        """
        if self._soft_labels is None:
            raise DeshiError(
                "The strategy looks at the teacher's answers, but there are none yet: it can choose among answers that "
                "exist (deshi distill), not which ones to ask for (deshi label). Take one that looks at the "
                "student or the data."
            )
        kind = self._soft_labels.manifest["score_kind"]
        if kind not in GRADED:
            raise DeshiError(
                f"The strategy looks at how sure the teacher is, but the scores of {self._soft_labels.path} are of the "
                f"kind {kind!r}, whose order alone has a meaning; expected {', '.join(GRADED)}."
            )
        return self._soft_labels

    @cached_property
    def confidence(self) -> Float32s:
        """``(M,)`` the teacher's probability of its first item, among the items of its list."""
        return self._of_lists()[0]

    @cached_property
    def teacher_entropy(self) -> Float32s:
        """``(M,)`` entropy in nats of the teacher's distribution over its list."""
        return self._of_lists()[1]

    @cached_property
    def judged(self) -> Judged:
        """What the student says at the rows, in one pass over the histories."""
        found = np.empty((3, len(self)), dtype=np.float32)
        nexts = torch.from_numpy(np.asarray(self.histories.items)[self.rows + 1].astype(np.int64))
        for places, scores in self._scores():
            logs = scores.log_softmax(1)
            best = logs.topk(2).values.exp()
            found[0, places] = -logs.gather(1, nexts[places, None].to(logs.device)).squeeze(1).cpu().numpy()
            found[1, places] = -(logs.exp() * logs).sum(1).cpu().numpy()
            found[2, places] = (best[:, 0] - best[:, 1]).cpu().numpy()
        return Judged(*found)

    @cached_property
    def divergence(self) -> Float32s:
        """``(M,)`` the ``KL(teacher || student)`` in nats, both renormalised to the teacher's list."""
        found = np.empty(len(self), dtype=np.float32)
        for places, scores in self._scores():
            items, aim = (one.to(scores.device) for one in self._shares(self.rows[places]))
            absent = items == PAD
            own = scores.gather(1, items.clamp(min=0)).masked_fill(absent, -torch.inf).log_softmax(1)
            found[places] = (torch.xlogy(aim, aim) - aim * own.masked_fill(absent, 0.0)).sum(1).cpu().numpy()
        return found

    @cached_property
    def hidden(self) -> Float32s:
        """``(M, dim)`` the student's hidden states at the rows."""
        found = np.empty((len(self), self.student.dim), dtype=np.float32)
        for places, states in self._passes():
            found[places] = states.cpu().numpy()
        return found

    def _of_lists(self) -> tuple[Float32s, Float32s]:
        found = np.empty((2, len(self)), dtype=np.float32)
        for begin in range(0, len(self), POSITIONS):
            part = slice(begin, begin + POSITIONS)
            shares = self._shares(self.rows[part])[1]
            found[0, part] = shares[:, 0].numpy()
            found[1, part] = -torch.xlogy(shares, shares).sum(1).numpy()
        return found[0], found[1]

    def _shares(self, rows: Ints) -> tuple[Tensor, Tensor]:
        """The listed items ``(B, K)`` and the teacher's distribution over them, whatever it leaves to other items."""
        items, scores = (torch.from_numpy(one) for one in self.soft_labels.rows(rows))
        logits = scores.clamp(min=1e-12).log() if self.soft_labels.manifest["score_kind"] == "probability" else scores
        return items, logits.masked_fill(items == PAD, -torch.inf).softmax(1)

    @torch.no_grad()
    def _scores(self) -> Iterator[tuple[Ints, Tensor]]:
        """Places among the rows with the student's scores ``(P, n_items)`` there, each place once."""
        table = self.student.to(self._device).item_table().float().T.contiguous()
        for places, states in self._passes():
            yield places, states @ table

    @torch.no_grad()
    def _passes(self) -> Iterator[tuple[Ints, Tensor]]:
        """Places among the rows with the student's states ``(P, dim)`` there, each place once."""
        student = self.student.to(self._device).eval()
        sequences, starts, ends, answers = windows(self.histories, self.rows, student.max_length)
        place = np.full(self.histories.n_interactions, PAD, dtype=np.int64)
        place[self.rows] = np.arange(len(self))
        users, size = self.histories.users[sequences], max(1, POSITIONS // student.max_length)
        batches = history_batches(self.histories.items, users, starts, ends, student.max_length, size)
        for numbers, batch in batches:
            rows = batch.rows.numpy()
            asked = (rows >= answers[numbers][:, None]) & (np.where(rows == PAD, PAD, place[rows]) != PAD)
            if asked.any():
                there = batch.to(self._device)
                states = student(there.items, there.lengths)[torch.from_numpy(asked).to(self._device)]
                yield place[rows[asked]], states.float()


def windows(histories: Histories, rows: Ints, max_length: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Windows of at most ``max_length`` events that see every row, each with as long a past as may be.

    Args:
        histories: the sequences.
        rows: ``(M,)`` ascending flat positions.
        max_length: of a window.

    Returns:
        for each window its sequence, its first event, one past its last, and the first event that it answers for;
        each ``(W,)``. Windows answer for every event between a history's first and its last row exactly once.
    """
    sequences, first, counts = np.unique(histories.owners(rows), return_index=True, return_counts=True)
    begins, stops = np.asarray(histories.offsets)[sequences], rows[first + counts - 1] + 1
    step = max(1, max_length // 2)
    number = 1 + np.maximum(-(-(stops - begins - max_length) // step), 0)
    place = range_rows(np.zeros_like(number), number)
    starts = np.repeat(begins, number) + place * step
    ends = np.minimum(starts + max_length, np.repeat(stops, number))
    return np.repeat(sequences, number), starts, ends, np.where(place == 0, starts, starts + max_length - step)

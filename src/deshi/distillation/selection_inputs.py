"""Inputs of selection strategies: rows to choose from, with statistics of a student and a teacher there."""

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
from deshi.distillation.list_losses import list_divergence
from deshi.distillation.soft_label_batches import SoftLabelBatch
from deshi.models.base import SequentialRecommender
from deshi.soft_labels import Histories, SoftLabels
from deshi.types import PAD, DeshiError, ScoreKind

POSITIONS = 2048
"""Positions that one pass of the student reads: their scores of the whole catalogue are in memory together."""


@dataclass(frozen=True, eq=False)
class StudentStats:
    """Statistics of a student's predictions at rows, each ``(M,)`` float32.

    Attributes:
        loss: ``-log p`` of the item that really came next, in nats.
        entropy: of its distribution over the catalogue, in nats.
        margin: probability of its first item less that of its second.
    """

    loss: Float32s
    entropy: Float32s
    margin: Float32s


class SelectionInputs:
    """Rows to choose from, with statistics of a student and a teacher there, each computed at its first use.

    A student reads histories as it does in training, many positions in one pass. Histories that are longer than it
    reads are cut into windows that overlap by a half, so that no position but a history's first ones is judged with
    less than half of what the student could see.

    Args:
        histories: the sequences that the rows belong to.
        rows: ``(M,)`` ascending flat positions, each followed by an event of the same history.
        student: a finished plain student, for the strategies that look at one; it is switched to evaluation mode.
        soft_labels: a store that covers the rows, for the strategies that look at the teacher's lists.
        device: where the student computes.

    Raises:
        DeshiError: for rows that aren't ascending positions with a next event, or that the store doesn't cover.
    """

    def __init__(
        self, histories: Histories, rows: Ints, student: SequentialRecommender | None = None,
        soft_labels: SoftLabels | None = None, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
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

    def mark(self, chosen: NDArray[np.integer]) -> NDArray[np.bool_]:
        """``(R,)`` over all events, true at the rows with the numbers ``chosen`` (below ``len(self)``)."""
        marked = np.zeros(self.histories.n_interactions, dtype=np.bool_)
        marked[self.rows[chosen]] = True
        return marked

    @property
    def student(self) -> SequentialRecommender:
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
        kind = self._soft_labels.score_kind
        if not kind.is_calibrated:
            expected = ", ".join(kind for kind in ScoreKind if kind.is_calibrated)
            raise DeshiError(
                f"The strategy looks at how sure the teacher is, but the scores of {self._soft_labels.path} are of the "
                f"kind {kind.value!r}, whose order alone has a meaning; expected {expected}."
            )
        return self._soft_labels

    @cached_property
    def confidence(self) -> Float32s:
        """``(M,)`` the teacher's probability of its first item, among the items of its list."""
        return self._teacher_stats[0]

    @cached_property
    def teacher_entropy(self) -> Float32s:
        """``(M,)`` entropy in nats of the teacher's distribution over its list."""
        return self._teacher_stats[1]

    @cached_property
    def student_stats(self) -> StudentStats:
        """The student's statistics at the rows, in one pass over the histories."""
        stats = np.empty((3, len(self)), dtype=np.float32)
        targets = torch.from_numpy(np.asarray(self.histories.items)[self.rows + 1].astype(np.int64))
        for numbers, scores in self._scores():
            logs = scores.log_softmax(1)
            best = logs.topk(2).values.exp()
            stats[0, numbers] = -logs.gather(1, targets[numbers, None].to(logs.device)).squeeze(1).cpu().numpy()
            stats[1, numbers] = -(logs.exp() * logs).sum(1).cpu().numpy()
            stats[2, numbers] = (best[:, 0] - best[:, 1]).cpu().numpy()
        return StudentStats(*stats)

    @cached_property
    def divergence(self) -> Float32s:
        """``(M,)`` the ``KL(teacher || student)`` in nats, both renormalised to the teacher's list."""
        divergence = np.empty(len(self), dtype=np.float32)
        for numbers, scores in self._scores():
            items, teacher = (tensor.to(scores.device) for tensor in self._teacher_lists(self.rows[numbers]))
            listed = items != PAD
            student = scores.gather(1, items.clamp(min=0)).masked_fill(~listed, -torch.inf).log_softmax(1)
            divergence[numbers] = list_divergence(teacher, student, listed).cpu().numpy()
        return divergence

    @cached_property
    def hidden(self) -> Float32s:
        """``(M, dim)`` the student's hidden states at the rows."""
        hidden = np.empty((len(self), self.student.dim), dtype=np.float32)
        for numbers, states in self._passes():
            hidden[numbers] = states.cpu().numpy()
        return hidden

    @cached_property
    def _teacher_stats(self) -> tuple[Float32s, Float32s]:
        """Confidence and entropy of the teacher, each ``(M,)``."""
        stats = np.empty((2, len(self)), dtype=np.float32)
        for begin in range(0, len(self), POSITIONS):
            part = slice(begin, begin + POSITIONS)
            shares = self._teacher_lists(self.rows[part])[1]
            stats[0, part] = shares[:, 0].numpy()
            stats[1, part] = -torch.xlogy(shares, shares).sum(1).numpy()
        return stats[0], stats[1]

    def _teacher_lists(self, rows: Ints) -> tuple[Tensor, Tensor]:
        """The listed items ``(B, K)`` and the teacher's distribution over them alone ``(B, K)``."""
        items, scores = (torch.from_numpy(array) for array in self.soft_labels.rows(rows))
        labels = SoftLabelBatch(items, scores, self.soft_labels.score_kind)
        return items, labels.log_scores.masked_fill(~labels.listed, -torch.inf).softmax(1)

    @torch.no_grad()
    def _scores(self) -> Iterator[tuple[Ints, Tensor]]:
        """Numbers of rows with the student's scores ``(P, n_items)`` there, each row once."""
        table = self.student.to(self._device).item_table().float().T.contiguous()
        for numbers, states in self._passes():
            yield numbers, states @ table

    @torch.no_grad()
    def _passes(self) -> Iterator[tuple[Ints, Tensor]]:
        """Numbers of rows with the student's states ``(P, dim)`` there, each row once."""
        student = self.student.to(self._device).eval()
        sequences, starts, ends, answered_from = windows(self.histories, self.rows, student.max_length)
        number_of = np.full(self.histories.n_interactions, PAD, dtype=np.int64)
        number_of[self.rows] = np.arange(len(self))
        users, size = self.histories.users[sequences], max(1, POSITIONS // student.max_length)
        batches = history_batches(self.histories.items, users, starts, ends, student.max_length, size)
        for members, batch in batches:
            rows = batch.rows.numpy()
            # rows to choose from that this window, and no earlier one, answers for
            answered = (rows >= answered_from[members][:, None]) & (np.where(rows == PAD, PAD, number_of[rows]) != PAD)
            if answered.any():
                moved = batch.to(self._device)
                states = student(moved.items, moved.lengths)[torch.from_numpy(answered).to(self._device)]
                yield number_of[rows[answered]], states.float()


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
    position = range_rows(np.zeros_like(number), number)
    starts = np.repeat(begins, number) + position * step
    ends = np.minimum(starts + max_length, np.repeat(stops, number))
    return np.repeat(sequences, number), starts, ends, np.where(position == 0, starts, starts + max_length - step)

"""What can be asked for a ranking: anything that scores the whole catalogue for a batch of histories."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.models.base import Recommender, Student
from deshi.types import Batch


class Scorer(Protocol):
    """Scores every item of the catalogue as the next one after a history."""

    n_items: int

    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32, higher is better; the batch holds whole histories, however long."""
        ...


@runtime_checkable
class PositionScorer(Protocol):
    """A :class:`Scorer` that answers after every position of a history in one pass.

    Attributes:
        max_length: the longest history that one pass reads.
    """

    n_items: int
    max_length: int

    def scores(self, batch: Batch) -> Tensor:
        """As :meth:`Scorer.scores`."""
        ...

    def position_scores(self, batch: Batch, where: Tensor) -> Tensor:
        """Scores ``(P, n_items)`` float32 after each marked position, in row-major order of ``where`` ``(B, L)``.

        The batch's histories have at most ``max_length`` items. The scores equal those that :meth:`scores` gives for
        the history up to that position.
        """
        ...


class RecommenderScorer:
    """A trained network as a :class:`Scorer`, in evaluation mode.

    Args:
        network: it is moved to ``device`` and switched to evaluation mode.
        device: where to compute.
    """

    def __init__(self, network: Recommender, device: torch.device | str = "cpu") -> None:
        self.network = network.to(device).eval()
        self.n_items = network.n_items

    @torch.no_grad()
    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32; the network looks at its latest ``max_length`` items."""
        return self.network.next_scores(batch.items, batch.lengths)


class StudentScorer:
    """A student as a :class:`PositionScorer`: its hidden states times its item table, in evaluation mode.

    Args:
        student: the network; it is moved to ``device`` and switched to evaluation mode.
        device: where to compute.
    """

    score_kind = "logit"

    def __init__(self, student: Student, device: torch.device | str = "cpu") -> None:
        self.student = student.to(device).eval()
        self.n_items = student.n_items
        self.max_length = student.max_length
        with torch.no_grad():
            self._table = student.item_table().float().T.contiguous()

    @torch.no_grad()
    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32; the student looks at its latest ``max_length`` items."""
        return self.student.last_hidden(batch.items, batch.lengths).float() @ self._table

    @torch.no_grad()
    def position_scores(self, batch: Batch, where: Tensor) -> Tensor:
        """``(P, n_items)`` float32, see :class:`PositionScorer`."""
        return self.student(batch.items, batch.lengths)[where].float() @ self._table

    def item_vectors(self) -> NDArray[np.float32]:
        """``(n_items, dim)`` the student's own vectors of the items."""
        return self._table.T.cpu().numpy()

    def text_vectors(self) -> NDArray[np.float32] | None:
        """``(n_items, D)`` the language model's vectors that the item table is made of, None if it isn't."""
        vectors = getattr(self.student.items, "vectors", None)
        return None if vectors is None else vectors.float().cpu().numpy()


def scorer_of(network: Recommender, device: torch.device | str = "cpu") -> Scorer:
    """The fastest :class:`Scorer` for a network: one pass for all positions where it is a :class:`Student`."""
    return StudentScorer(network, device) if isinstance(network, Student) else RecommenderScorer(network, device)

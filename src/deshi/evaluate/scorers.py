"""What can be evaluated: anything that scores the whole catalogue for a batch of histories."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.students.base import Student
from deshi.types import Batch


class Scorer(Protocol):
    """Scores every item of the catalogue as the next one after a history."""

    n_items: int

    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32, higher is better; the batch holds whole histories, however long."""
        ...


class StudentScorer:
    """A student as a :class:`Scorer`: its last hidden state times its item table, in evaluation mode.

    Args:
        student: the network; it is moved to ``device`` and switched to evaluation mode.
        device: where to compute.
    """

    def __init__(self, student: Student, device: torch.device | str = "cpu") -> None:
        self.student = student.to(device).eval()
        self.n_items = student.n_items
        with torch.no_grad():
            self._table = student.item_table().float().T.contiguous()

    @torch.no_grad()
    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32; the student looks at its latest ``max_length`` items."""
        return self.student.last_hidden(batch.items, batch.lengths).float() @ self._table

    def item_vectors(self) -> NDArray[np.float32]:
        """``(n_items, dim)`` the student's own vectors of the items."""
        return self._table.T.cpu().numpy()

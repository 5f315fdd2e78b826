"""Preparation of a training batch on the CPU: checks, and look-ups for which a device would have to be waited for."""

from __future__ import annotations

from deshi.distillation.labelled_positions import LabelledPositions
from deshi.distillation.objective import Objective
from deshi.models.base import check_histories
from deshi.types import Batch, DeshiError

Prepared = tuple[Batch, LabelledPositions | None]
"""What a training step is given: a batch, and what the objective has looked up for it."""


class Preparation:
    """The preparation of all batches of a training.

    Args:
        objective: of the training.
        n_items: size of the catalogue that the batches are checked for; None leaves that to the step, on a CPU.
    """

    def __init__(self, objective: Objective, n_items: int | None) -> None:
        self._objective, self._n_items = objective, n_items

    def __call__(self, batch: Batch) -> Prepared:
        """The batch with its look-ups.

        Raises:
            DeshiError: for items, lengths or targets that no network can read.
        """
        if self._n_items is not None:
            check_batch(batch, self._n_items)
        return batch, self._objective.look_up(batch)


def check_batch(batch: Batch, n_items: int) -> None:
    """Refuse histories that :func:`~deshi.models.base.check_histories` refuses, and targets that are no items.

    Raises:
        DeshiError: with the first offending value.
    """
    check_histories(batch.items, batch.lengths, n_items)
    low, high = int(batch.targets.min()), int(batch.targets.max())
    if low < -1 or high >= n_items:
        raise DeshiError(
            f"A batch has the target {low if low < -1 else high}, expected indices 0..{n_items - 1} or -1 (none). "
            "Prepare the data anew: the bundle holds items that its vocabulary doesn't know."
        )

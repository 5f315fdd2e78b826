"""The positions of a batch that a distillation learns at, with their lists, looked up on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.distillation.soft_label_batches import SoftLabelBatch
from deshi.types import PAD, Batch, copied_to


@dataclass(frozen=True)
class LabelledPositions:
    """Positions that have a list or a target: first the ``D`` that have a list, then those with a target alone.

    Attributes:
        positions: ``(P,)`` int64, ``row * L + column`` in the batch.
        targets: ``(P,)`` int64, ``PAD`` where there is none.
        with_target: ``(T,)`` int64, which of the ``P`` have a target.
        soft_labels: the lists of the first ``D``.
        has_target: ``(P,)`` bool, always on the CPU.
    """

    positions: Tensor
    targets: Tensor
    with_target: Tensor
    soft_labels: SoftLabelBatch
    has_target: NDArray[np.bool_]

    @classmethod
    def of(
        cls, batch: Batch, has_soft_label: Tensor, lists: Callable[[Tensor], SoftLabelBatch]
    ) -> LabelledPositions:  # fmt: skip
        """The positions of a batch on the CPU.

        Args:
            batch: of histories.
            has_soft_label: ``(B, L)`` bool.
            lists: gives the lists of rows ``(D,)``.
        """
        with_target_alone = (batch.targets != PAD) & ~has_soft_label
        distilled, further = (where.flatten().nonzero().squeeze(1) for where in (has_soft_label, with_target_alone))
        positions = torch.cat([distilled, further])
        targets = batch.targets.flatten()[positions]
        has_target = targets != PAD
        labels = replace(lists(batch.rows.flatten()[distilled]), users=batch.users[distilled // batch.rows.shape[1]])
        return cls(positions, targets, has_target.nonzero().squeeze(1), labels, has_target.numpy())

    def to(self, device: torch.device | str) -> LabelledPositions:
        """The same positions on ``device``, to which they are copied without waiting."""
        return self._map(lambda tensor: copied_to(device, tensor), self.soft_labels.to(device))

    def pin_memory(self) -> LabelledPositions:
        """The same positions in memory from which they are copied to a GPU without waiting."""
        return self._map(lambda tensor: tensor.pin_memory(), self.soft_labels.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor], labels: SoftLabelBatch) -> LabelledPositions:
        positions, targets = change(self.positions), change(self.targets)
        return LabelledPositions(positions, targets, change(self.with_target), labels, self.has_target)

"""The base class of losses over the catalogue, and the check of their inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from deshi.types import DeshiError, check_shape


class Loss(nn.Module, ABC):
    """The loss of hidden states against the item table; what :class:`deshi.models.Recommender` trains on.

    Attributes:
        is_full_softmax: whether the loss is the mean cross-entropy over the whole catalogue; distillation terms then
            share its pass over the scores.
        draws_for_batch: whether what the loss draws at random serves all positions of a batch, so that ranks which
            share a batch must draw the same.
        chunk: positions scored at a time by a loss that scores the whole catalogue; None is a default by catalogue.
        reads_few_rows: whether the loss reads few rows of the table and can give it a sparse gradient.
        sparse: whether it does; set before training.
    """

    is_full_softmax: ClassVar[bool] = False
    draws_for_batch: ClassVar[bool] = False
    chunk: int | None = None
    reads_few_rows: ClassVar[bool] = False
    sparse: bool = False

    def reseed(self, seed: list[int]) -> None:  # noqa: B027 - a loss without random draws has nothing to do
        """Restart the random draws, if there are any: the same seed gives the same draws."""

    def set_counts(self, counts: Tensor) -> None:  # noqa: B027 - most losses need no counts
        """Receive ``counts`` ``(N,)``, how often each item is a training target, before training."""

    @abstractmethod
    def forward(self, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        """The mean loss in nats, a scalar.

        Args:
            hidden: ``(P, D)`` hidden states of positions that have a target.
            table: ``(N, D)`` item table.
            targets: ``(P,)`` int64 item indices.
        """


def check_loss_inputs(hidden: Tensor, table: Tensor, targets: Tensor) -> None:
    """Refuse loss inputs of wrong shapes or, on a CPU, with targets that are no item index.

    Another device would have to be waited for: batches are checked before they go there.

    Raises:
        ShapeError: naming the shape that was got and the one expected.
        DeshiError: for targets outside ``[0, N)``, padding among them.
    """
    check_shape("hidden", hidden, ("P", "D"))
    check_shape("table", table, ("N", hidden.shape[1]))
    check_shape("targets", targets, (hidden.shape[0],))
    if not len(targets):
        raise DeshiError("The loss got no target at all, expected at least one: leave such batches out.")
    if targets.device.type != "cpu":
        return
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= len(table):
        raise DeshiError(
            f"targets holds {low if low < 0 else high}, expected item indices 0..{len(table) - 1}. "
            "Leave padded positions out before the loss (hidden[targets != PAD])."
        )

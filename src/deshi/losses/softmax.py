"""Full softmax cross-entropy over the whole catalogue, fused with the scoring product."""

from __future__ import annotations

import torch
from torch import Tensor

from deshi.losses.base import Loss, check_loss_inputs
from deshi.losses.fused_pass import ChunkLoss, chunk_for, fused_pass, product_dtype
from deshi.types import DeshiError


def fused_softmax(
    hidden: Tensor, table: Tensor, targets: Tensor, chunk: int | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Mean cross-entropy of ``softmax(hidden @ table.T)`` by :func:`~deshi.losses.fused_pass.fused_pass`.

    Args:
        hidden: ``(P, D)`` hidden states of positions that have a target.
        table: ``(N, D)`` item table.
        targets: ``(P,)`` int64 item indices.
        chunk: positions at a time; None takes :func:`~deshi.losses.fused_pass.chunk_for`'s.
        dtype: of the matrix products, fp32 or bf16.

    Returns:
        The mean loss in nats, a scalar in fp32.

    Raises:
        ShapeError, DeshiError: see :func:`~deshi.losses.base.check_loss_inputs`.
    """
    check_loss_inputs(hidden, table, targets)
    return fused_pass(hidden, table, CrossEntropy(targets, chunk or chunk_for(len(table), hidden.device)), dtype)[0]


class CrossEntropy(ChunkLoss):
    """The cross-entropy of chunks of positions that all have a target, its gradient in closed form.

    Args:
        targets: ``(P,)`` int64 item indices.
        chunk: positions at a time.
    """

    def __init__(self, targets: Tensor, chunk: int) -> None:
        self.targets = targets
        self.chunks = [slice(begin, begin + chunk) for begin in range(0, len(targets), chunk)]
        self.weights = [1.0]
        self.divisor = len(targets)

    def sums_and_gradient(self, scores: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
        """See :meth:`~deshi.losses.fused_pass.ChunkLoss.sums_and_gradient`."""
        targets = self.targets[chunk, None]
        target_logit = scores.gather(1, targets)
        # -log softmax = log sumexp - target logit, with the row's maximum taken out of the exponentials
        maximum = scores.amax(1, keepdim=True)
        scores.sub_(maximum).exp_()
        sumexp = scores.sum(1, keepdim=True)
        loss = (sumexp.log() + maximum - target_logit).sum()
        # gradient: softmax minus the one-hot target
        grad = scores.div_(sumexp).scatter_add_(1, targets, torch.full_like(target_logit, -1.0))
        return loss[None], grad


class Softmax(Loss):
    """Full softmax loss; see :func:`fused_softmax`.

    Args:
        chunk: positions at a time; null takes as many as keep their scores in the cache of a small CPU, on a GPU more.
    """

    is_full_softmax = True

    def __init__(self, chunk: int | None = None) -> None:
        super().__init__()
        if chunk is not None and chunk < 1:
            raise DeshiError(f"Softmax got chunk={chunk}, expected a positive number of positions.")
        self.chunk = chunk

    def forward(self, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of ``hidden`` (P, D) against ``targets`` (P,) over ``table`` (N, D), in nats."""
        return fused_softmax(hidden, table, targets, self.chunk, product_dtype(hidden.device))

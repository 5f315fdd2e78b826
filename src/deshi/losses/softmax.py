"""Full softmax cross-entropy over the whole catalogue, fused with the scoring product."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from deshi.types import DeshiError, check_shape


def check_loss_inputs(hidden: Tensor, table: Tensor, targets: Tensor) -> None:
    """Refuse loss inputs of wrong shapes or with targets that are no item index.

    Raises:
        ShapeError: naming the shape that was got and the one expected.
        DeshiError: for targets outside ``[0, N)``, padding among them.
    """
    check_shape("hidden", hidden, ("P", "D"))
    check_shape("table", table, ("N", hidden.shape[1]))
    check_shape("targets", targets, (hidden.shape[0],))
    if not len(targets):
        raise DeshiError("The loss got no target at all, expected at least one: leave such batches out.")
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= len(table):
        raise DeshiError(
            f"targets holds {low if low < 0 else high}, expected item indices 0..{len(table) - 1}. "
            "Leave padded positions out before the loss (hidden[targets != PAD])."
        )


NUMBERS = 2_000_000
"""Scores of a chunk at most: 8 MB in fp32, so that they stay in a CPU's cache while they are worked on."""


def chunk_for(n_items: int) -> int:
    """How many positions to score at a time against a catalogue of ``n_items``: a power of 2 from 32 to 512."""
    return max(32, min(512, 1 << max(1, NUMBERS // n_items).bit_length() - 1))


def fused_softmax(
    hidden: Tensor, table: Tensor, targets: Tensor, chunk: int | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Mean cross-entropy of ``softmax(hidden @ table.T)``, without ever holding that (P, N) matrix.

    Loss and gradients are computed together, ``chunk`` positions at a time, in the forward pass (the idea of
    "Cut Your Losses", Wijmans et al., arXiv 2411.09009). Products run in ``dtype``; the softmax, the loss and
    the table's gradient are accumulated in fp32.

    Args:
        hidden: ``(P, D)`` hidden states of positions that have a target.
        table: ``(N, D)`` item table.
        targets: ``(P,)`` int64 item indices.
        chunk: positions at a time; None takes :func:`chunk_for`'s.
        dtype: of the matrix products, fp32 or bf16.

    Returns:
        The mean loss in nats, a scalar in fp32.

    Raises:
        ShapeError, DeshiError: see :func:`check_loss_inputs`.
    """
    check_loss_inputs(hidden, table, targets)
    return cast(Tensor, _FusedSoftmax.apply(hidden, table, targets, chunk or chunk_for(len(table)), dtype))


class _FusedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor, chunk: int, dtype: torch.dtype) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return _FusedSoftmax._run(ctx, hidden, table, targets, chunk, dtype)

    @staticmethod
    def _run(ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor, chunk: int, dtype: torch.dtype) -> Tensor:
        states, weights = hidden.detach().to(dtype), table.detach().to(dtype)
        wanted = any(ctx.needs_input_grad)
        grad_hidden = torch.empty_like(states) if wanted else None
        grad_table = torch.zeros(table.shape, dtype=torch.float32, device=table.device) if wanted else None
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        for start in range(0, len(states), chunk):
            part = slice(start, start + chunk)
            logits = (states[part] @ weights.T).float()
            aim = targets[part, None]
            aimed = logits.gather(1, aim)
            peak = logits.amax(1, keepdim=True)
            logits.sub_(peak).exp_()
            mass = logits.sum(1, keepdim=True)
            total += (mass.log() + peak - aimed).sum()
            if grad_hidden is None or grad_table is None:
                continue
            logits.div_(mass)
            logits.scatter_add_(1, aim, torch.full_like(aimed, -1.0))
            slope = logits.to(dtype)
            torch.mm(slope, weights, out=grad_hidden[part])
            if dtype == torch.float32:
                grad_table.addmm_(slope.T, states[part])
            else:
                grad_table += slope.T @ states[part]
        ctx.save_for_backward(grad_hidden, grad_table)
        ctx.dtypes = hidden.dtype, table.dtype
        ctx.count = len(states)
        return (total / len(states)).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_table = ctx.saved_tensors
        scale = grad / ctx.count
        hidden_type, table_type = ctx.dtypes
        return (grad_hidden * scale).to(hidden_type), (grad_table * scale).to(table_type), None, None, None


class Softmax(nn.Module):
    """Full softmax loss; see :func:`fused_softmax`.

    Args:
        chunk: positions at a time; null takes as many as keep their scores in the cache of a small CPU.
    """

    def __init__(self, chunk: int | None = None) -> None:
        super().__init__()
        if chunk is not None and chunk < 1:
            raise DeshiError(f"Softmax got chunk={chunk}, expected a positive number of positions.")
        self.chunk = chunk

    def forward(self, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of ``hidden`` (P, D) against ``targets`` (P,) over ``table`` (N, D), in nats."""
        fast = torch.is_autocast_enabled(hidden.device.type)
        dtype = torch.get_autocast_dtype(hidden.device.type) if fast else torch.float32
        return fused_softmax(hidden, table, targets, self.chunk, dtype)

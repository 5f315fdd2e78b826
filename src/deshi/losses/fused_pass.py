"""The fused pass: loss and gradients of hidden states against the item table, chunk by chunk.

The ``(P, N)`` matrix of scores is never held as a whole (the idea of "Cut Your Losses", Wijmans et al., arXiv
2411.09009). The full softmax and the distillation terms over scores both run here; they differ in the
:class:`ChunkLoss` that turns a chunk's scores into a loss and its gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

CHUNK_SCORES, CHUNK_POSITIONS = 2_000_000, 512
"""Scores and positions of a chunk at most: 8 MB in fp32 stay in a CPU's cache while they are worked on."""
GPU_CHUNK_SCORES, GPU_CHUNK_POSITIONS = 64_000_000, 16_384
"""The same for other devices: few large steps, 256 MB for each of the matrices that a chunk needs."""


def chunk_for(n_items: int, device: torch.device) -> int:
    """The number of positions scored at a time against ``n_items`` items: a power of 2 from 32 up, by the device."""
    on_cpu = device.type == "cpu"
    scores, positions = (CHUNK_SCORES, CHUNK_POSITIONS) if on_cpu else (GPU_CHUNK_SCORES, GPU_CHUNK_POSITIONS)
    return max(32, min(positions, 1 << max(1, scores // n_items).bit_length() - 1))


def factors_on(values: Sequence[float], device: torch.device) -> Tensor:
    """Numbers ``(M,)`` as fp64 on a device, without waiting for it."""
    return torch.tensor(values, dtype=torch.float64).to(device, non_blocking=True)


def product_dtype(device: torch.device) -> torch.dtype:
    """The number format of matrix products: autocast's where it is on, else fp32."""
    fast = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if fast else torch.float32


class ChunkLoss(ABC):
    """One or several losses of a chunk of positions, as sums over its positions, with their common gradient.

    The total is ``sum_i weights[i] * sums[i] / divisor``.

    Attributes:
        chunks: the positions computed together.
        weights: factor of each sum; the gradients of :meth:`sums_and_gradient` include it.
        divisor: number that total and gradients are divided by after all chunks.
    """

    chunks: Sequence[slice]
    weights: Sequence[float]
    divisor: int

    @abstractmethod
    def sums_and_gradient(self, scores: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
        """The losses' sums over a chunk and the gradient of their weighted total.

        Args:
            scores: ``(C, N)`` fp32, without autograd; may be overwritten, and its memory is the next chunk's.
            chunk: which positions these are.

        Returns:
            the first ``M <= len(weights)`` sums ``(M,)`` and the gradient by the scores ``(C, N)``.
        """


def fused_pass(
    hidden: Tensor, table: Tensor, loss: ChunkLoss, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """The total of a chunk loss over all positions, with gradients that are computed along with it.

    Products run in ``dtype``; the losses and the table's gradient are accumulated in fp32 or better.

    Args:
        hidden: ``(P, D)`` hidden states.
        table: ``(N, D)`` item table.
        loss: of the positions.
        dtype: of the matrix products, fp32 or bf16.

    Returns:
        the total, a scalar in fp32, and each loss's sum ``(len(weights),)`` in fp64 without gradients.
    """
    total, sums = _FusedPass.apply(hidden, table, loss, dtype)
    return total, sums


class _Buffers:
    """Memory for the scores of a chunk, which all chunks of a pass use: new memory would be new pages each time.

    Args:
        n_items: size of the catalogue.
        device: of the scores.
    """

    def __init__(self, n_items: int, device: torch.device) -> None:
        self._n_items, self._device = n_items, device
        self._by_dtype: dict[torch.dtype, Tensor] = {}

    def scores(self, states: Tensor, items: Tensor) -> Tensor:
        """``states (C, D) @ items (N, D).T`` as ``(C, N)`` in fp32."""
        product = torch.mm(states, items.T, out=self._rows(len(states), states.dtype))
        return product if product.dtype == torch.float32 else self._rows(len(states), torch.float32).copy_(product)

    def _rows(self, count: int, dtype: torch.dtype) -> Tensor:
        memory = self._by_dtype.get(dtype)
        if memory is None or len(memory) < count:
            memory = self._by_dtype[dtype] = torch.empty(count, self._n_items, dtype=dtype, device=self._device)
        return memory[:count]


class _FusedPass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, loss: ChunkLoss, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        with torch.autocast(hidden.device.type, enabled=False):
            return _FusedPass._run(ctx, hidden, table, loss, dtype)

    @staticmethod
    def _run(ctx: Any, hidden: Tensor, table: Tensor, loss: ChunkLoss, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        states, items = hidden.detach().to(dtype), table.detach().to(dtype)
        needs_grad = any(ctx.needs_input_grad)
        grad_hidden = torch.empty_like(states) if needs_grad else None
        # In fp32 the table's gradient is (D, N): a product whose rows are as long as the catalogue is up to three times
        # as fast as one with rows of D, and adds up the same numbers in the same order.
        in_columns = dtype == torch.float32
        shape = table.shape[::-1] if in_columns else table.shape
        grad_table = table.new_zeros(shape, dtype=torch.float32) if needs_grad else None
        sums = torch.zeros(len(loss.weights), dtype=torch.float64, device=hidden.device)
        columns, buffers = states.T.contiguous(), _Buffers(len(table), hidden.device)
        for chunk in loss.chunks:
            scores = buffers.scores(states[chunk], items)
            chunk_sums, grad = loss.sums_and_gradient(scores, chunk)
            sums[: len(chunk_sums)] += chunk_sums.double()
            if grad_hidden is None or grad_table is None:
                continue
            # chain rule of scores = states @ items.T: d states = grad @ items, d items = grad.T @ states
            grad = grad.to(dtype)
            torch.mm(grad, items, out=grad_hidden[chunk])
            if in_columns:
                grad_table.addmm_(columns[:, chunk], grad)
            else:
                grad_table += grad.T @ states[chunk]
        if grad_table is not None and in_columns:
            grad_table = grad_table.T.contiguous()
        ctx.save_for_backward(grad_hidden, grad_table)
        ctx.dtypes, ctx.divisor = (hidden.dtype, table.dtype), loss.divisor
        ctx.mark_non_differentiable(sums)
        return ((sums * factors_on(loss.weights, hidden.device)).sum() / loss.divisor).float(), sums

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_table = ctx.saved_tensors
        scale = grad / ctx.divisor
        hidden_type, table_type = ctx.dtypes
        return (grad_hidden * scale).to(hidden_type), (grad_table * scale).to(table_type), None, None

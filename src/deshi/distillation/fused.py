"""Loss and distillation in one pass over positions and catalogue, which never holds their whole matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deshi.distillation.chunk import Chunk
from deshi.distillation.soft_label_batches import Signal
from deshi.distillation.term import ScoreTerm
from deshi.types import PAD


@dataclass(frozen=True)
class Pass:
    """What is computed at a batch's positions.

    Attributes:
        targets: ``(P,)`` int64, ``PAD`` where there is none.
        signal: the teacher's lists at the first ``D`` positions, all of which have one.
        terms: the terms over scores.
        weights: of the cross-entropy and of each term.
        chunk: positions at a time.
        dtype: of the matrix products, fp32 or bf16.
        generator: for the terms' random numbers.
    """

    targets: Tensor
    signal: Signal
    terms: Sequence[ScoreTerm]
    weights: Sequence[float]
    chunk: int
    dtype: torch.dtype
    generator: torch.Generator

    def parts(self) -> list[tuple[slice, bool]]:
        """Slices of the positions, none with distilled and other positions both, and whether it is distilled."""
        taught, total = len(self.signal.items), len(self.targets)
        first = [(slice(begin, min(begin + self.chunk, taught)), True) for begin in range(0, taught, self.chunk)]
        rest = [(slice(begin, min(begin + self.chunk, total)), False) for begin in range(taught, total, self.chunk)]
        return first + rest

    def values(self, chunk: Chunk, distilled: bool) -> list[Tensor]:
        """The sums over a chunk of the cross-entropy and of every term."""
        return [self._cross_entropy(chunk), *(term(chunk).sum() for term in self.terms if distilled)]

    def _cross_entropy(self, chunk: Chunk) -> Tensor:
        real = chunk.targets != PAD
        if not self.weights[0] or not bool(real.any()):
            return chunk.scores.new_zeros(())
        aimed = chunk.at(chunk.targets[:, None]).squeeze(1)
        return torch.where(real, chunk.logsumexp() - aimed, 0.0).sum()

    def shares(self) -> list[float]:
        """What makes each sum a mean: one over the number of positions that it is summed over."""
        counts = [int((self.targets != PAD).sum()), *[len(self.signal.items)] * len(self.terms)]
        return [1 / max(count, 1) for count in counts]


def fused_pass(hidden: Tensor, table: Tensor, work: Pass) -> tuple[Tensor, Tensor]:
    """The weighted sum of mean cross-entropy and mean terms, and each of them.

    Gradients are computed with the values, ``chunk`` positions at a time, as in
    :func:`deshi.losses.softmax.fused_softmax`; terms reach the score matrix through the few numbers that they use.

    Args:
        hidden: ``(P, D)`` hidden states, distilled positions first.
        table: ``(N, D)`` item table.
        work: what is computed.

    Returns:
        the total, a scalar in fp32, and the means ``(1 + terms,)`` before their weights, without gradients; the
        cross-entropy's is 0 where its weight is.
    """
    total, means = _Fused.apply(hidden, table, work)
    return total, means


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, work: Pass) -> tuple[Tensor, Tensor]:
        with torch.autocast(hidden.device.type, enabled=False):
            return _Fused._run(ctx, hidden, table, work)

    @staticmethod
    def _run(ctx: Any, hidden: Tensor, table: Tensor, work: Pass) -> tuple[Tensor, Tensor]:
        states, weights = hidden.detach().to(work.dtype), table.detach().to(work.dtype)
        grad_hidden, grad_table = torch.empty_like(states), torch.zeros_like(table, dtype=torch.float32)
        shares = work.shares()
        scales = [weight * share for weight, share in zip(work.weights, shares, strict=True)]
        sums = torch.zeros(len(scales), dtype=torch.float64, device=hidden.device)
        for part, distilled in work.parts():
            scores = (states[part] @ weights.T).float()
            signal = work.signal.part(part) if distilled else work.signal.part(slice(0, 0))
            chunk = Chunk(scores, work.targets[part], signal, work.generator)
            with torch.enable_grad():
                values = work.values(chunk, distilled)
                value = torch.stack([v * scale for v, scale in zip(values, scales, strict=False)]).sum()
            sums[: len(values)] += torch.stack([v.detach() for v in values]).double()
            slope = chunk.slope(value).to(work.dtype)
            torch.mm(slope, weights, out=grad_hidden[part])
            if work.dtype == torch.float32:
                grad_table.addmm_(slope.T, states[part])
            else:
                grad_table += slope.T @ states[part]
        ctx.save_for_backward(grad_hidden, grad_table)
        ctx.dtypes = hidden.dtype, table.dtype
        means = sums * torch.tensor(shares, dtype=torch.float64, device=hidden.device)
        ctx.mark_non_differentiable(means)
        return (sums * torch.tensor(scales, dtype=torch.float64, device=hidden.device)).sum().float(), means

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_table = ctx.saved_tensors
        hidden_type, table_type = ctx.dtypes
        return (grad_hidden * grad).to(hidden_type), (grad_table * grad).to(table_type), None

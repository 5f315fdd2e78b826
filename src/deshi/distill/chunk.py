"""What the terms of a distillation see of the scores: one chunk of positions against the whole catalogue."""

from __future__ import annotations

import torch
from torch import Tensor

from deshi.distill.signal import Signal
from deshi.types import PAD


class Chunk:
    """A chunk of positions in the pass that computes loss and gradient together.

    The chunk's score matrix ``(C, N)`` is never differentiated as a whole. A term takes from it what it needs, by
    :meth:`at` and :meth:`logsumexp`, and those small tensors carry the gradients; :attr:`scores` itself is for looking
    only (ranks, memberships).

    Args:
        scores: ``(C, N)`` float32, the student's scores, without gradients.
        targets: ``(C,)`` int64, the true next items, ``PAD`` where there is none.
        signal: the teacher's lists at the positions.
        generator: where a term draws its random numbers, on the scores' device.
    """

    def __init__(self, scores: Tensor, targets: Tensor, signal: Signal, generator: torch.Generator) -> None:
        self.scores = scores
        self.targets = targets
        self.signal = signal
        self.generator = generator
        self._sums: dict[float, tuple[Tensor, Tensor]] = {}
        self._taken: list[tuple[Tensor, Tensor]] = []

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def n_items(self) -> int:
        """Number of items of the catalogue."""
        return self.scores.shape[1]

    def at(self, items: Tensor) -> Tensor:
        """The scores of some items, with gradients: ``(C, M)`` int64 -> ``(C, M)`` float32, 0 where ``PAD``."""
        absent = items == PAD
        values = self.scores.gather(1, items.clamp(min=0)).masked_fill_(absent, 0.0).requires_grad_()
        self._taken.append((items, values))
        return values

    def logsumexp(self, temperature: float = 1.0) -> Tensor:
        """``log sum_n exp(score_n / temperature)`` over the catalogue, with gradients: ``(C,)``."""
        if temperature not in self._sums:
            peak = self.scores.amax(1, keepdim=True)
            powers = (self.scores - peak).div_(temperature).exp_()
            mass = powers.sum(1, keepdim=True)
            leaf = (mass.log() + peak / temperature).squeeze(1).requires_grad_()
            self._sums[temperature] = leaf, powers.div_(mass)
        return self._sums[temperature][0]

    def slope(self, value: Tensor) -> Tensor:
        """The gradient ``(C, N)`` of the scalar ``value`` by the scores. The chunk is used up by it."""
        sums = list(self._sums.items())
        leaves = [leaf for _, (leaf, _) in sums] + [leaf for _, leaf in self._taken]
        found = torch.autograd.grad(value, leaves, allow_unused=True) if value.requires_grad else [None] * len(leaves)
        grads = [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(found, leaves, strict=True)]
        result: Tensor | None = None
        for (temperature, (_, softmax)), grad in zip(sums, grads, strict=False):
            softmax.mul_((grad / temperature)[:, None])
            result = softmax if result is None else result.add_(softmax)
        result = self.scores.zero_() if result is None else result
        for (items, _), grad in zip(self._taken, grads[len(sums) :], strict=True):
            result.scatter_add_(1, items.clamp(min=0), grad.masked_fill(items == PAD, 0.0))
        return result

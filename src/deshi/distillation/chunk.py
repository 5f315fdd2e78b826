"""What the terms of a distillation see of the scores: one chunk of positions against the whole catalogue."""

from __future__ import annotations

import torch
from torch import Tensor

from deshi.distillation.soft_label_batches import Signal
from deshi.types import PAD


class Chunk:
    """A chunk of positions in the pass that computes loss and gradient together.

    The chunk's score matrix ``(C, N)`` isn't differentiated as a whole, unless a term asks for it by :meth:`whole`. A
    term takes from it what it needs, by :meth:`at` and :meth:`logsumexp`, and those small tensors carry the gradients;
    :attr:`scores` itself is for looking only (ranks, memberships).

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
        self._sums: dict[float, tuple[Tensor, Tensor, Tensor]] = {}
        self._taken: list[tuple[Tensor, Tensor]] = []
        self._whole: Tensor | None = None

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
            powers = self.scores - peak
            powers = (powers if temperature == 1.0 else powers.div_(temperature)).exp_()
            mass = powers.sum(1, keepdim=True)
            leaf = (mass.log() + peak / temperature).squeeze(1).requires_grad_()
            self._sums[temperature] = leaf, powers, mass
        return self._sums[temperature][0]

    def whole(self) -> Tensor:
        """All scores ``(C, N)`` with gradients: for a term that can't do with less, and pays for it."""
        if self._whole is None:
            self._whole = self.scores.clone().requires_grad_()
        return self._whole

    def slope(self, value: Tensor) -> Tensor:
        """The gradient ``(C, N)`` of the scalar ``value`` by the scores. The chunk is used up by it."""
        sums = list(self._sums.items())
        leaves = [leaf for _, (leaf, _, _) in sums] + [leaf for _, leaf in self._taken]
        leaves += [] if self._whole is None else [self._whole]
        found = torch.autograd.grad(value, leaves, allow_unused=True) if value.requires_grad else [None] * len(leaves)
        grads = [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(found, leaves, strict=True)]
        result: Tensor | None = None
        for (temperature, (_, powers, mass)), grad in zip(sums, grads, strict=False):
            powers.mul_(grad[:, None] / (mass * temperature))  # a softmax times its gradient, in one go
            result = powers if result is None else result.add_(powers)
        result = self.scores.zero_() if result is None else result
        if self._whole is not None:
            result.add_(grads.pop())
        for (items, _), grad in zip(self._taken, grads[len(sums) :], strict=True):
            result.scatter_add_(1, items.clamp(min=0), grad.masked_fill(items == PAD, 0.0))
        return result

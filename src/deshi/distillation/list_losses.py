"""Helpers of terms over a teacher's lists: weights by rank, means over a list, draws from outside of a list."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deshi.distillation.score_chunk import ScoreChunk
from deshi.types import PAD, DeshiError

_ROUNDS = 16


def check_positive(owner: str, **values: float | None) -> None:
    """Refuse arguments that aren't positive numbers; None passes.

    Raises:
        DeshiError: naming the argument and what it was.
    """
    for name, value in values.items():
        if value is not None and not value > 0:
            raise DeshiError(f"{owner} got {name}={value}, expected a positive number.")


def rank_weights(listed: Tensor, decay: float) -> Tensor:
    """Weights ``exp(-r / decay)`` by rank ``r = 1 .. K``, summing to 1 over a list: ``(C, K)``, 0 outside of it."""
    ranks = torch.arange(listed.shape[1], device=listed.device, dtype=torch.float32)
    return (-ranks / decay).expand(listed.shape).masked_fill(~listed, -torch.inf).softmax(1)


def listed_mean(values: Tensor, listed: Tensor) -> Tensor:
    """The mean ``(C,)`` of ``values`` ``(C, K)`` over a list's items, 0 for none."""
    return values.masked_fill(~listed, 0.0).sum(1) / listed.sum(1).clamp(min=1)


def list_divergence(target: Tensor, log_student: Tensor, listed: Tensor) -> Tensor:
    """``sum_k target * (log target - log_student)`` over the listed items: ``(C, K)`` -> ``(C,)``."""
    return (torch.xlogy(target, target) - target * log_student.masked_fill(~listed, 0.0)).sum(1)


def draw_outside(chunk: ScoreChunk, excluded: Tensor, count: int) -> Tensor:
    """Items drawn uniformly, with replacement, from the catalogue without some of each position.

    Args:
        chunk: source of the catalogue's size and of the random numbers.
        excluded: ``(C, M)`` int64 items that are never drawn; ``PAD`` excludes nothing.
        count: number of draws at each position.

    Returns:
        ``(C, count)`` int64; ``PAD`` where 16 draws in a row were excluded (nearly nothing else is left).
    """
    shape, device = (len(chunk), count), chunk.scores.device
    is_excluded = torch.zeros(len(chunk), chunk.n_items + 1, dtype=torch.bool, device=device)
    is_excluded.scatter_(1, excluded.where(excluded != PAD, chunk.n_items), True)  # the last column stands for PAD
    drawn = torch.full(shape, PAD, device=device)
    rounds = _ROUNDS if device.type == "cpu" else _enough_rounds(excluded.shape[1] / chunk.n_items, drawn.numel())
    for _ in range(rounds):  # rejection sampling: draw again where an excluded item came
        candidates = torch.randint(chunk.n_items, shape, generator=chunk.generator, device=device)
        accepted = (drawn == PAD) & ~is_excluded.gather(1, candidates)
        drawn = candidates.where(accepted, drawn)
        if device.type == "cpu" and not bool((drawn == PAD).any()):
            break
    return drawn


def _enough_rounds(excluded: float, draws: int) -> int:
    """Rounds after which a draw is left with a probability below 1e-6, without asking the device whether one is.

    Args:
        excluded: the share of the catalogue that is excluded, at most.
        draws: number of draws.
    """
    if not 0 < excluded < 1:
        return 1 if excluded <= 0 else _ROUNDS
    return min(_ROUNDS, max(1, math.ceil(math.log(1e-6 / max(1, draws)) / math.log(excluded))))

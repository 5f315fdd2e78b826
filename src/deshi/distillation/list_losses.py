"""What several terms do with a teacher's lists: weights by place, scores on one scale, draws from outside of a list."""

from __future__ import annotations

import torch
from torch import Tensor

from deshi.distillation.chunk import Chunk
from deshi.distillation.soft_label_batches import Signal
from deshi.types import PAD, DeshiError

SCALED = ("logit", "log_probability", "probability")
"""Kinds of scores whose differences mean something, once probabilities are logarithms."""

_ROUNDS = 16


def check_positive(who: str, **values: float | None) -> None:
    """Refuse arguments that aren't positive numbers; None is left alone.

    Raises:
        DeshiError: naming the argument and what it was.
    """
    for name, value in values.items():
        if value is not None and not value > 0:
            raise DeshiError(f"{who} got {name}={value}, expected a positive number.")


def top(signal: Signal, k: int | None) -> tuple[Tensor, Tensor]:
    """The first ``k`` items ``(P, K)`` of every list, all of them for None, and where there is one ``(P, K)`` bool."""
    items = signal.items if k is None else signal.items[:, :k]
    return items, items != PAD


def place_weights(listed: Tensor, decay: float) -> Tensor:
    """Weights ``exp(-r / decay)`` at places ``r = 1 .. K``, summing to 1 over a list: ``(C, K)``, 0 outside of it."""
    places = torch.arange(listed.shape[1], device=listed.device, dtype=torch.float32)
    return (-places / decay).expand(listed.shape).masked_fill(~listed, -torch.inf).softmax(1)


def log_scores(signal: Signal) -> Tensor:
    """The teacher's scores ``(P, K)``, probabilities as logarithms."""
    return signal.scores.clamp(min=1e-12).log() if signal.kind == "probability" else signal.scores


def listed_mean(values: Tensor, listed: Tensor) -> Tensor:
    """The mean ``(C,)`` of ``values`` ``(C, K)`` over a list's items, 0 for none."""
    return values.masked_fill(~listed, 0.0).sum(1) / listed.sum(1).clamp(min=1)


def draw_outside(chunk: Chunk, excluded: Tensor, count: int) -> Tensor:
    """Items drawn uniformly, with replacement, from the catalogue without some of each position.

    Args:
        chunk: where the catalogue's size and the random numbers come from.
        excluded: ``(C, M)`` int64 items that aren't drawn; ``PAD`` excludes nothing.
        count: how many are drawn at each position.

    Returns:
        ``(C, count)`` int64; ``PAD`` where 16 draws in a row were excluded (nearly nothing else is left).
    """
    shape, device = (len(chunk), count), chunk.scores.device
    taken = torch.zeros(len(chunk), chunk.n_items + 1, dtype=torch.bool, device=device)
    taken.scatter_(1, excluded.where(excluded != PAD, chunk.n_items), True)  # the last column stands for PAD
    drawn = torch.full(shape, PAD, device=device)
    for _ in range(_ROUNDS):
        fresh = torch.randint(chunk.n_items, shape, generator=chunk.generator, device=device)
        free = (drawn == PAD) & ~taken.gather(1, fresh)
        drawn = fresh.where(free, drawn)
        if not bool((drawn == PAD).any()):
            break
    return drawn

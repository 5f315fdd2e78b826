"""Negatives of sampled losses: shared samples with their probabilities, and scores of negatives by groups."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from deshi.losses.random_stream import RandomStream
from deshi.types import DeshiError, check_shape


class SharedNegatives(nn.Module):
    """One set of negatives for all positions of a batch, with the numbers that a logQ correction needs.

    Args:
        strategy: ``"uniform"`` over the catalogue; ``"popularity"``, by training count to the power of ``power``;
            ``"batch"``, from the batch's own targets (in-batch negatives), which costs no table of
            probabilities to search and follows the training count; or ``"mixed"``, some from the batch and some
            uniformly (Yang et al., WWW 2020 Companion, "Mixed negative sampling"), so that rare items are
            negatives, too.
        power: flattens the popularity (0: uniform, 1: by count); for ``"popularity"`` only.
        uniform_share: the share of uniform draws of ``"mixed"``, above 0 and below 1.
    """

    def __init__(
        self, strategy: Literal["uniform", "popularity", "batch", "mixed"] = "uniform", power: float = 1.0,
        uniform_share: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        if strategy not in ("uniform", "popularity", "batch", "mixed"):
            raise DeshiError(f"Negatives got strategy={strategy!r}, expected uniform, popularity, batch or mixed.")
        if not 0 < uniform_share < 1:
            raise DeshiError(f"Negatives got uniform_share={uniform_share}, expected a share above 0 and below 1.")
        if power != 1.0 and strategy != "popularity":
            raise DeshiError(f"Negatives got power={power} with strategy={strategy}: it belongs to popularity only.")
        self.strategy = strategy
        self.power = power
        self.uniform_share = uniform_share
        self.random = RandomStream()
        self.register_buffer("cumulative", None, persistent=False)
        self.register_buffer("log_probability", None, persistent=False)
        self.cumulative: Tensor | None
        self.log_probability: Tensor | None

    def set_counts(self, counts: Tensor) -> None:
        """Receive ``counts`` ``(N,)``, how often each item is a training target.

        Items without any count as one, but for ``"mixed"``: no batch draws them, and the uniform draws do.
        """
        check_shape("counts", counts, ("N",))
        weights = counts.double().clamp(min=0.0 if self.strategy == "mixed" else 1.0) ** self.power
        probability = weights / weights.sum()
        self.cumulative = probability.cumsum(0)
        self.log_probability = probability.log().float()

    def forward(self, targets: Tensor, n_items: int, size: int) -> tuple[Tensor, Tensor]:
        """Draw ``size`` negatives with replacement, or take the catalogue whole if it is no larger than that.

        Args:
            targets: ``(P,)`` int64, the batch's targets.
            n_items: size of the catalogue.
            size: number of negatives.

        Returns:
            items ``(S,)`` int64, and the log of how often each was expected in the sample ``(S,)`` fp32.

        Raises:
            DeshiError: if the strategy needs counts and has none, or for another number of items.
        """
        device = targets.device
        if size >= n_items and self.strategy not in ("batch", "mixed"):
            return torch.arange(n_items, device=device), torch.zeros(n_items, device=device)
        log_size, generator = float(np.log(size)), self.random.generator(device)
        if self.strategy == "uniform":
            items = torch.randint(n_items, (size,), generator=generator, device=device)
            return items, torch.full((size,), log_size - float(np.log(n_items)), device=device)
        cumulative, log_probability = self._tables(n_items)
        if self.strategy == "mixed":
            return self._mixed(targets, log_probability, size)
        if self.strategy == "batch":
            items = targets[torch.randint(len(targets), (size,), generator=generator, device=device)]
        else:
            points = torch.rand(size, generator=generator, device=device, dtype=torch.float64)
            items = torch.searchsorted(cumulative, points, right=True).clamp(max=n_items - 1)
        return items, log_probability[items] + log_size

    def _mixed(self, targets: Tensor, log_probability: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """In-batch and uniform draws; an item's expected number is the sum over both, whichever draw it came by."""
        n_items, device, generator = len(log_probability), targets.device, self.random.generator(targets.device)
        uniform = min(size - 1, max(1, round(size * self.uniform_share))) if size > 1 else 0
        items = torch.cat(
            [
                targets[torch.randint(len(targets), (size - uniform,), generator=generator, device=device)],
                torch.randint(n_items, (uniform,), generator=generator, device=device),
            ]
        )
        expected = log_probability[items].exp() * (size - uniform) + uniform / n_items
        return items, expected.log()

    def _tables(self, n_items: int) -> tuple[Tensor, Tensor]:
        if self.cumulative is None or self.log_probability is None:
            raise DeshiError(f"Negatives by {self.strategy} need the training counts: call set_counts first.")
        if len(self.cumulative) != n_items:
            raise DeshiError(
                f"Negatives were given counts of {len(self.cumulative)} items, but the item table has {n_items}. "
                "Count the same data that the student is trained on."
            )
        return self.cumulative, self.log_probability


def grouped_negatives(
    count: int, n_items: int, negatives: int, share: int, generator: torch.Generator
) -> Tensor:  # fmt: skip
    """Uniform negatives, one set for every ``share`` neighbouring positions of ``count``.

    Returns:
        ``(ceil(count / share), negatives)`` int64 item indices, drawn with replacement.
    """
    groups = -(-count // share)
    return torch.randint(n_items, (groups, negatives), generator=generator, device=generator.device)


def grouped_scores(hidden: Tensor, table: Tensor, negatives: Tensor, share: int, sparse: bool = False) -> Tensor:
    """Scores of each position's negatives, without holding a row of the table for each of them.

    Args:
        hidden: ``(P, D)``.
        table: ``(N, D)``.
        negatives: ``(ceil(P / share), K)`` int64 from :func:`grouped_negatives`.
        share: number of neighbouring positions that share a set.
        sparse: whether the gradient of ``table`` is a sparse tensor of the rows that were read.

    Returns:
        ``(P, K)`` fp32.
    """
    groups = len(negatives)
    check_shape("negatives", negatives, (-(-len(hidden) // share), "K"))
    padded = F.pad(hidden.float(), (0, 0, 0, groups * share - len(hidden)))
    scores: Tensor = _GroupedScores.apply(padded.view(groups, share, -1), table, negatives, sparse)
    return scores.flatten(0, 1)[: len(hidden)]


_FLOATS, _GPU_FLOATS = 1 << 20, 1 << 26
"""Number of gathered table entries held at a time: 4 MiB, about a core's cache, and 256 MiB on other devices."""


class _GroupedScores(torch.autograd.Function):
    """``hidden (G, M, D) @ table[negatives (G, K)]`` transposed -> ``(G, M, K)``, a slice of groups at a time."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, negatives: Tensor, sparse: bool) -> Tensor:
        ctx.save_for_backward(hidden, table, negatives)
        ctx.sparse = sparse
        scores = hidden.new_empty(len(hidden), hidden.shape[1], negatives.shape[1])
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _slices(negatives, table):
                rows = F.embedding(negatives[part], table).float()
                torch.bmm(hidden[part], rows.transpose(1, 2), out=scores[part])
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, table, negatives = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_table = torch.zeros_like(table, dtype=torch.float32) if not ctx.sparse else None
        read = list[Tensor]()
        for part in _slices(negatives, table):
            rows = F.embedding(negatives[part], table).float()
            torch.bmm(grad[part], rows, out=grad_hidden[part])
            grad_rows = torch.bmm(grad[part].transpose(1, 2), hidden[part]).flatten(0, 1)
            if grad_table is None:
                read.append(grad_rows)
            else:
                grad_table.index_add_(0, negatives[part].flatten(), grad_rows)
        if grad_table is None:
            values = torch.cat(read).to(table.dtype)
            return grad_hidden, sparse_rows(negatives.flatten(), values, len(table)), None, None
        return grad_hidden, grad_table.to(table.dtype), None, None


def sparse_rows(rows: Tensor, values: Tensor, n_rows: int) -> Tensor:
    """The sparse ``(n_rows, D)`` sum of ``values`` ``(M, D)`` at ``rows`` ``(M,)``, which may repeat."""
    return torch.sparse_coo_tensor(rows[None], values, (n_rows, values.shape[1]), check_invariants=False)


def _slices(negatives: Tensor, table: Tensor) -> list[slice]:
    floats = _FLOATS if table.device.type == "cpu" else _GPU_FLOATS
    step = max(1, floats // (negatives.shape[1] * table.shape[1]))
    return [slice(start, start + step) for start in range(0, len(negatives), step)]

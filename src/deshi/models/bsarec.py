"""BSARec: self-attention mixed with a filter that rescales the high frequencies of a history."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from deshi.models.layers import CausalSelfAttention
from deshi.models.sasrec import SASRec
from deshi.types import DeshiError


class BSARec(SASRec):
    """BSARec (Shin et al., AAAI 2024, arXiv 2312.10325) with a causal filter.

    What a block adds is ``alpha * filter(x) + (1 - alpha) * attention(x)``. The filter splits its input into low and
    high frequencies over the history and rescales the high ones, channel by channel::

        filter(x) = low(x) + beta ** 2 * (x - low(x))

    Deviations: the paper's ``low`` keeps the lowest frequencies of a Fourier transform of the whole window. That mixes
    later items into every position, so its program trains on the last position of each prefix alone. Here ``low`` is
    an exponential moving average over the items up to the position, with a learned decay for each head's channels, so
    that all positions are trained at once. The blocks are SASRec's pre-norm ones: the filter reads the normalised
    input, and one residual sum and norm serve both branches, where the program has one for each.

    Args:
        n_items: number of items.
        dim: width.
        max_length: number of latest items read.
        blocks: number of blocks.
        heads: attention heads, and groups of channels whose moving averages have one decay; divides ``dim``.
        feed_forward: width of the feed-forward layer as a multiple of ``dim``.
        dropout: rate after the embedding and after each sub-layer.
        alpha: share of the filter, in [0, 1); the rest is the attention's.
        positions: ``"absolute"`` or ``"rotary"``, as :class:`~deshi.models.sasrec.SASRec`'s.
    """

    def __init__(
        self, n_items: int, dim: int = 128, max_length: int = 200, blocks: int = 2, heads: int = 2,
        feed_forward: float = 4.0, dropout: float = 0.2, alpha: float = 0.7,
        positions: Literal["absolute", "rotary"] = "absolute",
    ) -> None:  # fmt: skip
        super().__init__(n_items, dim, max_length, blocks, heads, feed_forward, dropout, positions=positions)
        for block in self.blocks:
            block.attention = FilteredAttention(dim, heads, alpha, positions == "rotary")


class FilteredAttention(CausalSelfAttention):
    """Causal self-attention mixed with a causal frequency filter of the same input, see :class:`BSARec`."""

    def __init__(self, dim: int, heads: int, alpha: float, rotary: bool = False) -> None:
        super().__init__(dim, heads, rotary)
        if not 0.0 <= alpha < 1.0:
            raise DeshiError(f"BSARec got alpha={alpha}, expected a number in [0, 1).")
        self.alpha = alpha
        # The moving averages' half-lives start at 1, 4, 16, ... items: rate = ln 2 / half-life.
        self.log_rate = nn.Parameter(math.log(math.log(2.0)) - math.log(4.0) * torch.arange(heads))
        self.beta = nn.Parameter(torch.randn(dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, L, dim)`` -> ``(B, L, dim)``, see :meth:`CausalSelfAttention.forward`."""
        positions = torch.arange(x.shape[1], device=x.device)
        weights = self._weights(positions[:, None] - positions)
        low = torch.einsum("ihj,bjhw->bihw", weights, x.unflatten(2, (self.heads, -1))).flatten(2)
        return self._mix(x, low, super().forward(x, context))

    def last(self, x: Tensor, context: Tensor, lengths: Tensor) -> Tensor:
        """The output of :meth:`forward` at the last positions, see :meth:`CausalSelfAttention.last`."""
        positions = torch.arange(context.shape[1], device=x.device)
        weights = self._weights(lengths[:, None] - 1 - positions)
        low = torch.einsum("bhj,bjhw->bhw", weights, context.unflatten(2, (self.heads, -1))).flatten(1)
        return self._mix(x, low, super().last(x, context, lengths))

    def _weights(self, distance: Tensor) -> Tensor:
        """The moving averages' weights ``(N, heads, L)`` of items at a ``distance (N, L)``; later ones have none.

        They are ``exp(-rate * distance)``, normalised to a sum of one over the items that there are.
        """
        decay = -self.log_rate.exp()[:, None] * distance[:, None, :]
        return decay.masked_fill(distance[:, None, :] < 0, -torch.inf).softmax(-1)

    def _mix(self, x: Tensor, low: Tensor, attended: Tensor) -> Tensor:
        """The filter's output, high frequencies rescaled, and the attention's, by their shares."""
        return self.alpha * (low + self.beta**2 * (x - low)) + (1.0 - self.alpha) * attended

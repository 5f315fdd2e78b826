"""HSTU: a sequential transduction unit with pointwise attention instead of a softmax."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deshi.models.base import at_last
from deshi.models.blocks import BlockRecommender, SequenceBlock
from deshi.models.layers import Dropout
from deshi.types import DeshiError

UNSEEN = -1e4
"""Added to the scores of later items: SiLU makes an exact zero of it in every precision, its gradient too."""


class HSTU(BlockRecommender):
    """HSTU (Zhai et al., ICML 2024, arXiv 2402.17152) over the order of the items alone.

    Attention weights are SiLU's of the scores, each for itself, so that they needn't sum to one; a layer norm follows
    where other attentions have a softmax, and gates ``U`` take the place of a feed-forward layer::

        U, Q, K, V = silu(W1 norm(x))
        attended[i] = sum over j <= i of silu(Q[i] . K[j] + bias[i - j]) V[j]
        x = x + W2 (U * norm(attended))

    Deviations from the paper and its program:

    - No timestamps, since a history here is an order: the relative bias has the part of the positions, not that
      of the elapsed time. As in the program a block's heads share it. No position is added to the input beside it.
    - The program divides ``attended`` by the longest history's length. The norm after it undoes any such factor but for
      its epsilon, so there is none.
    - The input is item indices only: no actions, ratings or other features, and every position predicts the next item.
    - The layers start as PyTorch's do. The hidden state ends in a layer norm in the place of an L2 norm and a
      temperature, as that of every student does.
    - Plain matrix products: none of the paper's fused kernels, and none of its stochastic shortening of histories.

    Args:
        n_items: number of items.
        dim: width.
        max_length: number of latest items read.
        blocks: number of units, each of 5 matrices of ``dim * dim`` where SASRec's block has 12.
        heads: attention heads; divides ``dim``.
        dropout: rate after the embedding and before each unit's last projection.
    """

    def __init__(
        self, n_items: int, dim: int = 128, max_length: int = 200, blocks: int = 2, heads: int = 2, dropout: float = 0.2
    ) -> None:
        super().__init__(n_items, dim, max_length)
        self._stack(dropout, (Unit(dim, max_length, heads, dropout) for _ in range(blocks)))


class Unit(SequenceBlock):
    """One sequential transduction unit, see :class:`HSTU`.

    Args:
        dim: width.
        max_length: the longest history, so the number of distances that have a bias.
        heads: attention heads; divides ``dim``.
        dropout: rate before the last projection.
    """

    def __init__(self, dim: int, max_length: int, heads: int, dropout: float) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise DeshiError(f"HSTU got dim={dim} and heads={heads}, expected a dim that is a multiple of heads.")
        self.heads = heads
        # As in the program: norms without weights, a first projection without biases.
        self.norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.project_in = nn.Linear(dim, 4 * dim, bias=False)
        self.bias = nn.Parameter(torch.empty(max_length))
        nn.init.normal_(self.bias, std=0.02)
        self.attended_norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.project_out = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, L, dim)`` -> ``(B, L, dim)``."""
        gate, query, key, value = F.silu(self.project_in(self.norm(x))).chunk(4, dim=-1)
        positions = torch.arange(x.shape[1], device=x.device)
        return self._join(x, gate, self._attend(query, key, value, positions))

    def last(self, x: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`SequenceBlock.last`."""
        # the first half of the projection makes gate and query, the second key and value
        normed, (for_last, for_all) = self.norm(x), self.project_in.weight.chunk(2)
        gate, query = F.silu(F.linear(at_last(normed, lengths), for_last)).chunk(2, dim=-1)
        key, value = F.silu(F.linear(normed, for_all)).chunk(2, dim=-1)
        attended = self._attend(query[:, None], key, value, (lengths - 1)[:, None, None])
        return self._join(at_last(x, lengths), gate, attended[:, 0])

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Tensor:
        """Weighted sums of the values ``(B, Q, dim)`` for queries at ``positions``: ``(L,)``, or ``(B, 1, 1)``."""
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        # bias by the distance of query and key; later items (negative distances) get a weight of zero
        distance = positions[..., None] - torch.arange(key.shape[2], device=key.device)
        bias = torch.where(distance >= 0, self.bias[distance.clamp(min=0)], UNSEEN)
        weights = F.silu((query @ key.transpose(-1, -2)).add_(bias))  # pointwise: they needn't sum to one
        return (weights @ value).transpose(1, 2).flatten(2)

    def _join(self, x: Tensor, gate: Tensor, attended: Tensor) -> Tensor:
        """The residual sum: the attention's output, normalised and gated."""
        return cast(Tensor, x + self.project_out(self.dropout(gate * self.attended_norm(attended))))

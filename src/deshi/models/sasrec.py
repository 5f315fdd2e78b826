"""SASRec: self-attentive sequential recommendation."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from deshi.models.base import at_last
from deshi.models.blocks import BlockRecommender, SequenceBlock
from deshi.models.layers import CausalSelfAttention, Dropout, FeedForward
from deshi.types import DeshiError


class SASRec(BlockRecommender):
    """SASRec (Kang & McAuley, ICDM 2018, arXiv 1808.09781).

    The defaults follow later practice: layer norm before each sub-layer (Xiong et al., arXiv 2002.04745) with a
    final norm, GELU, and no dropout inside the attention. ``norm="original"`` gives the 2018 program's block: the
    query alone is normalised and added back, keys and values are not, and the feed-forward adds back its normalised
    input.

    Args:
        n_items: number of items.
        dim: width.
        max_length: number of latest items read.
        blocks: number of attention blocks.
        heads: attention heads; divides ``dim``.
        feed_forward: width of the feed-forward layer as a multiple of ``dim``.
        dropout: rate after the embedding and after each sub-layer.
        activation: of the feed-forward layer.
        norm: ``"pre"`` or ``"original"``.
        positions: ``"absolute"``, learned and counted from the history's beginning, or ``"rotary"``: inside the
            attention and relative (arXiv 2104.09864), so that nothing depends on where a long history was cut.
    """

    def __init__(
        self, n_items: int, dim: int = 128, max_length: int = 200, blocks: int = 2, heads: int = 2,
        feed_forward: float = 4.0, dropout: float = 0.2, activation: Literal["relu", "gelu", "silu"] = "gelu",
        norm: Literal["pre", "original"] = "pre", positions: Literal["absolute", "rotary"] = "absolute",
    ) -> None:  # fmt: skip
        super().__init__(n_items, dim, max_length)
        if positions not in ("absolute", "rotary"):
            raise DeshiError(f"{type(self).__name__} got positions={positions!r}, expected 'absolute' or 'rotary'.")
        rotary = positions == "rotary"
        self.positions = None if rotary else nn.Parameter(torch.empty(max_length, dim))
        if self.positions is not None:
            nn.init.normal_(self.positions, std=0.02)
        hidden = round(dim * feed_forward)
        self._stack(dropout, (Block(dim, heads, hidden, dropout, activation, norm, rotary) for _ in range(blocks)))

    def embed(self, items: Tensor) -> Tensor:
        """See :meth:`BlockRecommender.embed`; with absolute positions if there are any."""
        x = self.items(items) * self.dim**0.5
        if self.positions is not None:
            x = x + self.positions[: items.shape[1]]
        return cast(Tensor, self.dropout(x))


class Block(SequenceBlock):
    """One attention block, see :class:`SASRec`."""

    def __init__(
        self, dim: int, heads: int, hidden: int, dropout: float, activation: str, norm: str, rotary: bool
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = CausalSelfAttention(dim, heads, rotary)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden, activation, dropout)
        self.dropout = Dropout(dropout)
        self.original = norm == "original"

    def forward(self, x: Tensor) -> Tensor:
        """``(B, L, dim)`` -> ``(B, L, dim)``."""
        normed = self.attention_norm(x)
        return self._join(x, normed, self.attention(normed, x if self.original else None))

    def last(self, x: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`SequenceBlock.last`."""
        normed = self.attention_norm(x)
        query, latest = at_last(normed, lengths), at_last(x, lengths)
        attended = self.attention.last(query, x if self.original else normed, lengths)
        return self._join(latest, query, attended)

    def _join(self, x: Tensor, normed: Tensor, attended: Tensor) -> Tensor:
        """The residual sum: the attention's output, then the feed-forward's."""
        x = (normed if self.original else x) + self.dropout(attended)
        normed = self.feed_forward_norm(x)
        return cast(Tensor, (normed if self.original else x) + self.dropout(self.feed_forward(normed)))

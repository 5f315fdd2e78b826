"""LiGR: SASRec with learned gates on what its sub-layers add."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from deshi.models.layers import GatedFeedForward
from deshi.models.sasrec import Block, SASRec


class LiGR(SASRec):
    """SASRec with LiGR blocks (Borisyuk et al. 2025, arXiv 2502.03417), as eSASRec has them (arXiv 2508.06450).

    Both sub-layers read their input through a layer norm, and their output is multiplied by a sigmoid gate of the
    un-normalised input before it is added::

        x = x + sigmoid(G1 x) * attention(norm(x))
        x = x + sigmoid(G2 x) * swiglu(norm(x))

    eSASRec (Tikhonovich et al., RecSys 2025) is these blocks, SASRec's shifted targets and a sampled softmax: that is
    ``student=ligr loss=sampled_softmax`` here, and the full softmax where the catalogue allows it.

    Deviations: LiGR's paper ranks candidates with rich features and attends to whole sessions, here are item indices
    and a causal attention. Against RecTools' layers, which eSASRec used: no dropout inside the attention, so that
    PyTorch's fused kernel is taken; the feed-forward's layers have biases; positions count from the history's
    beginning, not from its end, or are rotary; a final norm.

    Args:
        n_items: number of items.
        dim: width.
        max_length: number of latest items read.
        blocks: number of blocks, each half as large again as SASRec's: it has 18 matrices of ``dim * dim`` where
            SASRec's has 12.
        heads: attention heads; divides ``dim``.
        feed_forward: width of the feed-forward's inner features as a multiple of ``dim``.
        dropout: rate after the embedding, after each sub-layer and inside the feed-forward.
        positions: ``"absolute"`` or ``"rotary"``, as :class:`~deshi.models.sasrec.SASRec`'s.
    """

    def __init__(
        self, n_items: int, dim: int = 128, max_length: int = 200, blocks: int = 2, heads: int = 2,
        feed_forward: float = 4.0, dropout: float = 0.2, positions: Literal["absolute", "rotary"] = "absolute",
    ) -> None:  # fmt: skip
        super().__init__(n_items, dim, max_length, blocks, heads, feed_forward, dropout, positions=positions)
        hidden, rotary = round(dim * feed_forward), positions == "rotary"
        self.blocks = nn.ModuleList(GatedBlock(dim, heads, hidden, dropout, rotary) for _ in range(blocks))


class GatedBlock(Block):
    """One block, see :class:`LiGR`: SASRec's pre-norm block with SwiGLU and a gate on each sub-layer."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, rotary: bool) -> None:
        super().__init__(dim, heads, hidden, dropout, "silu", "pre", rotary)
        self.feed_forward = GatedFeedForward(dim, hidden, "silu", dropout)
        self.attention_gate = nn.Linear(dim, dim)
        self.feed_forward_gate = nn.Linear(dim, dim)

    def _join(self, x: Tensor, normed: Tensor, attended: Tensor) -> Tensor:
        """The residual sum: the attention's output, then the feed-forward's, each times its gate."""
        x = x + torch.sigmoid(self.attention_gate(x)) * self.dropout(attended)
        update = self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return cast(Tensor, x + torch.sigmoid(self.feed_forward_gate(x)) * update)

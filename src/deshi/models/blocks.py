"""The base of networks that are a stack of blocks over the items' vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn

from deshi.models.base import SequentialRecommender
from deshi.models.layers import Dropout
from deshi.types import DeshiError


class SequenceBlock(nn.Module, ABC):
    """A causal layer over a history's positions."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """``(B, L, dim)`` -> ``(B, L, dim)``."""

    @abstractmethod
    def last(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The output of :meth:`forward` at each row's last position: ``(B, L, dim)`` -> ``(B, dim)``."""


class BlockRecommender(SequentialRecommender):
    """Scaled item vectors with dropout, a stack of blocks, a layer norm.

    A subclass calls :meth:`_stack` at the end of its constructor and may override :meth:`embed`.
    """

    dropout: Dropout
    blocks: nn.ModuleList
    norm: nn.LayerNorm

    def _stack(self, dropout: float, blocks: Iterable[SequenceBlock]) -> None:
        """Create the layers, in the order in which their initial weights are drawn."""
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(self.dim)
        if not len(self.blocks):
            raise DeshiError(f"{type(self).__name__} got blocks=0, expected at least 1.")

    def embed(self, items: Tensor) -> Tensor:
        """The blocks' input ``(B, L, dim)`` for histories ``(B, L)``."""
        return cast(Tensor, self.dropout(self.items(items) * self.dim**0.5))

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`SequentialRecommender.encode`."""
        x = self.embed(items)
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.norm(x))

    def encode_last(self, items: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`SequentialRecommender.encode_last`: the last block computes the last position alone."""
        x = self.embed(items)
        for block in self.blocks[:-1]:
            x = block(x)
        return cast(Tensor, self.norm(cast(SequenceBlock, self.blocks[-1]).last(x, lengths)))

"""Caser: convolutional sequence embedding recommendation."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deshi.models.base import SequentialRecommender
from deshi.models.layers import Dropout
from deshi.types import DeshiError


class Caser(SequentialRecommender):
    """Caser (Tang & Wang, WSDM 2018, arXiv 1809.07426), as a causal model that answers at every position.

    At each position, horizontal filters of every height slide over the latest ``window`` items and are max-pooled,
    vertical filters take weighted sums over those items, and a dense layer mixes both. Missing items before the
    history's beginning are zeros.

    Deviations from the paper: no user embedding (the student works for users it has never seen), and the item table
    is shared with the input, so the dense layer ends in a layer norm instead of a ReLU (with the shared table that
    learned several times faster). Every position is trained at once, each filter runs over a history once, and only
    the pooling is per window: the same features, without ``window`` copies.

    Args:
        n_items: number of items.
        dim: width of the item table and of the hidden states.
        max_length: number of latest items read; only ``window`` of them reach one hidden state.
        window: number of latest items that the filters see (the paper's L).
        horizontal: filters per height, for the heights 1 to ``window``.
        vertical: number of vertical filters.
        dropout: rate on the embeddings and on the filters' outputs.
    """

    def __init__(
        self, n_items: int, dim: int = 128, max_length: int = 200, window: int = 5, horizontal: int = 16,
        vertical: int = 4, dropout: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__(n_items, dim, max_length)
        for name, value in (("window", window), ("horizontal", horizontal), ("vertical", vertical)):
            if value < 1:
                raise DeshiError(f"Caser got {name}={value}, expected a positive number.")
        self.window = window
        self.horizontal = nn.ModuleList(nn.Conv1d(dim, horizontal, height) for height in range(1, window + 1))
        self.vertical = nn.Linear(window, vertical)
        self.mix = nn.Linear(window * horizontal + vertical * dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`SequentialRecommender.encode`."""
        x = self.dropout(self.items(items) * self.dim**0.5)
        x = F.pad(x.transpose(1, 2), (self.window - 1, 0))
        features = torch.cat([*self._horizontal(x), self._vertical(x)], dim=2)
        return cast(Tensor, self.norm(self.mix(self.dropout(features))))

    def _horizontal(self, x: Tensor) -> list[Tensor]:
        """Max-pooled filters of each height: ``(B, dim, window - 1 + L)`` -> ``window`` times ``(B, L, filters)``."""
        pooled = []
        for height, convolution in enumerate(self.horizontal, start=1):
            features = F.relu(convolution(x))
            pooled.append(F.max_pool1d(features, self.window - height + 1, stride=1).transpose(1, 2))
        return pooled

    def _vertical(self, x: Tensor) -> Tensor:
        """Weighted sums over each window: ``(B, dim, window - 1 + L)`` -> ``(B, L, dim * filters)``."""
        windows = x.unfold(2, self.window, 1)
        return cast(Tensor, self.vertical(windows)).transpose(1, 2).flatten(2)

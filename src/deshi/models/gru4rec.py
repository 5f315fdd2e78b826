"""GRU4Rec: recurrent sequential recommendation."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from deshi.models.base import SequentialRecommender
from deshi.models.layers import Dropout
from deshi.types import DeshiError


class GRU4Rec(SequentialRecommender):
    """GRU4Rec (Hidasi et al., ICLR 2016, arXiv 1511.06939).

    A GRU reads the history from its beginning. It is causal and padding comes last, so a padded batch needs no
    packing. Deviations from the paper: items enter by a learned embedding; the output shares that table and is
    layer-normed before it (the GRU's states lie in (-1, 1): without the norm, learning was several times slower); a
    whole window is trained at once instead of session-parallel steps; the loss is chosen apart from the network.

    Args:
        n_items: number of items.
        dim: width of the item table and of the hidden states that leave the student.
        max_length: number of latest items read.
        hidden: width of the recurrent state; a linear projection brings it to ``dim`` where the two differ.
        layers: number of stacked GRU layers.
        dropout: rate after the embedding and after each GRU layer.
    """

    def __init__(
        self, n_items: int, dim: int = 128, max_length: int = 200, hidden: int = 128, layers: int = 1,
        dropout: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__(n_items, dim, max_length)
        for name, value in (("hidden", hidden), ("layers", layers)):
            if value < 1:
                raise DeshiError(f"GRU4Rec got {name}={value}, expected a positive number.")
        widths = [dim] + [hidden] * layers
        self.layers = nn.ModuleList(
            nn.GRU(before, after, batch_first=True) for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.dropout = Dropout(dropout)
        self.project: nn.Module = nn.Identity() if hidden == dim else nn.Linear(hidden, dim)
        self.norm = nn.LayerNorm(dim)

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`SequentialRecommender.encode`."""
        x = self.dropout(self.items(items) * self.dim**0.5)
        for layer in self.layers:
            x = self.dropout(layer(x)[0])
        return cast(Tensor, self.norm(self.project(x)))

"""ItemKNN: the items that the same users had, by cosine."""

from __future__ import annotations

import torch
from torch import Tensor

from deshi.baselines._base import Baseline
from deshi.baselines._events import Events, distinct_items, user_item_matrix
from deshi.types import Batch, DeshiError

_BLOCK_NUMBERS = 32_000_000
"""Numbers of the largest temporary block of the fit: 128 MB."""

_VOTES = 2_000_000
"""Votes counted at a time."""


class ItemKNN(Baseline):
    """Every item of the history votes for its nearest neighbours with their similarity.

    The similarity of items ``i`` and ``j`` is ``n_ij / (sqrt(n_i n_j) + shrink)`` with ``n_ij`` the users that have
    both in training (Deshpande and Karypis 2004, https://doi.org/10.1145/963770.963776; the shrinkage follows common
    practice). Fitting costs (distinct user-item pairs) x (items).

    Args:
        neighbours: neighbours kept for each item.
        shrink: damps the similarity of items that few users have.
    """

    def __init__(self, neighbours: int = 100, shrink: float = 10.0) -> None:
        if neighbours < 1 or shrink < 0:
            raise DeshiError(f"ItemKNN got neighbours={neighbours} and shrink={shrink}, expected from 1 and from 0.")
        self.neighbours = neighbours
        self.shrink = shrink

    def _fit(self, events: Events) -> None:
        matrix = user_item_matrix(events)
        transposed = matrix.t().coalesce()
        norms = torch.sparse.sum(matrix, dim=0).to_dense().sqrt()  # sqrt(n_i): a 0/1 column's length
        width = max(1, _BLOCK_NUMBERS // max(events.n_users, events.n_items))
        blocks = [self._nearest(matrix, transposed, norms, part) for part in torch.arange(events.n_items).split(width)]
        self._similarity, self._neighbours = (torch.cat(parts) for parts in zip(*blocks, strict=True))

    def _nearest(self, matrix: Tensor, transposed: Tensor, norms: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Similarities and numbers ``(len(items), neighbours)`` of the nearest items."""
        # n_ij of a block of items i with all items j: rows of X'X
        common_users = torch.sparse.mm(transposed, matrix.index_select(1, items).to_dense()).T
        similarity = common_users / (norms[items, None] * norms + self.shrink).clamp(min=1e-12)
        similarity[torch.arange(len(items)), items] = 0.0  # no item is its own neighbour
        best = torch.topk(similarity, min(self.neighbours, similarity.shape[1]))
        return best.values, best.indices

    def _scores(self, batch: Batch) -> Tensor:
        # votes are added up in a flat matrix: row * n_items + item is the position of a row's item
        flat = torch.zeros(len(batch.items) * self.n_items)
        step = max(1, _VOTES // self._neighbours.shape[1])
        for rows, items in zip(*(part.split(step) for part in distinct_items(batch, self.n_items)), strict=True):
            positions = rows[:, None] * self.n_items + self._neighbours[items]
            flat.index_add_(0, positions.flatten(), self._similarity[items].flatten())
        return flat.view(len(batch.items), self.n_items)

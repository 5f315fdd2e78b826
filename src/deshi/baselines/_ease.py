"""EASE: the linear item-item model with a closed form."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from deshi.baselines._base import Baseline
from deshi.baselines._events import Events, distinct_items, user_item_matrix
from deshi.types import Batch, DeshiError

_USERS = 1024
"""Users of a block of the fit."""


class EASE(Baseline):
    """Ridge regression of every item on all the others, with a zero diagonal (Steck 2019, arXiv 1905.03375).

    With ``X`` the 0/1 matrix of users and items and ``P = (X'X + regularisation I)^-1``, the weights are
    ``B = I - P / diag(P)`` and a history ``x`` scores ``x B``. The order of the history is not used.

    Args:
        regularisation: the ridge; larger for more users per item.

    Attributes:
        max_items: above this the dense (items x items) inverse takes several gigabytes and many minutes.
    """

    max_items: ClassVar[int] = 20_000

    def __init__(self, regularisation: float = 250.0) -> None:
        if regularisation <= 0:
            raise DeshiError(f"EASE got regularisation={regularisation}, expected a number above 0.")
        self.regularisation = regularisation

    def _fit(self, events: Events) -> None:
        size = events.n_items
        if size > self.max_items:
            raise DeshiError(
                f"EASE inverts a dense ({size} x {size}) matrix, {size * size * 4 / 1e9:.1f} GB a copy; it is limited "
                f"to {self.max_items} items. Use itemknn, markov or popularity as the baseline for this catalogue."
            )
        gram = _gram(user_item_matrix(events))  # X'X
        gram.diagonal().add_(self.regularisation)
        # P = (X'X + regularisation I)^-1, by Cholesky, since the matrix is positive definite.
        # LAPACK's result is in column order and symmetric: the transpose is the same matrix in row order.
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram)).mT.contiguous()
        del gram
        # B_ij = -P_ij / P_jj off the diagonal; no item predicts itself, so that B_jj = 0
        weights = inverse.div_(-inverse.diagonal().clone())
        weights.diagonal().zero_()
        self._weights = weights

    def _scores(self, batch: Batch) -> Tensor:
        # x B is the sum of the rows of B that belong to the history's items
        rows, items = distinct_items(batch, self.n_items)
        begins = torch.searchsorted(rows, torch.arange(len(batch.items)))
        return torch.nn.functional.embedding_bag(items, self._weights, begins, mode="sum")


def _gram(matrix: Tensor) -> Tensor:
    """``X'X`` dense ``(n_items, n_items)``, as the sum of ``X_b' X_b`` over blocks ``b`` of users."""
    n_users, n_items = matrix.shape
    gram = torch.zeros(n_items, n_items)
    bounds = torch.searchsorted(matrix.indices()[0].contiguous(), torch.arange(0, n_users + _USERS, _USERS))
    for block, (begin, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        users, items = matrix.indices()[:, begin:end]
        rows = users - block * _USERS
        dense = torch.zeros(_USERS, n_items)
        dense[rows, items] = 1.0
        indices = torch.stack([items, rows])
        transposed = torch.sparse_coo_tensor(indices, torch.ones(len(items)), (n_items, _USERS), check_invariants=False)
        gram += torch.sparse.mm(transposed, dense)
    return gram

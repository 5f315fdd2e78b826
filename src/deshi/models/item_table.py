"""Item tables: the vectors of the items, as a network's input and as its scoring vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ItemTable(nn.Module, ABC):
    """The vectors ``(n_items, dim)`` of the items, trained or made from something else."""

    @abstractmethod
    def forward(self, items: Tensor) -> Tensor:
        """Vectors for item indices of any shape, zeros for ``-1``: ``(...)`` -> ``(..., dim)``."""

    @abstractmethod
    def table(self) -> Tensor:
        """All items' vectors ``(n_items, dim)``."""

    def merged(self) -> ItemTable:
        """The table as it is kept: itself, or plain numbers where only training needs what they are made of."""
        return self

    def numbers(self) -> ItemEmbedding:
        """The vectors that :meth:`table` has in evaluation, as plain numbers; a table of plain numbers is itself."""
        training = self.training
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            table = self.eval().table()
            self.train(training)
            items = ItemEmbedding(*table.shape).to(table.device)
            items.weight[1:] = table
        return items

    def text_vectors(self) -> Tensor | None:
        """``(n_items, D)`` the language model's vectors that the table is made of, None if it isn't."""
        return None


class ItemEmbedding(ItemTable):
    """An item table of trained numbers whose padding can't be mistaken for an item.

    ``weight`` is ``(n_items + 1, dim)``; row 0 belongs to padding (index ``-1``) and stays zero, row ``i + 1`` to
    item ``i``. Rows start normal with standard deviation 0.02.

    Attributes:
        sparse: whether the gradient of ``weight`` is sparse, with the rows alone that were read. It stays so if all
            that read :meth:`table` give it sparse gradients, such as ``F.embedding(items, table, sparse=True)``.
    """

    sparse = False

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_items + 1, dim))
        nn.init.normal_(self.weight, std=0.02)
        with torch.no_grad():
            self.weight[0].zero_()

    def forward(self, items: Tensor) -> Tensor:
        """See :class:`ItemTable`."""
        # A sparse gradient leaves the padding's row out by a search for which a device would have to be waited for.
        # There it stays in: nothing learns from padding, so that it is zero.
        padding = None if self.sparse and items.device.type != "cpu" else 0
        return F.embedding(items + 1, self.weight, padding_idx=padding, sparse=self.sparse)

    def numbers(self) -> ItemEmbedding:
        """Itself."""
        return self

    def table(self) -> Tensor:
        """The items' rows without the padding's: ``(n_items, dim)``."""
        rows: Tensor = _WithoutPadding.apply(self.weight) if self.sparse else self.weight[1:]
        return rows


class _WithoutPadding(torch.autograd.Function):
    """``weight[1:]`` that hands a sparse gradient on as a sparse one, where slicing would fill it up with zeros."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return weight[1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        if not grad.is_sparse:
            return F.pad(grad, (0, 0, 1, 0))
        shape = (grad.shape[0] + 1, *grad.shape[1:])
        return torch.sparse_coo_tensor(grad._indices() + 1, grad._values(), shape, check_invariants=False)

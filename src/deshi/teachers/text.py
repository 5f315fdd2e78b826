"""The text teacher: a sequence model over the items' texts, alone or with an ID table added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from deshi.configuration.needs import Need
from deshi.models.item_table import ItemEmbedding, ItemTable
from deshi.models.layers import Dropout
from deshi.models.sasrec import SASRec
from deshi.teachers.base import Resources
from deshi.teachers.item_embeddings import ItemEmbeddings, vectors_of_items

START = 0.05
"""Standard deviation of the adapted vectors before training: that of an ID table a few steps old."""


class Text(SASRec):
    """SASRec over frozen text embeddings of the items and an adapter, by default without any ID table.

    What UniSRec (Hou et al., KDD 2022, arXiv 2206.05941) does with a whitened language model's embeddings, with a
    two-layer adapter in the place of its mixture of experts. It knows nothing of an item but its text, so that it errs
    in other places than an ID model: the partner for an ensemble (EnsRec, arXiv 2512.17820).

    Args:
        n_items: number of items.
        resources: data and cache.
        embeddings: how the items' vectors are made; null is MiniLM over the titles.
        dim: width.
        max_length: number of latest items read.
        blocks: number of attention blocks.
        heads: attention heads.
        feed_forward: width of the feed-forward layer as a multiple of ``dim``.
        dropout: rate after the embedding and after each sub-layer.
        adapter: width of the adapter's hidden layer.
        adapter_dropout: rate inside the adapter.
        positions: as :class:`~deshi.models.sasrec.SASRec`'s.
        offsets: whether a trained offset for each item is added to its adapted text: a model of text and ID in one.
    """

    def __init__(
        self,
        n_items: int,
        resources: Resources,
        embeddings: ItemEmbeddings | None = None,
        dim: int = 128,
        max_length: int = 200,
        blocks: int = 2,
        heads: int = 2,
        feed_forward: float = 4.0,
        dropout: float = 0.2,
        adapter: int = 256,
        adapter_dropout: float = 0.1,
        positions: Literal["absolute", "rotary"] = "absolute",
        offsets: bool = False,
    ) -> None:
        super().__init__(n_items, dim, max_length, blocks, heads, feed_forward, dropout, positions=positions)
        embeddings = embeddings or ItemEmbeddings()
        vectors, self.described = vectors_of_items(embeddings, resources, n_items)
        self.items = TextTable(vectors, dim, adapter, adapter_dropout, offsets)

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> list[Need]:
        """Those of the default embeddings, if none are given."""
        return [] if arguments.get("embeddings") else ItemEmbeddings.needs({})

    def describe(self) -> dict[str, Any]:
        """The encoder, for the run's record."""
        return {"encoder": self.described}


class TextTable(ItemTable):
    """Items' vectors made from their texts' by two layers, in the place of an ID table.

    Args:
        vectors: ``(n_items, D)`` the frozen embeddings; scaled to mean 0 and mean square 1 over all numbers' columns.
        dim: width of the output.
        hidden: width between the layers.
        dropout: rate between the layers.
        offsets: whether a trained offset for each item is added.
    """

    vectors: Tensor

    def __init__(self, vectors: Tensor, dim: int, hidden: int, dropout: float, offsets: bool = False) -> None:
        super().__init__()
        centred = vectors.float() - vectors.float().mean(0)
        self.register_buffer("vectors", centred / centred.pow(2).mean().sqrt().clamp(min=1e-12))
        self.expand = nn.Linear(vectors.shape[1], hidden)
        self.contract = nn.Linear(hidden, dim)
        self.activation = nn.GELU()
        self.dropout = Dropout(dropout)
        nn.init.zeros_(self.contract.bias)
        self.offset = ItemEmbedding(len(vectors), dim) if offsets else None
        with torch.no_grad():
            self.contract.weight.mul_(START / self._adapt(self.vectors).std().clamp(min=1e-12))

    def forward(self, items: Tensor) -> Tensor:
        """Vectors for item indices of any shape, zeros for ``-1``: ``(...)`` -> ``(..., dim)``."""
        adapted = self._adapt(self.vectors[items.clamp(min=0)]).masked_fill((items < 0)[..., None], 0.0)
        return adapted if self.offset is None else adapted + self.offset(items)

    def table(self) -> Tensor:
        """``(n_items, dim)``."""
        adapted = self._adapt(self.vectors)
        return adapted if self.offset is None else adapted + self.offset.table()

    def text_vectors(self) -> Tensor:
        """``(n_items, D)`` the frozen embeddings, centred and scaled."""
        return self.vectors

    def _adapt(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.contract(self.dropout(self.activation(self.expand(x)))))

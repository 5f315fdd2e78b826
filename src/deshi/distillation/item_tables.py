"""Item tables made of the teacher's item vectors.

Built as ``build(node, n_items=..., dim=..., embeddings=...)`` and assigned to
:attr:`deshi.models.base.SequentialRecommender.items`. Either kind ends as a plain
:class:`~deshi.models.item_table.ItemEmbedding`, so that inference needs no teacher.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deshi.distillation.embedding import distinct_items
from deshi.models.item_table import ItemEmbedding, ItemTable
from deshi.models.layers import Dropout
from deshi.teachers.whitening import pca, whiten
from deshi.types import PAD, DeshiError


def InitialisedItemTable(  # noqa: N802 - a config's _target_ names it as it names a class
    n_items: int,
    dim: int,
    embeddings: Tensor,
    method: Literal["pca", "whiten"] = "pca",
    scale: float = 0.02,
) -> ItemEmbedding:
    """An ordinary item table that starts at the teacher's vectors instead of at random ones.

    LLM2BERT4Rec (Harte et al., RecSys 2023, https://arxiv.org/abs/2309.09261) starts from the PCA of a language model's
    vectors; whitening instead gives every direction the same weight. Scaling the whole table to the deviation of a
    random one is ours, so that the student's other settings keep their meaning; where the vectors are narrower than
    the table, its last columns start at random.

    Args:
        n_items: number of items.
        dim: width of the table.
        embeddings: ``(n_items, D)`` the teacher's vectors.
        method: ``pca`` keeps the variances of the first ``dim`` components, ``whiten`` makes them equal.
        scale: standard deviation of the table's numbers.

    Raises:
        DeshiError: for vectors of another number of items or without any difference between items, or a ``scale``
            that isn't positive.
    """
    if not scale > 0:
        raise DeshiError(f"The item table got scale={scale}, expected a positive standard deviation.")
    vectors = _checked(embeddings, n_items)
    width = min(dim, vectors.shape[1])
    components = (whiten if method == "whiten" else pca)(vectors, width)
    items = ItemEmbedding(n_items, dim)
    with torch.no_grad():
        items.weight.mul_(scale / 0.02)
        items.weight[1:, :width] = components * (scale / components.pow(2).mean().sqrt())
    return items


class ItemTableAdapter(ItemTable):
    """The sum of an adapter of the teacher's frozen vectors and a trainable offset for each item.

    Collaborative embedding distillation of DLLM2Rec (Cui et al., RecSys 2024, https://arxiv.org/abs/2405.00338): an
    item is ``f(g(z_i), b_i)`` with ``f`` the sum. Deviations: the vectors are centred and scaled first, ``g`` is scaled
    so that training starts at ``scale``, and the same table scores (in the released program the output has a table of
    its own).

    Args:
        n_items: number of items.
        dim: width of the table.
        embeddings: ``(n_items, D)`` the teacher's vectors; scaled to mean 0 and mean square 1.
        hidden: width of the adapter's hidden layer (GELU); None makes the adapter one linear layer.
        dropout: rate before the adapter's last layer.
        scale: standard deviation of the adapted vectors before training.
        offset: standard deviation of the offsets before training; 0 starts from the teacher's vectors alone.

    Raises:
        DeshiError: for vectors of another number of items or without any difference between items, or a number out of
            its range.
    """

    vectors: Tensor

    def __init__(
        self, n_items: int, dim: int, embeddings: Tensor, hidden: int | None = 256, dropout: float = 0.0,
        scale: float = 0.02, offset: float = 0.02,
    ) -> None:  # fmt: skip
        super().__init__()
        if (hidden is not None and hidden < 1) or not scale > 0 or not offset >= 0:
            raise DeshiError(
                f"The item table got hidden={hidden}, scale={scale}, offset={offset}, expected a positive width or "
                "null, a positive standard deviation, and one of 0 or more."
            )
        vectors = _checked(embeddings, n_items)
        centred = vectors - vectors.mean(0)
        self.register_buffer("vectors", centred / centred.pow(2).mean().sqrt())
        self.offset = ItemEmbedding(n_items, dim)
        first = [] if hidden is None else [nn.Linear(vectors.shape[1], hidden), nn.GELU()]
        last = nn.Linear(hidden or vectors.shape[1], dim)
        self.adapter = nn.Sequential(*first, Dropout(dropout), last)
        nn.init.zeros_(last.bias)
        with torch.no_grad():
            self.offset.weight.mul_(offset / 0.02)
            self.adapter.eval()
            last.weight.mul_(scale / self.adapter(self.vectors).std())
            self.adapter.train()

    def forward(self, items: Tensor) -> Tensor:
        """Vectors for item indices of any shape, zeros for ``-1``: ``(...)`` -> ``(..., dim)``."""
        distinct, inverse = distinct_items(items, len(self.vectors))  # each item is adapted once
        adapted = F.embedding(inverse, self.adapter(self.vectors[distinct]))
        return adapted.masked_fill((items == PAD)[..., None], 0.0) + self.offset(items)

    def table(self) -> Tensor:
        """``(n_items, dim)``."""
        return cast(Tensor, self.adapter(self.vectors)) + self.offset.table()

    def text_vectors(self) -> Tensor:
        """``(n_items, D)`` the teacher's vectors, centred and scaled."""
        return self.vectors

    def merged(self) -> ItemEmbedding:
        """An ordinary item table: the teacher's vectors are needed in training alone."""
        return self.numbers()


def _checked(embeddings: Tensor, n_items: int) -> Tensor:
    """The vectors in fp32, if there is one for every item and they differ."""
    if embeddings.dim() != 2 or len(embeddings) != n_items:
        raise DeshiError(
            f"The item table got item vectors of shape {tuple(embeddings.shape)}, expected ({n_items}, D), one row "
            "for each item. Write the soft labels from a teacher on the same bundle."
        )
    vectors = embeddings.detach().float()
    bad = int((~vectors.isfinite()).any(1).sum())
    if bad or not bool((vectors != vectors[:1]).any()):
        raise DeshiError(
            f"The item table got item vectors of which {bad} of {n_items} aren't finite"
            f"{'' if bad else ' and all are the same'}, expected numbers that tell items apart. Check the teacher."
        )
    return vectors

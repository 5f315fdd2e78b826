"""Feature distillation: the student's vectors projected onto the teacher's vectors of the items."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deshi.distillation.list_losses import check_positive, listed_mean
from deshi.distillation.soft_label_batches import SoftLabelBatch
from deshi.distillation.term import Context, HiddenTerm


class EmbeddingMatch(HiddenTerm):
    """The student's vectors, through a learned linear projection, drawn to the teacher's vectors of the items.

    Hints (FitNets, Romero et al. 2015, https://arxiv.org/abs/1412.6550) for recommenders. With ``of="items"`` the
    student's rows of the item table are projected onto the teacher's vectors of the same items: those on the teacher's
    list, so that items are weighted by how often the teacher recommends them. With ``of="hidden"`` the hidden state is
    projected onto the mean of the listed items' vectors, what the teacher expects next. With ``of="users"`` it is
    projected onto the vector of the user's profile, a text that a language model has written about the user (after
    LLM-KT, Severin et al. 2024, arXiv 2411.00556, which does so with a layer inside); a position of a user without one
    has the value 0. The projection goes from the student to the teacher, as FitNets' does, and isn't kept after
    training.

    InfoNCE (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748) asks a projected vector to be nearer, by
    cosine, to its own target than to other targets of the batch, which are compared in groups of at most ``contrast``.

    Args:
        loss: ``mse`` (mean over the dimensions), ``cosine`` (1 minus the cosine) or ``infonce``.
        of: what is projected: ``items``, or states, onto the expected items (``hidden``) or the profile (``users``).
        top_k: items of each list that are taken; None takes what the store has.
        temperature: of ``infonce``.
        contrast: size of the groups of ``infonce``.
        weight, final_weight: see :class:`deshi.distillation.term.Term`.
    """

    vectors: Tensor
    has_profile: Tensor

    def __init__(
        self, loss: Literal["mse", "cosine", "infonce"] = "mse", of: Literal["items", "hidden", "users"] = "items",
        top_k: int | None = 10, temperature: float = 0.1, contrast: int = 512, weight: float = 1.0,
        final_weight: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(weight, final_weight)
        check_positive("EmbeddingMatch", top_k=top_k, temperature=temperature, contrast=contrast)
        self.loss, self.of, self.top_k = loss, of, top_k
        self.temperature, self.contrast = temperature, contrast

    def prepare(self, context: Context) -> None:
        """Take the teacher's vectors and create the projection."""
        super().prepare(context)
        if self.of == "users":
            vectors = context.needed_profiles("EmbeddingMatch")
            has_profile = vectors.any(1)
            vectors = torch.zeros_like(vectors).index_put((has_profile,), standardised(vectors[has_profile]))
            self.register_buffer("has_profile", has_profile, persistent=False)
        else:
            vectors = standardised(context.needed_embeddings("EmbeddingMatch"))
        self.register_buffer("vectors", vectors, persistent=False)
        self.projection = nn.Linear(context.dim, vectors.shape[1])

    def forward(self, hidden: Tensor, table: Tensor, soft_labels: SoftLabelBatch) -> Tensor:
        """See :class:`~deshi.distillation.term.HiddenTerm`."""
        if self.of == "users":
            users = soft_labels.users
            assert users is not None
            return self._losses(self.projection(hidden), self.vectors[users]) * self.has_profile[users]
        labels = soft_labels.top(self.top_k)
        items, listed = labels.items, labels.listed
        if self.of == "hidden":
            weights = listed / listed.sum(1, keepdim=True).clamp(min=1)
            targets = F.embedding_bag(items.clamp(min=0), self.vectors, per_sample_weights=weights, mode="sum")
            return self._losses(self.projection(hidden), targets)
        items, inverse = distinct_items(items, len(table))
        return listed_mean(self._losses(self.projection(table[items]), self.vectors[items])[inverse], listed)

    def _losses(self, projected: Tensor, targets: Tensor) -> Tensor:
        """The loss ``(M,)`` of each projected vector ``(M, D)`` against its target ``(M, D)``."""
        if self.loss == "mse":
            return (projected - targets).square().mean(1)
        projected, targets = F.normalize(projected.float(), dim=1), F.normalize(targets.float(), dim=1)
        if self.loss == "cosine":
            return 1 - (projected * targets).sum(1)
        losses, groups = projected.new_zeros(len(projected)), -(-len(projected) // self.contrast)
        for first in range(groups):  # every groups-th, since neighbours may be alike
            part = slice(first, None, groups)
            logits = projected[part] @ targets[part].T / self.temperature
            positives = torch.arange(len(logits), device=logits.device)
            losses[part] = F.cross_entropy(logits, positives, reduction="none")
        return losses


def standardised(vectors: Tensor) -> Tensor:
    """Vectors ``(N, D)`` with mean 0 and mean square 1 over all their numbers, so that weights of terms compare."""
    centred = vectors.float() - vectors.float().mean(0)
    return centred / centred.square().mean().sqrt().clamp(min=1e-12)


def distinct_items(items: Tensor, n_items: int) -> tuple[Tensor, Tensor]:
    """The distinct items ``(U,)`` of lists of any shape, and the index of each list entry among them.

    On other devices than a CPU, which would have to be waited for, it is the catalogue or all list entries, whichever
    is shorter. ``PAD`` becomes item 0: its values mean nothing.
    """
    items = items.clamp(min=0)
    if items.device.type == "cpu":
        distinct, inverse = items.unique(return_inverse=True)
        return distinct, inverse
    if n_items <= items.numel():
        return torch.arange(n_items, device=items.device), items
    return items.flatten(), torch.arange(items.numel(), device=items.device).view(items.shape)

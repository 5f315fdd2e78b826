"""Distillation experts: the teacher's item vectors through a mixture of experts for each item."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deshi.distillation.embedding import distinct_items, standardised
from deshi.distillation.list_losses import check_positive, listed_mean
from deshi.distillation.soft_label_batches import SoftLabelBatch
from deshi.distillation.term import Context, HiddenTerm
from deshi.losses.random_stream import RandomStream


class DE(HiddenTerm):
    """The embedding part of DE-RRD (Kang et al., CIKM 2020, https://arxiv.org/abs/2012.04357).

    ``||z_i - sum_m a_m(z_i) E_m(v_i)||^2`` between the teacher's vector ``z_i`` and the student's ``v_i`` of an item:
    ``E_m`` are two-layer networks (ReLU) as wide as the mean of both widths inside, ``a`` a selection by Gumbel-softmax
    (Jang et al. 2017, https://arxiv.org/abs/1611.01144) over ``softmax(W z_i)``. None of it is kept after training.

    Deviations: of items alone, as a teacher has no vectors of users; those on the teacher's list; the mean over the
    dimensions instead of the sum, so that weights of terms compare; the temperature stays, where the paper lets it
    fall from 1 to nearly 0, so that the experts stay mixed.

    Args:
        experts: number of experts; 1 is a plain two-layer projection.
        temperature: of the selection.
        top_k: items of each list that are taken; None takes what the store has.
        weight, final_weight: see :class:`deshi.distillation.term.Term`.
    """

    vectors: Tensor

    def __init__(
        self, experts: int = 5, temperature: float = 1.0, top_k: int | None = 10, weight: float = 1.0,
        final_weight: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(weight, final_weight)
        check_positive("DE", experts=experts, temperature=temperature, top_k=top_k)
        self.experts, self.temperature, self.top_k = experts, temperature, top_k
        self.random = RandomStream()

    def reseed(self, seed: list[int]) -> None:
        """See :meth:`~deshi.distillation.term.Term.reseed`."""
        self.random.reseed(seed)

    def prepare(self, context: Context) -> None:
        """Take the teacher's vectors and create the experts and the selection."""
        super().prepare(context)
        vectors = standardised(context.needed_embeddings("DE"))
        self.register_buffer("vectors", vectors, persistent=False)
        width, inside = vectors.shape[1], (context.dim + vectors.shape[1]) // 2
        # all experts as one network: the second layers act on an item's inside vectors weighted by the selection
        self.inside = nn.Linear(context.dim, self.experts * inside)
        self.outside = nn.Linear(self.experts * inside, width, bias=False)
        self.bias = nn.Parameter(torch.zeros(self.experts, width))
        self.select = nn.Linear(width, self.experts)
        with torch.no_grad():
            self.outside.weight.mul_(self.experts**0.5)  # the spread that experts of their own width would have

    def forward(self, hidden: Tensor, table: Tensor, soft_labels: SoftLabelBatch) -> Tensor:
        """See :class:`~deshi.distillation.term.HiddenTerm`."""
        labels = soft_labels.top(self.top_k)
        items, inverse = distinct_items(labels.items, len(table))
        targets = self.vectors[items]
        shares = self._selection(targets)
        # every expert's first layer, weighted by the item's share of that expert, through all second layers at once
        inside = torch.relu(self.inside(table[items])).unflatten(1, (self.experts, -1)) * shares[:, :, None]
        outputs = self.outside(inside.flatten(1)) + shares @ self.bias
        return listed_mean((outputs - targets).square().mean(1)[inverse], labels.listed)

    def _selection(self, targets: Tensor) -> Tensor:
        """The experts' shares ``(U, experts)`` for items whose vectors are ``targets`` ``(U, D)``."""
        logits = self.select(targets).log_softmax(1)
        exponential = torch.empty_like(logits).exponential_(generator=self.random.generator(logits.device))
        return ((logits - exponential.clamp(min=1e-12).log()) / self.temperature).softmax(1)  # -log Exp(1) is Gumbel

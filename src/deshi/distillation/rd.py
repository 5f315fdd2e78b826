"""Ranking distillation: the teacher's best items as further positives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from deshi.distillation.list_losses import check_positive, rank_weights
from deshi.distillation.score_chunk import ScoreChunk
from deshi.distillation.term import ScoreTerm


class RD(ScoreTerm):
    """Ranking distillation (Tang & Wang, KDD 2018, https://arxiv.org/abs/1809.07428).

    The value is ``-sum_r w_r log sigmoid(s_r)`` over the teacher's K best items, ``r = 1 .. K``. The weight is the
    product of the position's importance, ``exp(-r / decay)`` normalised over the list, and of the ranking discrepancy,
    ``tanh(max(mu * (R_r - r), 0))``, where the student's rank ``R_r`` is estimated, as in the paper, from the share of
    randomly drawn items that the student scores higher. As in the authors' program (graytowne/rank_distill) the
    product isn't normalised again. Deviation: the program weighs by position alone in its first epochs.

    Args:
        top_k: length of the teacher's list.
        decay: the paper's lambda.
        mu: sharpness of the ranking discrepancy; None weighs by position alone.
        samples: items drawn to estimate the student's ranks.
        weight, final_weight: see :class:`deshi.distillation.term.Term`.
    """

    def __init__(
        self, top_k: int = 10, decay: float = 1.0, mu: float | None = 0.1, samples: int = 100, weight: float = 1.0,
        final_weight: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(weight, final_weight)
        check_positive("RD", top_k=top_k, decay=decay, mu=mu, samples=samples)
        self.top_k, self.decay, self.mu, self.samples = top_k, decay, mu, samples

    def forward(self, chunk: ScoreChunk) -> Tensor:
        """See :class:`~deshi.distillation.term.ScoreTerm`."""
        labels = chunk.soft_labels.top(self.top_k)
        items, listed = labels.items, labels.listed
        scores = chunk.scores_of(items)
        weights = rank_weights(listed, self.decay)
        if self.mu is not None:
            ranks = torch.arange(1, items.shape[1] + 1, device=items.device)
            weights = weights * torch.tanh((self.mu * (self._ranks(chunk, scores.detach()) - ranks)).clamp(min=0.0))
        return (weights * F.softplus(-scores)).sum(1)

    def _ranks(self, chunk: ScoreChunk, scores: Tensor) -> Tensor:
        """The student's estimated ranks ``(C, K)``, 1 for the best, of items with ``scores`` ``(C, K)``."""
        shape, device = (len(chunk), self.samples), scores.device
        drawn = torch.randint(chunk.n_items, shape, generator=chunk.generator, device=device)
        above = (chunk.scores.gather(1, drawn)[:, None, :] > scores[:, :, None]).sum(2)
        return torch.floor(above * (chunk.n_items - 1) / self.samples) + 1

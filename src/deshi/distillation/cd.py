"""Collaborative distillation: a soft label for each of the teacher's items."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from deshi.distillation.list_losses import check_positive, rank_weights
from deshi.distillation.score_chunk import ScoreChunk
from deshi.distillation.term import ScoreTerm


class CD(ScoreTerm):
    """Collaborative distillation (Lee et al., ICDM 2019, https://arxiv.org/abs/1911.05276).

    The value is ``-sum_r p_r (q_r log sigmoid(s_r) + (1 - q_r) log(1 - sigmoid(s_r)))`` over the teacher's list, with
    soft labels ``q_r = sigmoid((t_r + offset) / temperature)``.

    Deviations: items aren't drawn with the probabilities ``p_r ~ exp(-r / decay)``, but weighted by them, which is the
    expectation of the draw without its noise. A store has no scores beyond its lists, so that ``guide="student"`` ranks
    by the student what the teacher lists, not the whole catalogue. ``offset=None`` and ``labels="ranks"`` are ours, for
    scores whose level, or scale too, means nothing.

    Args:
        top_k: length of the teacher's list; None takes what the store has.
        decay: ranks over which the weight falls by the factor e.
        guide: the model whose ranking the weights follow.
        labels: ``scores``, or ``ranks``: ``q_r = exp(-(r - 1) / decay)`` by the teacher's ranking.
        temperature: of soft labels from scores.
        offset: of soft labels from scores; None takes each list's mean score away.
        weight, final_weight: see :class:`deshi.distillation.term.Term`.
    """

    reads_few_scores = True

    def __init__(
        self, top_k: int | None = None, decay: float = 20.0, guide: Literal["teacher", "student"] = "teacher",
        labels: Literal["scores", "ranks"] = "scores", temperature: float = 1.0, offset: float | None = None,
        weight: float = 1.0, final_weight: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(weight, final_weight)
        check_positive("CD", top_k=top_k, decay=decay, temperature=temperature)
        self.top_k, self.decay, self.guide, self.labels = top_k, decay, guide, labels
        self.temperature, self.offset = temperature, offset
        if labels == "scores":
            self.needs_calibrated_scores = True

    def forward(self, chunk: ScoreChunk) -> Tensor:
        """See :class:`~deshi.distillation.term.ScoreTerm`."""
        labels = chunk.soft_labels.top(self.top_k)
        items, listed = labels.items, labels.listed
        scores = chunk.scores_of(items)
        weights = rank_weights(listed, self.decay)
        if self.guide == "student":
            order = scores.detach().masked_fill(~listed, -torch.inf).argsort(1, descending=True)
            weights = torch.zeros_like(weights).scatter_(1, order, weights)
        item_labels = self._labels(labels.log_scores, listed)
        return (weights * F.binary_cross_entropy_with_logits(scores, item_labels, reduction="none")).sum(1)

    def _labels(self, scores: Tensor, listed: Tensor) -> Tensor:
        """The probabilities ``(C, K)`` that are the listed items' soft labels."""
        if self.labels == "ranks":
            ranks = torch.arange(scores.shape[1], device=scores.device, dtype=scores.dtype)
            return (-ranks / self.decay).exp().expand(scores.shape)
        level = -scores.masked_fill(~listed, 0.0).sum(1, keepdim=True) / listed.sum(1, keepdim=True).clamp(min=1)
        return torch.sigmoid((scores + (level if self.offset is None else self.offset)) / self.temperature)

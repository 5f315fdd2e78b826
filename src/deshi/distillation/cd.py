"""Collaborative distillation: soft labels for the teacher's items, one by one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from deshi.distillation.chunk import Chunk
from deshi.distillation.list_losses import SCALED, check_positive, log_scores, place_weights, top
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
        decay: places over which the weight falls by the factor e.
        guide: whose ranking the weights follow.
        labels: ``scores``, or ``ranks``: ``q_r = exp(-(r - 1) / decay)`` by the teacher's ranking.
        temperature: of soft labels from scores.
        offset: of soft labels from scores; None takes each list's mean score away.
        weight: see :class:`deshi.distillation.term.Term`.
        final_weight: see :class:`deshi.distillation.term.Term`.
    """

    def __init__(
        self,
        top_k: int | None = None,
        decay: float = 20.0,
        guide: Literal["teacher", "student"] = "teacher",
        labels: Literal["scores", "ranks"] = "scores",
        temperature: float = 1.0,
        offset: float | None = None,
        weight: float = 1.0,
        final_weight: float | None = None,
    ) -> None:
        super().__init__(weight, final_weight)
        check_positive("CD", top_k=top_k, decay=decay, temperature=temperature)
        self.top_k, self.decay, self.guide, self.labels = top_k, decay, guide, labels
        self.temperature, self.offset = temperature, offset
        if labels == "scores":
            self.kinds = SCALED

    def forward(self, chunk: Chunk) -> Tensor:
        """See :class:`~deshi.distillation.term.ScoreTerm`."""
        items, listed = top(chunk.signal, self.top_k)
        scores = chunk.at(items)
        weights = place_weights(listed, self.decay)
        if self.guide == "student":
            order = scores.detach().masked_fill(~listed, -torch.inf).argsort(1, descending=True)
            weights = torch.zeros_like(weights).scatter_(1, order, weights)
        labels = self._labels(log_scores(chunk.signal)[:, : items.shape[1]], listed)
        return (weights * F.binary_cross_entropy_with_logits(scores, labels, reduction="none")).sum(1)

    def _labels(self, scores: Tensor, listed: Tensor) -> Tensor:
        """The probabilities ``(C, K)`` that the listed items are taught to have."""
        if self.labels == "ranks":
            places = torch.arange(scores.shape[1], device=scores.device, dtype=scores.dtype)
            return (-places / self.decay).exp().expand(scores.shape)
        level = -scores.masked_fill(~listed, 0.0).sum(1, keepdim=True) / listed.sum(1, keepdim=True).clamp(min=1)
        return torch.sigmoid((scores + (level if self.offset is None else self.offset)) / self.temperature)

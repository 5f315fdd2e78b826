"""Margin-MSE: the student's score differences drawn to the teacher's."""

from __future__ import annotations

from torch import Tensor

from deshi.distillation.list_losses import check_positive, listed_mean
from deshi.distillation.score_chunk import ScoreChunk
from deshi.distillation.term import ScoreTerm


class MarginMSE(ScoreTerm):
    """Margin-MSE (Hofstätter et al. 2020, https://arxiv.org/abs/2010.02666).

    The value is the mean of ``((s_i - s_j) - (t_i - t_j))^2`` over all pairs of the teacher's list, which is twice the
    variance of ``s - t`` over it: no pair is ever formed. Deviation: the paper takes one pair a query, a relevant
    passage and one that isn't.

    It needs teacher's scores whose differences mean something; probabilities are compared as logarithms.

    Args:
        top_k: length of the teacher's list; None takes what the store has.
        scale: factor of the teacher's scores.
        weight, final_weight: see :class:`deshi.distillation.term.Term`.
    """

    needs_calibrated_scores = True
    reads_few_scores = True

    def __init__(
        self,
        top_k: int | None = None,
        scale: float = 1.0,
        weight: float = 1.0,
        final_weight: float | None = None,
    ) -> None:
        super().__init__(weight, final_weight)
        check_positive("MarginMSE", top_k=top_k, scale=scale)
        self.top_k, self.scale = top_k, scale

    def forward(self, chunk: ScoreChunk) -> Tensor:
        """See :class:`~deshi.distillation.term.ScoreTerm`."""
        labels = chunk.soft_labels.top(self.top_k)
        items, listed = labels.items, labels.listed
        difference = chunk.scores_of(items) - self.scale * labels.log_scores
        count = listed.sum(1)
        variance = listed_mean((difference - listed_mean(difference, listed)[:, None]).square(), listed)
        return 2 * variance * count / (count - 1).clamp(min=1)

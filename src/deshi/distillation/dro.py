"""Distributionally robust optimisation, as DROS and DLLM2Rec's program have it."""

from __future__ import annotations

import torch
from torch import Tensor

from deshi.distillation.list_losses import check_positive
from deshi.distillation.score_chunk import ScoreChunk
from deshi.distillation.term import Context, ScoreTerm
from deshi.types import PAD


class DRO(ScoreTerm):
    """The robust loss of the true next item, ``log(sum_n exp(l_n / beta))``.

    DROS (Yang et al., SIGIR 2023, https://github.com/YangZhengyi98/DROS) takes the worst case over distributions near
    the items' propensities ``p``; its program's errors are ``l_n = p_n s_n^2`` of every item but the true one and
    ``p (s - 1)^2`` of that one. DLLM2Rec's program adds it to its student's loss. It is computed where a position is
    distilled and has a target; elsewhere it is 0. It looks at the whole catalogue with gradients and costs accordingly.

    Args:
        beta: the robust radius.
        power: flattens the propensity, ``((count + 1) / sum(count + 1)) ** power``.
        weight: the program's alpha; see :class:`deshi.distillation.term.Term`.
        final_weight: see :class:`deshi.distillation.term.Term`.
    """

    propensity: Tensor

    def __init__(
        self, beta: float = 1.0, power: float = 0.05, weight: float = 1.0, final_weight: float | None = None
    ) -> None:
        super().__init__(weight, final_weight)
        check_positive("DRO", beta=beta)
        self.beta, self.power = beta, power

    def prepare(self, context: Context) -> None:
        """Take the items' propensities."""
        super().prepare(context)
        self.register_buffer("propensity", propensities(context.counts, self.power), persistent=False)

    def forward(self, chunk: ScoreChunk) -> Tensor:
        """See :class:`~deshi.distillation.term.ScoreTerm`."""
        values = robust_losses(chunk, chunk.targets[:, None], self.propensity, self.beta).squeeze(1)
        return values.masked_fill(chunk.targets == PAD, 0.0)


def propensities(counts: Tensor, power: float) -> Tensor:
    """``((count + 1) / sum(count + 1)) ** power`` for each item: ``(N,)`` fp32."""
    smoothed = counts.double() + 1
    return ((smoothed / smoothed.sum()) ** power).float()


def robust_losses(chunk: ScoreChunk, items: Tensor, propensity: Tensor, beta: float) -> Tensor:
    """``log(sum_{n != i} exp(p_n s_n^2 / beta) + exp(p_i (s_i - 1)^2 / beta))`` for each of some items ``i``.

    Args:
        chunk: the scores.
        items: ``(C, M)`` int64; values at ``PAD`` are finite and mean nothing.
        propensity: ``(N,)``.
        beta: the robust radius.

    Returns:
        ``(C, M)``.
    """
    total = (chunk.whole().square() * (propensity / beta)).logsumexp(1, keepdim=True)
    scores, factor = chunk.scores_of(items), propensity[items.clamp(min=0)] / beta
    # the sum without item i, relative to the whole; bounded where i is nearly all of it and digits are lost
    without_item = (-torch.expm1(scores.square() * factor - total)).clamp(min=1e-7)
    return total + torch.logaddexp(without_item.log(), (scores - 1).square() * factor - total)

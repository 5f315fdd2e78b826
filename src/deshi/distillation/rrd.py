"""Relaxed ranking distillation: the order of the teacher's items, above all others."""

from __future__ import annotations

import torch
from torch import Tensor

from deshi.distillation.list_losses import check_positive, draw_outside, listed_mean
from deshi.distillation.score_chunk import ScoreChunk
from deshi.distillation.term import ScoreTerm
from deshi.types import PAD


class RRD(ScoreTerm):
    """The ranking part of DE-RRD (Kang et al., CIKM 2020, https://arxiv.org/abs/2012.04357).

    The negative log-likelihood of the teacher's order under a Plackett-Luce model in which uninteresting items may
    never win, but have no order among themselves::

        -sum_k log(exp(s_k) / (sum_{i >= k} exp(s_i) + sum_j exp(s_j)))

    over interesting items ``k``, drawn without replacement from the teacher's list with probabilities
    ``~ exp(-rank / decay)``, in the teacher's order, and uninteresting ones ``j``, drawn from outside of the list.

    Deviations: the sum is divided by the number of interesting items, so that weights of terms compare; draws are made
    at every position instead of once an epoch, the uninteresting ones with replacement and without knowing the history.

    Args:
        top_k: length of the list that is drawn from; None takes what the store has.
        interesting: number of items drawn from the list; None takes the whole list.
        uninteresting: number of items drawn from outside of it.
        decay: of the probability by rank.
        weight, final_weight: see :class:`deshi.distillation.term.Term`.
    """

    def __init__(
        self, top_k: int | None = None, interesting: int | None = 40, uninteresting: int = 40, decay: float = 10.0,
        weight: float = 1.0, final_weight: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(weight, final_weight)
        check_positive("RRD", top_k=top_k, interesting=interesting, uninteresting=uninteresting, decay=decay)
        self.top_k, self.interesting, self.uninteresting, self.decay = top_k, interesting, uninteresting, decay

    def forward(self, chunk: ScoreChunk) -> Tensor:
        """See :class:`~deshi.distillation.term.ScoreTerm`."""
        items = chunk.soft_labels.top(self.top_k).items
        outside = draw_outside(chunk, items, self.uninteresting)
        items = self._drawn(chunk, items)
        listed, width = items != PAD, items.shape[1]
        scores = chunk.scores_of(torch.cat([items, outside], 1))
        # in double precision, so that sums over the list's end don't vanish beside its beginning
        present = torch.cat([listed, outside != PAD], 1)
        shifted = scores.double().masked_fill(~present, -torch.inf)
        shifted = shifted - shifted.detach().amax(1, keepdim=True)
        powers = shifted.exp()
        # denominators of the Plackett-Luce model: all listed items from k on, and all items from outside
        outside_sum = powers[:, width:].sum(1, keepdim=True)
        denominators = powers[:, :width].flip(1).cumsum(1).flip(1) + outside_sum
        losses = denominators.clamp(min=1e-300).log() - shifted[:, :width].masked_fill(~listed, 0.0)
        return listed_mean(losses, listed).float()

    def _drawn(self, chunk: ScoreChunk, items: Tensor) -> Tensor:
        """The interesting items, best first, ``PAD`` at the end."""
        if self.interesting is None or self.interesting >= items.shape[1]:
            return items
        noise = torch.empty(items.shape, device=items.device).exponential_(generator=chunk.generator)
        ranks = torch.arange(items.shape[1], device=items.device)
        # the largest of p / Exp(1) are a draw without replacement (Efraimidis & Spirakis 2006)
        keys = (-ranks / self.decay - noise.log()).masked_fill(items == PAD, -torch.inf)
        chosen = keys.topk(self.interesting, sorted=False).indices.sort(1).values
        return items.gather(1, chosen)

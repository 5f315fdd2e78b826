"""The full softmax and the terms over scores, computed together in the fused pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deshi.distillation.score_chunk import ScoreChunk
from deshi.distillation.soft_label_batches import SoftLabelBatch
from deshi.distillation.term import ScoreTerm
from deshi.losses.fused_pass import ChunkLoss
from deshi.types import PAD


class SoftmaxWithTerms(ChunkLoss):
    """The weighted sum of the mean cross-entropy and the terms' means, each over its own positions.

    Args:
        targets: ``(P,)`` int64, ``PAD`` where there is none.
        soft_labels: the teacher's lists at the first ``D`` positions, all of which have one.
        terms: over scores.
        weights: of the cross-entropy and of each term; the cross-entropy isn't computed where its weight is 0.
        chunk: positions at a time; no chunk has distilled and other positions both.
        generator: source of the terms' random numbers.
    """

    divisor = 1

    def __init__(
        self, targets: Tensor, soft_labels: SoftLabelBatch, terms: Sequence[ScoreTerm], weights: Sequence[float],
        chunk: int, generator: torch.Generator,
    ) -> None:  # fmt: skip
        self.targets, self.soft_labels, self.terms, self.generator = targets, soft_labels, terms, generator
        distilled, total = len(soft_labels), len(targets)
        ranges = [(begin, min(begin + chunk, distilled)) for begin in range(0, distilled, chunk)]
        ranges += [(begin, min(begin + chunk, total)) for begin in range(distilled, total, chunk)]
        self.chunks = [slice(*bounds) for bounds in ranges]
        counts = [int((targets != PAD).sum()), *[distilled] * len(terms)]
        self.shares = [1 / max(count, 1) for count in counts]  # make each sum a mean over its positions
        self.weights = [weight * share for weight, share in zip(weights, self.shares, strict=True)]

    def sums_and_gradient(self, scores: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
        """See :meth:`~deshi.losses.fused_pass.ChunkLoss.sums_and_gradient`."""
        view = ScoreChunk(scores, self.targets[chunk], self.soft_labels.part(chunk), self.generator)
        with torch.enable_grad():
            sums = [self._cross_entropy(view)]
            sums += [term(view).sum() for term in self.terms] if len(view.soft_labels) else []
            total = torch.stack([value * weight for value, weight in zip(sums, self.weights, strict=False)]).sum()
        return torch.stack([value.detach() for value in sums]), view.gradient_in_place(total)

    def means(self, sums: Tensor) -> list[float]:
        """The mean of the cross-entropy and of every term, before their weights."""
        return (sums * torch.tensor(self.shares, dtype=sums.dtype, device=sums.device)).tolist()

    def _cross_entropy(self, view: ScoreChunk) -> Tensor:
        has_target = view.targets != PAD
        if not self.weights[0] or not bool(has_target.any()):
            return view.scores.new_zeros(())
        target_logit = view.scores_of(view.targets[:, None]).squeeze(1)
        return torch.where(has_target, view.logsumexp() - target_logit, 0.0).sum()

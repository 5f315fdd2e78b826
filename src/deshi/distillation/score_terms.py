"""The full softmax and the terms over scores, computed together in the fused pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.distillation.score_chunk import ScoreChunk
from deshi.distillation.soft_label_batches import SoftLabelBatch
from deshi.distillation.term import ScoreTerm
from deshi.losses.fused_pass import ChunkLoss, factors_on
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
        has_target: ``(P,)`` bool on the CPU; None looks at ``targets``.
    """

    divisor = 1

    def __init__(
        self, targets: Tensor, soft_labels: SoftLabelBatch, terms: Sequence[ScoreTerm], weights: Sequence[float],
        chunk: int, generator: torch.Generator, has_target: NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        self.targets, self.soft_labels, self.terms, self.generator = targets, soft_labels, terms, generator
        self.has_target = (targets != PAD).cpu().numpy() if has_target is None else has_target
        distilled, total = len(soft_labels), len(targets)
        ranges = [(begin, min(begin + chunk, distilled)) for begin in range(0, distilled, chunk)]
        ranges += [(begin, min(begin + chunk, total)) for begin in range(distilled, total, chunk)]
        self.chunks = [slice(*bounds) for bounds in ranges]
        counts = [int(self.has_target.sum()), *[distilled] * len(terms)]
        self.shares = [1 / max(count, 1) for count in counts]  # make each sum a mean over its positions
        self.weights = [weight * share for weight, share in zip(weights, self.shares, strict=True)]

    def sums_and_gradient(self, scores: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
        """See :meth:`~deshi.losses.fused_pass.ChunkLoss.sums_and_gradient`."""
        view = ScoreChunk(scores, self.targets[chunk], self.soft_labels.part(chunk), self.generator)
        with torch.enable_grad():
            sums = [self._cross_entropy(view, bool(self.has_target[chunk].any()))]
            sums += [term(view).sum() for term in self.terms] if len(view.soft_labels) else []
            total = torch.stack([value * weight for value, weight in zip(sums, self.weights, strict=False)]).sum()
        return torch.stack([value.detach() for value in sums]), view.gradient_in_place(total)

    def means(self, sums: Tensor) -> Tensor:
        """The mean of the cross-entropy and of every term, before their weights: ``(M,)`` fp64."""
        return sums * factors_on(self.shares, sums.device)

    def _cross_entropy(self, view: ScoreChunk, any_target: bool) -> Tensor:
        if not self.weights[0] or not any_target:
            return view.scores.new_zeros(())
        has_target = view.targets != PAD
        target_logit = view.scores_of(view.targets[:, None]).squeeze(1)
        return torch.where(has_target, view.logsumexp() - target_logit, 0.0).sum()

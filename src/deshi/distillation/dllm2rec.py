"""DLLM2Rec's importance-aware ranking distillation, as the paper has it and as its program has it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from deshi.distillation.dro import propensities, robust_losses
from deshi.distillation.list_losses import check_positive, draw_outside, rank_weights
from deshi.distillation.score_chunk import ScoreChunk
from deshi.distillation.soft_label_batches import SoftLabelBatch
from deshi.distillation.term import Context, ScoreTerm
from deshi.types import PAD, DeshiError, ScoreKind


class _Importance(ScoreTerm):
    """The common part of both versions: arguments, propensities, agreement with the student's list."""

    propensity: Tensor

    def __init__(
        self, top_k: int = 10, decay: float = 1.0, gamma_position: float = 0.3, gamma_confidence: float = 0.5,
        gamma_consistency: float = 0.1, alpha: float = 0.0, beta: float = 1.0, power: float = 0.05,
        weight: float = 1.0, final_weight: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(weight, final_weight)
        name, gammas = type(self).__name__, (gamma_position, gamma_confidence, gamma_consistency)
        check_positive(name, top_k=top_k, decay=decay, beta=beta)
        if min(gammas) < 0 or not any(gammas) or alpha < 0:
            raise DeshiError(
                f"{name} got the gammas {gammas} and alpha={alpha}, expected 0 or more and one gamma above 0."
            )
        self.top_k, self.decay, self.gammas = top_k, decay, gammas
        self.alpha, self.beta, self.power = alpha, beta, power

    def prepare(self, context: Context) -> None:
        """Take the items' propensities, for the robust part."""
        super().prepare(context)
        self.register_buffer("propensity", propensities(context.counts, self.power), persistent=False)

    def agreed(self, chunk: ScoreChunk, scores: Tensor, listed: Tensor) -> Tensor:
        """Mask of the teacher's items ``(C, K)`` that are among the student's ``top_k`` best of the catalogue."""
        last = chunk.scores.topk(min(self.top_k, chunk.n_items), sorted=False).values.amin(1, keepdim=True)
        return (scores.detach() >= last) & listed


class DLLM2Rec(_Importance):
    """Importance-aware ranking distillation (Cui et al., RecSys 2024, https://arxiv.org/abs/2405.00338).

    The value is ``-sum_k w_k (log sigmoid(s_k) + log(1 - sigmoid(s_j)))`` over the teacher's K best items, each with a
    negative ``j`` drawn from outside of the list, with weights ``w = gamma_p w^p + gamma_c w^c + gamma_o w^o``:

    - position: ``w^p ~ exp(-rank / decay)``, summing to 1;
    - confidence: ``w^c = exp(-d / decay) / K``, where ``d`` is how far the teacher was from the truth;
    - consistency: ``w^o = 1 / K`` for items that are also among the student's K best, else 0.

    A gamma of 0 switches its part off.

    Deviations. The paper's ``d`` is the distance of the generated text's embedding from the true item's; a store has
    scores, so ``d`` is the score of the teacher's best item minus that of the true item, for scores that are logits or
    (logarithms of) probabilities, and the number of items above the true one for scores whose order alone has a
    meaning. A true item that isn't listed counts as the list's end, a lower bound; where no true item is known
    (augmented histories) the teacher is trusted, ``d = 0``. ``w^c`` and ``w^o`` are divided by ``K``, so that each part
    weighs at most 1 at a position. ``alpha`` adds each item's robust loss (:class:`~deshi.distillation.dro.DRO`), as
    the program does for every student and the paper for DROS.

    Args:
        top_k: the paper's K.
        decay: the paper's beta.
        gamma_position: of the position's weight.
        gamma_confidence: of the confidence's weight.
        gamma_consistency: of the consistency's weight.
        alpha: weight of the robust loss inside; 0 is without.
        beta: its radius.
        power: its propensity's power.
        weight: the paper's lambda; see :class:`deshi.distillation.term.Term`.
        final_weight: see :class:`deshi.distillation.term.Term`.
    """

    def forward(self, chunk: ScoreChunk) -> Tensor:
        """See :class:`~deshi.distillation.term.ScoreTerm`."""
        labels = chunk.soft_labels.top(self.top_k)
        items, listed = labels.items, labels.listed
        excluded = torch.cat([items, chunk.targets[:, None]], 1)
        negatives = draw_outside(chunk, excluded, items.shape[1])
        scores, negative_scores = chunk.scores_of(items), chunk.scores_of(negatives)
        losses = F.softplus(-scores) + F.softplus(negative_scores).masked_fill(negatives == PAD, 0.0)
        if self.alpha:
            losses = losses + self.alpha * robust_losses(chunk, items, self.propensity, self.beta)
        return (self.weights(chunk, scores, listed) * losses.masked_fill(~listed, 0.0)).sum(1)

    def weights(self, chunk: ScoreChunk, scores: Tensor, listed: Tensor) -> Tensor:
        """The weights ``(C, K)`` of items with the student's ``scores``, without gradients."""
        position, confidence, consistency = self.gammas
        uniform = listed / listed.sum(1, keepdim=True).clamp(min=1)
        # position: falls with the teacher's rank
        weights = position * rank_weights(listed, self.decay)
        if confidence:  # one factor a position, by how far the teacher was from the truth
            distance = distance_from_truth(chunk.soft_labels.top(self.top_k), chunk.targets)
            weights = weights + confidence * (-distance / self.decay).exp()[:, None] * uniform
        if consistency:  # items that the student ranks high, too
            weights = weights + consistency * self.agreed(chunk, scores, listed) * uniform
        return weights


class DLLM2RecReleased(_Importance):
    """Ranking distillation as DLLM2Rec's program computes it (https://github.com/istarryn/DLLM2Rec, ``main.py``).

    It differs from the paper: the negative's part is ``-log sigmoid(1 - s_j)``, with one negative that all K items
    share; confidence is a weight of each item, ``exp(-distance) + 1e-8`` normalised over the list; consistency is 1 or
    1e-8; the weighted sum of the three is normalised over the list again; and each item's robust loss is added, with
    weights that are averaged over the batch (the program multiplies a ``(B, 1)`` by a ``(B,)`` tensor), here over the
    chunk. The program's base loss is a binary cross-entropy with one negative and, as a term of its own, ``DRO``.

    What it reads from a store: scores of the kind ``score`` are negative distances (as ``deshi label import`` writes
    the program's own files); of other kinds the distance is how much lower an item's score, as a logarithm for
    probabilities, is than the best item's. The negative is no true item, but may be in the history, which isn't known
    here; the program draws from outside of it.

    Args:
        top_k: ``candidate_topk``.
        decay: ``_lambda``, fixed at 1 in the program.
        gamma_position: of the same name.
        gamma_confidence: of the same name.
        gamma_consistency: of the same name.
        alpha: of the same name, 1 in the program: weight of the robust loss; 0 is without.
        beta: of the same name: its radius.
        power: its propensity's power.
        weight: ``lam``, 0.8 in the program; see :class:`deshi.distillation.term.Term`.
        final_weight: see :class:`deshi.distillation.term.Term`.
    """

    def forward(self, chunk: ScoreChunk) -> Tensor:
        """See :class:`~deshi.distillation.term.ScoreTerm`."""
        labels = chunk.soft_labels.top(self.top_k)
        items, listed = labels.items, labels.listed
        negatives = draw_outside(chunk, chunk.targets[:, None], 1)
        scores, negative_scores = chunk.scores_of(items), chunk.scores_of(negatives)
        losses = F.softplus(-scores) + F.softplus(negative_scores - 1).masked_fill(negatives == PAD, 0.0)
        weights = self.weights(chunk, scores, listed)
        value = (weights * losses).sum(1)
        if self.alpha:
            robust = robust_losses(chunk, items, self.propensity, self.beta).masked_fill(~listed, 0.0)
            value = value + self.alpha * (weights.mean(0) * robust).sum(1)
        return value

    def weights(self, chunk: ScoreChunk, scores: Tensor, listed: Tensor) -> Tensor:
        """The weights ``(C, K)`` of items with the student's ``scores``, without gradients, summing to 1."""
        position, confidence, consistency = self.gammas
        weights = position * rank_weights(listed, self.decay)
        if confidence:  # a factor of each item, by its distance from what the teacher generated
            near = ((-distances(chunk.soft_labels.top(self.top_k))).clamp(max=80.0).exp() + 1e-8) * listed
            weights = weights + confidence * near / near.sum(1, keepdim=True)
        if consistency:  # 1 where the student agrees, almost 0 elsewhere
            weights = weights + consistency * (self.agreed(chunk, scores, listed) + 1e-8) * listed
        return weights / weights.sum(1, keepdim=True)


def distances(soft_labels: SoftLabelBatch) -> Tensor:
    """Distance of each listed item from what the teacher generated ``(P, K)``, see :class:`DLLM2RecReleased`."""
    scores = soft_labels.log_scores
    return -scores if soft_labels.score_kind is ScoreKind.SCORE else scores[:, :1] - scores


def distance_from_truth(soft_labels: SoftLabelBatch, targets: Tensor) -> Tensor:
    """Distance of the teacher from the true items ``targets`` ``(P,)``: ``(P,)``, 0 or more; see :class:`DLLM2Rec`."""
    listed = soft_labels.listed
    hits = (soft_labels.items == targets[:, None]) & listed
    has_hit, rank, last = hits.any(1), hits.int().argmax(1), listed.sum(1) - 1
    if soft_labels.score_kind.is_calibrated:  # score of the best item minus the true item's, or the last one's
        rank = torch.where(has_hit, rank, last.clamp(min=0))
        scores = soft_labels.log_scores
        distance = scores[:, 0] - scores.gather(1, rank[:, None]).squeeze(1)
    else:  # number of items above the true one, or all that are listed
        distance = torch.where(has_hit, rank, last + 1).float()
    return distance.masked_fill(targets == PAD, 0.0)

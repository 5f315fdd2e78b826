"""Listwise distillation: divergence of the student's distribution from the teacher's over the teacher's list."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from deshi.distillation.list_losses import list_divergence
from deshi.distillation.score_chunk import ScoreChunk
from deshi.distillation.soft_label_batches import SoftLabelBatch
from deshi.distillation.term import Context, ScoreTerm
from deshi.types import DeshiError, ScoreKind


class ListwiseKL(ScoreTerm):
    """Kullback-Leibler divergence of the student from the teacher over the teacher's K best items.

    The baseline of every other term: Hinton et al. (2015, arXiv 1503.02531) on a list. With
    ``other_items="renormalised"`` both distributions are over the list alone,
    ``KL(softmax(t / T) || softmax(s / T)) * T^2``. With ``other_items="bucket"`` all other items count as one more,
    whose share the student takes from the whole catalogue; the teacher's share of it is what its log-probabilities
    leave, or ``other_share`` where the scores don't say.

    Args:
        temperature: divides both models' scores; the value is multiplied by its square, so that gradients keep their
            size.
        teacher_temperature: divides the teacher's instead; needed for scores whose scale means nothing.
        top_k: length of the list; None takes what the store has.
        other_items: treatment of the items that aren't on the list.
        other_share: the teacher's probability of all other items together, for ``bucket``.
        target: ``scores``, or ``ranks``: the teacher's probabilities fall with ``exp(-rank / decay)``, rank from 0.
        decay: of ``ranks``.
        weight, final_weight: see :class:`deshi.distillation.term.Term`.
    """

    reads_few_scores = True

    def __init__(
        self, temperature: float = 1.0, teacher_temperature: float | None = None, top_k: int | None = None,
        other_items: Literal["renormalised", "bucket"] = "renormalised", other_share: float | None = None,
        target: Literal["scores", "ranks"] = "scores", decay: float = 10.0, weight: float = 1.0,
        final_weight: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(weight, final_weight)
        for name, value in (("temperature", temperature), ("teacher_temperature", teacher_temperature or 1.0),
                            ("top_k", top_k or 1), ("decay", decay)):  # fmt: skip
            if not value > 0:
                raise DeshiError(f"ListwiseKL got {name}={value}, expected a positive number.")
        if other_share is not None and not 0 <= other_share < 1:
            raise DeshiError(f"ListwiseKL got other_share={other_share}, expected a probability in [0, 1).")
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.top_k = top_k
        self.other_items = other_items
        self.other_share = other_share
        self.target = target
        self.decay = decay

    def prepare(self, context: Context) -> None:
        """Refuse scores that give no distribution."""
        if self.target == "scores" and not context.score_kind.is_calibrated and not self.teacher_temperature:
            raise DeshiError(
                f"The teacher's scores are of the kind {context.score_kind.value!r}: only their order has a meaning, "
                "so that there is no distribution to learn. Set target=ranks, or teacher_temperature to a value "
                "chosen on validation; or write the soft labels from an ensemble with teacher.scale=log_softmax."
            )
        if self.other_items == "bucket" and self.target == "scores" and self.other_share is None:
            tempered = (self.teacher_temperature or self.temperature) != 1.0
            if context.score_kind not in (ScoreKind.LOG_PROBABILITY, ScoreKind.PROBABILITY) or tempered:
                raise DeshiError(
                    "other_items=bucket needs to know what the teacher leaves to all other items: write the "
                    "soft labels with normalise=true and keep the temperature 1, or set other_share, or "
                    "other_items=renormalised."
                )

    def forward(self, chunk: ScoreChunk) -> Tensor:
        """See :class:`~deshi.distillation.term.ScoreTerm`."""
        labels = chunk.soft_labels.top(self.top_k)
        listed, teacher = labels.listed, self._teacher(labels)
        scores = chunk.scores_of(labels.items) / self.temperature
        list_logsumexp = torch.where(listed, scores, torch.full_like(scores, -torch.inf)).logsumexp(1)
        scale = self.temperature**2
        if self.other_items == "renormalised":
            return list_divergence(teacher, scores - list_logsumexp[:, None], listed) * scale
        # KL over the list's items and one bucket for all others: both distributions are over the whole catalogue
        teacher_bucket = self._bucket(labels)
        logsumexp = chunk.logsumexp(self.temperature)
        list_part = list_divergence(teacher * (1 - teacher_bucket)[:, None], scores - logsumexp[:, None], listed)
        # log(1 - exp(x)) loses its digits near 0, where the list holds nearly everything: bounded there
        log_bucket = torch.log1p(-(list_logsumexp - logsumexp).exp().clamp(max=1 - 1e-6))
        return (list_part + torch.xlogy(teacher_bucket, teacher_bucket) - teacher_bucket * log_bucket) * scale

    def _teacher(self, labels: SoftLabelBatch) -> Tensor:
        """The teacher's distribution over its list: ``(C, K)``, 0 where there is no item."""
        if self.target == "ranks":
            ranks = torch.arange(labels.items.shape[1], device=labels.items.device, dtype=labels.scores.dtype)
            logits = (-ranks / self.decay).expand_as(labels.scores)
        else:
            logits = labels.log_scores / (self.teacher_temperature or self.temperature)
        return logits.masked_fill(~labels.listed, -torch.inf).softmax(1)

    def _bucket(self, labels: SoftLabelBatch) -> Tensor:
        """The teacher's probability ``(C,)`` of all items that aren't on its list."""
        if self.other_share is not None or self.target == "ranks":
            return labels.scores.new_full((len(labels),), self.other_share or 0.0)
        is_probability = labels.score_kind is ScoreKind.PROBABILITY
        probabilities = labels.scores if is_probability else labels.scores.exp()
        return (1 - probabilities.masked_fill(~labels.listed, 0.0).sum(1)).clamp(0.0, 1.0)

"""Listwise distillation: the student's distribution over the teacher's list drawn to the teacher's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from deshi.distillation.chunk import Chunk
from deshi.distillation.term import Context, ScoreTerm
from deshi.types import PAD, DeshiError


class ListwiseKL(ScoreTerm):
    """Kullback-Leibler divergence of the student from the teacher over the teacher's K best items.

    The plain baseline that every other term must beat: Hinton et al. (2015, arXiv 1503.02531) on a list. With
    ``rest="renormalised"`` both distributions are over the list alone, ``KL(softmax(t / T) || softmax(s / T)) * T^2``.
    With ``rest="bucket"`` all other items count as one more, whose share the student takes from the whole catalogue;
    the teacher's share of it is what its log-probabilities leave, or ``rest_share`` where the scores don't say.

    Args:
        temperature: divides both models' scores; the value is multiplied by its square, so that gradients keep their
            size.
        teacher_temperature: divides the teacher's instead; needed for scores whose scale means nothing.
        top_k: length of the list; None takes what the store has.
        rest: what becomes of the other items.
        rest_share: the teacher's probability of all other items together, for ``bucket``.
        target: ``scores``, or ``ranks``: the teacher's probabilities fall with ``exp(-rank / decay)``, rank from 0.
        decay: of ``ranks``.
        weight: see :class:`deshi.distillation.term.Term`.
        final_weight: see :class:`deshi.distillation.term.Term`.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        teacher_temperature: float | None = None,
        top_k: int | None = None,
        rest: Literal["renormalised", "bucket"] = "renormalised",
        rest_share: float | None = None,
        target: Literal["scores", "ranks"] = "scores",
        decay: float = 10.0,
        weight: float = 1.0,
        final_weight: float | None = None,
    ) -> None:
        super().__init__(weight, final_weight)
        for name, value in (("temperature", temperature), ("teacher_temperature", teacher_temperature or 1.0),
                            ("top_k", top_k or 1), ("decay", decay)):  # fmt: skip
            if not value > 0:
                raise DeshiError(f"ListwiseKL got {name}={value}, expected a positive number.")
        if rest_share is not None and not 0 <= rest_share < 1:
            raise DeshiError(f"ListwiseKL got rest_share={rest_share}, expected a probability in [0, 1).")
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.top_k = top_k
        self.rest = rest
        self.rest_share = rest_share
        self.target = target
        self.decay = decay

    def prepare(self, context: Context) -> None:
        """Refuse scores that give no distribution."""
        if self.target == "scores" and context.kind in ("score", "reciprocal_rank") and not self.teacher_temperature:
            raise DeshiError(
                f"The teacher's scores are of the kind {context.kind!r}: only their order has a meaning, so that there "
                "is no distribution to learn. Set target=ranks, or teacher_temperature to a value that you have chosen "
                "on validation; or write the soft labels from an ensemble with teacher.scale=log_softmax."
            )
        if self.rest == "bucket" and self.target == "scores" and self.rest_share is None:
            tempered = (self.teacher_temperature or self.temperature) != 1.0
            if context.kind not in ("log_probability", "probability") or tempered:
                raise DeshiError(
                    "rest=bucket needs to know what the teacher leaves to all other items: write the soft labels with "
                    "normalise=true and keep the temperature 1, or set rest_share, or rest=renormalised."
                )

    def forward(self, chunk: Chunk) -> Tensor:
        """See :class:`~deshi.distillation.term.ScoreTerm`."""
        signal = chunk.signal if self.top_k is None else chunk.signal.top(self.top_k)
        listed = signal.items != PAD
        aim = self._teacher(signal.scores, listed, signal.kind)
        scores = chunk.at(signal.items) / self.temperature
        hidden = torch.full_like(scores, -torch.inf)
        inside = torch.where(listed, scores, hidden).logsumexp(1)
        scale = self.temperature**2
        if self.rest == "renormalised":
            return _divergence(aim, scores - inside[:, None], listed) * scale
        share = self._rest(signal.scores, listed, signal.kind)
        everything = chunk.logsumexp(self.temperature)
        listed_part = _divergence(aim * (1 - share)[:, None], scores - everything[:, None], listed)
        # log(1 - exp(x)) loses its digits near 0, where the list holds nearly everything: bounded there
        left = torch.log1p(-(inside - everything).exp().clamp(max=1 - 1e-6))
        return (listed_part + torch.xlogy(share, share) - share * left) * scale

    def _teacher(self, scores: Tensor, listed: Tensor, kind: str) -> Tensor:
        """The teacher's distribution over its list: ``(C, K)``, 0 where there is no item."""
        if self.target == "ranks":
            places = torch.arange(scores.shape[1], device=scores.device, dtype=scores.dtype)
            logits = (-places / self.decay).expand_as(scores)
        else:
            logits = scores.clamp(min=1e-12).log() if kind == "probability" else scores
            logits = logits / (self.teacher_temperature or self.temperature)
        return logits.masked_fill(~listed, -torch.inf).softmax(1)

    def _rest(self, scores: Tensor, listed: Tensor, kind: str) -> Tensor:
        """The teacher's probability ``(C,)`` of all items that aren't on its list."""
        if self.rest_share is not None or self.target == "ranks":
            return scores.new_full((len(scores),), self.rest_share or 0.0)
        known = scores if kind == "probability" else scores.exp()
        return (1 - known.masked_fill(~listed, 0.0).sum(1)).clamp(0.0, 1.0)


def _divergence(aim: Tensor, found: Tensor, listed: Tensor) -> Tensor:
    """``sum_k aim * (log aim - found)`` over the listed items: ``(C, K)`` -> ``(C,)``."""
    return (torch.xlogy(aim, aim) - aim * found.masked_fill(~listed, 0.0)).sum(1)

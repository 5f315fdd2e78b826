"""The ensemble: a weighted sum of several scorers' scores, each normalised first."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.data.example_batches import ExampleBatches
from deshi.models.scorers import Scorer
from deshi.teachers._weight_search import Pool, search_weights
from deshi.teachers.base import FittedTeacher, Resources
from deshi.types import Batch, DeshiError, ScoreKind

log = logging.getLogger(__name__)

Scale = Literal["softmax", "log_softmax", "zscore", "reciprocal_rank"]
SCORE_KINDS = {"softmax": ScoreKind.PROBABILITY, "log_softmax": ScoreKind.LOGIT}
"""Meaning of the sums, by scale: a sum of logarithms is a logit. Of the other scales only the order has a meaning."""


class Ensemble(FittedTeacher):
    """The weighted sum of the normalised scores of finished runs, students and teachers alike.

    Models of different kinds, trained separately and added by their scores, are the strongest simple teacher
    (EnsRec, arXiv 2512.17820). The weights of distributions sum to 1. Counts are evidence that is added to a
    distribution: their weight is free, from 0 to 10 (``text + 6 x counts``).

    Args:
        n_items: number of items.
        resources: where the members are loaded from.
        members: runs of ``deshi fit`` or ``deshi teach``: folders, names, or latest.
        scale: how a member's row of scores is normalised, see :func:`normalised`.
        weights: of the members, taken as they are; None chooses them by NDCG@10 on validation.
        steps: parts that the distributions' whole weight is divided into for the choice.
    """

    def __init__(
        self,
        n_items: int,
        resources: Resources,
        members: list[str],
        scale: Scale = "zscore",
        weights: list[float] | None = None,
        steps: int = 10,
    ) -> None:
        if len(members) < 2:
            raise DeshiError(f"teacher.members is {members}, expected two runs or more, e.g. [RUN,RUN].")
        if weights is not None and (len(weights) != len(members) or min(weights) < 0 or not sum(weights)):
            raise DeshiError(
                f"teacher.weights is {weights}, expected {len(members)} numbers from 0, one a member, not all 0."
            )
        if steps < 1:
            raise DeshiError(f"teacher.steps is {steps}, expected 1 or more.")
        self.n_items, self.members, self.scale, self.steps = n_items, members, scale, steps
        self.device = resources.device
        loaded = [resources.load_scorer(name, self.device) for name in members]
        self.scorers: list[Scorer] = [scorer for scorer, _ in loaded]
        self.score_kind = SCORE_KINDS.get(scale, ScoreKind.SCORE)
        self.max_length = min(scorer.max_length for scorer in self.scorers)
        self.weights = None if weights is None else [float(weight) for weight in weights]

    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32, the weighted sum."""
        return self._sum([scorer.scores(batch) for scorer in self.scorers])

    def position_scores(self, batch: Batch, where: Tensor) -> Tensor:
        """See :meth:`~deshi.models.scorers.Scorer.position_scores`."""
        return self._sum([scorer.position_scores(batch, where) for scorer in self.scorers])

    def to(self, device: torch.device | str) -> Scorer:
        """The ensemble with its members on ``device``."""
        ensemble = copy(self)
        ensemble.device, ensemble.scorers = torch.device(device), [scorer.to(device) for scorer in self.scorers]
        return ensemble

    def leave_user_out(self) -> Scorer:
        """The sum of the members' scores, each without the histories' own users where it can leave them out."""
        ensemble = copy(self)
        ensemble.scorers = [scorer.leave_user_out() for scorer in self.scorers]
        return ensemble

    def item_vectors(self) -> NDArray[np.float32] | None:
        """``(n_items, D)`` the members' item vectors side by side, of mean square 1 each; None if there are none."""
        tables = [table for scorer in self.scorers if (table := scorer.item_vectors()) is not None]
        scaled = [table / np.sqrt(np.square(table).mean()).clip(min=1e-12) for table in tables]
        return np.concatenate(scaled, axis=1) if scaled else None

    def text_vectors(self) -> NDArray[np.float32] | None:
        """``(n_items, D)`` a language model's vectors of the items: those of the first member that is made of some."""
        members = (scorer.text_vectors() for scorer in self.scorers)
        return next((vectors for vectors in members if vectors is not None), None)

    def cost(self) -> dict[str, Any] | None:
        """Those of the members together, see :meth:`~deshi.models.scorers.Scorer.cost`."""
        costs = [cost for scorer in self.scorers if (cost := scorer.cost()) is not None]
        return {name: sum(cost[name] for cost in costs) for name in costs[0]} if costs else None

    def _sum(self, parts: Sequence[Tensor]) -> Tensor:
        if self.weights is None:
            raise DeshiError("This ensemble has no weights yet: fit it, or give teacher.weights.")
        return combined([normalised(part, self.scale) for part in parts], self.weights)

    @torch.no_grad()
    def fit(self, validation: ExampleBatches) -> dict[str, Any]:
        """Choose the weights by NDCG@10 on validation, unless they are given.

        Returns:
            ``members``, ``weights`` and, after a choice, ``tried``: every weight vector with its NDCG@10.
        """
        if self.weights is not None:
            return {"members": self.members, "weights": self.weights}
        pool = Pool()
        for batch in validation:
            histories = batch.histories.to(self.device)
            pool.add(batch, [normalised(scorer.scores(histories).cpu(), self.scale) for scorer in self.scorers])
        is_evidence = [scorer.is_evidence for scorer in self.scorers]
        if all(is_evidence):  # counts alone: shares of one weight
            is_evidence = [False] * len(is_evidence)
        vectors = search_weights(pool, is_evidence, self.steps)
        best, value = vectors[0]
        log.info("weights %s: validation NDCG@10 %.4f of %d tried", best, value, len(vectors))
        tried = [{"weights": weights, "ndcg@10": ndcg} for weights, ndcg in vectors]
        return {"members": self.members, "weights": best, "tried": tried}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the weights that :meth:`fit` returned.

        Raises:
            DeshiError: if they are another number than the members.
        """
        if len(state["weights"]) != len(self.members):
            raise DeshiError(f"The state has {len(state['weights'])} weights, expected {len(self.members)}.")
        self.weights = list(state["weights"])

    def take_over(self, state: dict[str, Any]) -> dict[str, Any]:
        """Take up the weights of an ensemble of the same models before their refit; the members are this one's."""
        return super().take_over(state) | {"members": self.members}


def normalised(scores: Tensor, scale: Scale) -> Tensor:
    """Scores ``(B, N)`` brought to a scale on which different models can be added.

    ``softmax``: probabilities. ``log_softmax``: their logarithms (a product of experts). ``zscore``: mean 0 and
    standard deviation 1 over the catalogue. ``reciprocal_rank``: 1 / (60 + rank), the reciprocal rank fusion of
    Cormack et al. (SIGIR 2009).

    Minus infinity stands for no score: such an item counts as the row's worst scored one, and in a row without any
    score all items tie.
    """
    scores = _finite(scores.float())
    if scale == "softmax":
        return scores.softmax(1)
    if scale == "log_softmax":
        return scores.log_softmax(1)
    if scale == "zscore":
        centred = scores - scores.mean(1, keepdim=True)
        spread: Tensor = centred.pow(2).mean(1, keepdim=True).sqrt()
        return centred / spread.clamp(min=torch.finfo(torch.float32).tiny)
    order = scores.argsort(dim=1, descending=True, stable=True)
    ranks = torch.arange(1, scores.shape[1] + 1, device=scores.device, dtype=torch.float32)
    return torch.empty_like(scores).scatter_(1, order, (1 / (60 + ranks)).expand_as(scores))


def _finite(scores: Tensor) -> Tensor:
    missing = scores == -torch.inf
    worst = scores.masked_fill(missing, torch.inf).amin(1, keepdim=True)
    return torch.where(missing, torch.where(worst == torch.inf, 0.0, worst), scores)


def combined(parts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum of normalised scores, each ``(B, N)``; members of weight 0 are left out."""
    total = torch.zeros_like(parts[0])
    for part, weight in zip(parts, weights, strict=True):
        if weight:
            total.add_(part, alpha=weight)
    return total

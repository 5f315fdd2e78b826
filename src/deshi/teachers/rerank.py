"""A chat model that reorders the best items of a cheap teacher.

Listwise prompts after Sun et al., "Is ChatGPT Good at Search?", EMNLP 2023, arXiv 2304.09542; letters' first-token
log-probabilities after Reddy et al., "FIRST", EMNLP 2024, arXiv 2406.15657. What differs is in ``docs/rerank.md``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.data.example_batches import ExampleBatches
from deshi.metrics import best_items
from deshi.models.scorers import Scorer
from deshi.teachers._asker import Asker
from deshi.teachers._item_text import item_texts, require_texts
from deshi.teachers._rerank_questions import Question, Questioner
from deshi.teachers._rerank_weight import RerankPool, choose_weight
from deshi.teachers.base import FittedTeacher, Resources
from deshi.teachers.cost import Budget
from deshi.teachers.endpoint import Endpoint
from deshi.teachers.ensemble import normalised
from deshi.teachers.rerank_prompts import RerankPrompt
from deshi.types import PAD, Batch, DeshiError, ScoreKind

log = logging.getLogger(__name__)

ANSWERS = "answers"
"""The folder of answers in the cache."""
STEP = 1e-4
"""Between candidates that stand just above the rest of the catalogue, in nats."""


class Rerank(FittedTeacher):
    """The first stage's log-probabilities, with the mass of its best items dealt out anew by a chat model.

    The probability that the first stage gives to its best ``candidates`` items stays as a whole; inside, an item's
    share is that of the first stage times ``exp(weight * score)``, with the chat model's scores. A candidate never
    falls below the rest of the catalogue, which keeps its scores. Where an answer was refused, and everywhere with
    weight 0 (then nothing is asked), the scores are the first stage's.

    Args:
        n_items: number of items.
        resources: item texts, the first stage's run, and the cache that answers are kept in.
        first: a run of ``deshi fit`` or ``deshi teach`` on the same data: folder, name or latest.
        endpoint: of the chat model.
        prompt: how it is asked.
        budget: of one command.
        candidates: items that are reordered.
        weight: of the chat model's scores; None chooses it by NDCG@10 on validation.
        validation_examples: examples that are asked about for it at most, drawn among those with a target among the
            candidates: no answer changes the rank of any other target.
        filter_seen: whether the history's items are no candidates.

    Raises:
        DeshiError: for numbers out of range, and items without texts.
    """

    score_kind = ScoreKind.LOGIT

    def __init__(
        self,
        n_items: int,
        resources: Resources,
        first: str,
        endpoint: Endpoint,
        prompt: RerankPrompt | None = None,
        budget: Budget | None = None,
        candidates: int = 20,
        weight: float | None = None,
        validation_examples: int = 200,
        filter_seen: bool = True,
    ) -> None:
        for name, number, least in (("candidates", candidates, 2), ("validation_examples", validation_examples, 0)):
            if number < least:
                raise DeshiError(f"teacher.{name} is {number}, expected a number from {least}.")
        if weight is None and not validation_examples:
            raise DeshiError("teacher.validation_examples is 0: there is nothing to choose by. Give teacher.weight.")
        if weight is not None and weight < 0:
            raise DeshiError(f"teacher.weight is {weight}, expected a number from 0, or null for a choice.")
        prompt = prompt or RerankPrompt()
        prompt.ids(candidates)
        self.n_items, self.device, self._name = n_items, resources.device, first
        self.candidates, self.filter_seen = candidates, filter_seen
        self.given, self.validation_examples, self.seed = weight, validation_examples, prompt.seed
        self.weight = weight
        self.first: Scorer = resources.load_scorer(first, self.device)[0]
        table = resources.bundle.item_table()
        require_texts(table)
        self.asker = Asker(endpoint, budget or Budget(), resources.cache / ANSWERS)
        self.questioner = Questioner(self.asker, prompt, item_texts(table, prompt.template).texts)
        self._metrics: dict[str, float] | None = None

    @torch.no_grad()
    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32: asks about every history, within the budget.

        Raises:
            BudgetReached: see :class:`~deshi.teachers._asker.Asker`, whose other errors it raises, too.
        """
        if self.weight is None:
            raise DeshiError("This teacher has no weight yet: fit it, or give teacher.weight.")
        scores = normalised(self.first.scores(batch), "log_softmax")
        if not self.weight:
            return scores
        items, floor = self._candidates(scores, batch)
        opinions = self.questioner.ask(questions(batch, items))
        asked = [number for number, opinion in enumerate(opinions) if opinion is not None]
        if asked:
            opinion = _padded([opinions[number] or [] for number in asked], items.shape[1]).to(scores.device)
            rows = torch.tensor(asked, device=scores.device)
            scores[rows] = blended(scores[rows], items[rows], opinion, self.weight, floor[rows])
        return scores

    def leave_user_out(self) -> Scorer:
        """The same with a first stage that knows nothing of the histories' own users, where it can leave them out."""
        teacher = copy(self)
        teacher.first = self.first.leave_user_out()
        return teacher

    def item_vectors(self) -> NDArray[np.float32] | None:
        """Those of the first stage."""
        return self.first.item_vectors()

    def text_vectors(self) -> NDArray[np.float32] | None:
        """Those of the first stage."""
        return self.first.text_vectors()

    def cost(self) -> dict[str, Any]:
        """See :meth:`~deshi.models.scorers.Scorer.cost`."""
        return self.asker.used.plain()

    @torch.no_grad()
    def fit(self, validation: ExampleBatches) -> dict[str, Any]:
        """Ask about a sample of the validation examples and choose the weight by NDCG@10, unless it is given.

        Returns:
            ``first``, ``weight``, ``endpoint`` (the model's name), ``cost``, and, unless nothing is asked, what
            :func:`~deshi.teachers._rerank_weight.choose_weight` returns: figures before and after with the interval of
            the gain, and ``tried``.
        """
        state: dict[str, Any] = {"first": self._name, "weight": self.weight, "endpoint": self.asker.endpoint.model}
        if self.validation_examples:
            pool = RerankPool()
            for batch in validation:
                histories = batch.histories.to(self.device)
                scores = normalised(self.first.scores(histories), "log_softmax")
                items, floor = self._candidates(scores, histories)
                pool.add(batch, scores.cpu(), items.cpu(), floor.cpu(), questions(batch.histories, items))
            chosen = pool.drawn(self.validation_examples, self.seed)
            opinions = self.questioner.ask([pool.questions[number] for number in chosen])
            choice = choose_weight(pool, chosen, opinions, blended, self.given)
            state |= choice.state()
            self._metrics = choice.metrics
            log.info("%s", choice)
        return state | {"cost": self.cost()}

    def validation_metrics(self) -> dict[str, float] | None:
        """See :meth:`~deshi.teachers.base.FittedTeacher.validation_metrics`; nothing where nothing was asked."""
        return self._metrics or {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the weight that :meth:`fit` chose."""
        self.weight = float(state["weight"])

    def _candidates(self, scores: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The best items ``(B, K)``, ``PAD`` on the right, and the score of the next one ``(B,)``, -inf without."""
        seen = batch.items if self.filter_seen else None
        items, values = best_items(scores, seen, self.candidates + 1)
        rest = values[:, -1].masked_fill(items[:, -1] == PAD, -torch.inf)
        return items[:, :-1], rest


def questions(batch: Batch, items: Tensor) -> list[Question]:
    """A question for each history: its items, and the candidates ``(B, K)`` without padding."""
    histories = [row[:length] for row, length in zip(batch.items.tolist(), batch.lengths.tolist(), strict=True)]
    candidates = [[item for item in row if item != PAD] for row in items.tolist()]
    return [Question(tuple(history), tuple(row)) for history, row in zip(histories, candidates, strict=True)]


def blended(scores: Tensor, items: Tensor, opinion: Tensor, weight: float, floor: Tensor) -> Tensor:
    """Log-probabilities ``(B, N)`` in which a second opinion deals the candidates' mass out anew.

    Args:
        scores: ``(B, N)`` log-probabilities of the first stage.
        items: ``(B, K)`` candidates, ``PAD`` on the right, one a row at least.
        opinion: ``(B, K)`` scores of them, a constant a row has no meaning.
        weight: of these.
        floor: ``(B,)`` the best score among all other items that are ranked, -inf if there are none.
    """
    listed = items != PAD
    block = scores.gather(1, items.clamp(min=0)).masked_fill(~listed, -torch.inf)
    # p(i) = P(candidates) * softmax(log p1 + weight * opinion)(i): the mass of all candidates stays what it was
    mixed = (block + weight * opinion).log_softmax(1) + block.logsumexp(1, keepdim=True)
    # a candidate that would fall below the rest stands just above it, in the order of the mixture
    order = mixed.argsort(dim=1, descending=True, stable=True)
    steps = torch.arange(items.shape[1], 0, -1, device=items.device, dtype=mixed.dtype).expand_as(mixed)
    least = floor[:, None] + STEP * torch.empty_like(mixed).scatter_(1, order, steps)
    rows, columns = listed.nonzero(as_tuple=True)
    result = scores.clone()
    result[rows, items[rows, columns]] = torch.maximum(mixed, least)[rows, columns]
    return result


def _padded(rows: Sequence[Sequence[float]], width: int) -> Tensor:
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows])

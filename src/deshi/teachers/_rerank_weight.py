"""The choice of a reranker's weight on validation, by few answers, with the interval of the gain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.arrays import Floats, Ints
from deshi.data.example_batches import ExampleBatch
from deshi.metrics import example_ranks, metrics_per_example, rank_rows
from deshi.teachers._rerank_questions import Opinion, Question
from deshi.types import PAD

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
ALONE = 1e4
"""A weight beside which the first stage only decides ties: the figure of the chat model alone."""
FOLDS = 5
NORMAL_95 = 1.959964
SELECTION = "ndcg@10"

Blend = Callable[[Tensor, Tensor, Tensor, float, Tensor], Tensor]


class RerankPool:
    """Validation examples: the first stage's ranks of all targets, and candidates with their scores.

    A target among the candidates is ranked among them alone, since they stay above the rest; a target that isn't one
    keeps its rank whatever a chat model answers. So only examples with a target among the candidates need be asked.

    Attributes:
        questions: of each example.
    """

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self._ranks: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._items: list[Tensor] = []
        self._scores: list[Tensor] = []
        self._floors: list[Tensor] = []

    def add(
        self, batch: ExampleBatch, scores: Tensor, items: Tensor, floors: Tensor, questions: Sequence[Question]
    ) -> None:
        """Keep the examples of a batch: ``scores`` ``(B, N)``, candidates ``items`` ``(B, K)``, ``floors`` ``(B,)``."""
        self.questions += questions
        ranks = rank_rows(scores, batch.targets, batch.seen)[0]
        self._ranks += list(ranks)
        self._targets += list(batch.targets)
        self._items += list(items)
        self._scores += list(scores.gather(1, items.clamp(min=0)))
        self._floors += list(floors)

    def __len__(self) -> int:
        return len(self.questions)

    def drawn(self, size: int, seed: int) -> list[int]:
        """At most ``size`` examples with a target among two candidates or more, drawn by ``seed``, ascending."""
        numbers = np.array(self.answerable, dtype=np.int64)
        generator = np.random.Generator(np.random.SFC64([seed, len(self)]))
        return sorted(int(number) for number in generator.permutation(numbers)[:size])

    @property
    def answerable(self) -> list[int]:
        """The examples whose ranks an answer can change."""
        return [
            number
            for number in range(len(self))
            if len(self.questions[number].candidates) > 1 and bool(self._listed(number).any())
        ]

    def first_metrics(self) -> dict[str, Floats]:
        """Every metric at 10 of each example ``(C,)`` by the first stage; NaN without targets."""
        return _metrics(self._ranks)

    def metrics(
        self, numbers: Sequence[int], opinions: Sequence[Opinion | None], blend: Blend, weight: float
    ) -> dict[str, Floats]:
        """Every metric at 10 of some examples by a blend; of a refused answer, by the first stage."""
        ranks = []
        for number, opinion in zip(numbers, opinions, strict=True):
            if opinion is None or not weight:
                ranks.append(self._ranks[number])
            else:
                ranks.append(self._ranks_among(number, opinion, blend, weight))
        return _metrics(ranks)

    def _listed(self, number: int) -> Tensor:
        """``(T, K)`` whether a target is a candidate."""
        targets, items = self._targets[number], self._items[number]
        return (targets[:, None] == items[None]) & (targets != PAD)[:, None]

    def _ranks_among(self, number: int, opinion: Opinion, blend: Blend, weight: float) -> Tensor:
        """The ranks ``(T,)`` of targets, those of candidates being among the candidates."""
        count = len(opinion)
        # the candidates alone as a catalogue of their own: item k is candidate k
        own = torch.arange(count)[None]
        scores = self._scores[number][None, :count]
        mixed = blend(scores, own, torch.tensor([opinion]), weight, self._floors[number][None])[0]
        higher = (mixed[None] > mixed[:, None]).sum(1)
        tied = (mixed[None] == mixed[:, None]).sum(1) - 1
        among = 1 + higher + tied.double() / 2
        listed = self._listed(number)[:, :count]
        return torch.where(listed.any(1), (listed.double() * among).sum(1), self._ranks[number])


def _metrics(ranks: Sequence[Tensor]) -> dict[str, Floats]:
    numbers = [np.full(len(row), number) for number, row in enumerate(ranks)]
    everything, examples = torch.cat(list(ranks)).numpy(), np.concatenate(numbers)
    real = ~np.isnan(everything)
    grouped = example_ranks(everything[real], examples[real], len(ranks))
    values = metrics_per_example(grouped, (10,))
    return {name: np.where(grouped.sizes > 0, column, np.nan) for name, column in values.items()}


@dataclass(frozen=True)
class WeightChoice:
    """A weight and what it gains on validation.

    Attributes:
        weight: chosen, or the one that was given.
        tried: every weight with its NDCG@10 on all validation examples, estimated from those asked.
        examples: validation examples with targets.
        answerable: of these, with a target among the candidates.
        asked: of these, asked about.
        refused: of these, with an answer that could not be used.
        first: NDCG@10 of the first stage.
        alone: of the chat model's order of the candidates.
        gain: of the blend, with each part of the examples measured by the weight that the others choose.
        low, high: its 95 % interval over examples.
        metrics: at 10 with the weight, as ``validation/NAME``.
    """

    weight: float
    tried: list[dict[str, float]]
    examples: int
    answerable: int
    asked: int
    refused: int
    first: float
    alone: float
    gain: float
    low: float
    high: float
    metrics: dict[str, float]

    def state(self) -> dict[str, Any]:
        """JSON-able: ``weight``, ``tried``, and the rest as ``validation``."""
        values = {name: value for name, value in asdict(self).items() if name != "metrics"}
        return {name: values.pop(name) for name in ("weight", "tried")} | {"validation": values}

    def __str__(self) -> str:
        return (
            f"weight {self.weight:g}: NDCG@10 {self.first:.4f} of the first stage, {self.gain:+.4f} "
            f"({self.low:+.4f} to {self.high:+.4f}) with the answers, {self.alone:.4f} by the answers alone; asked "
            f"about {self.asked} of {self.answerable} examples with a target among the candidates, of {self.examples} "
            f"in all; {self.refused} answers refused"
        )


def choose_weight(
    pool: RerankPool, numbers: list[int], opinions: Sequence[Opinion | None], blend: Blend, given: float | None
) -> WeightChoice:
    """The weight with the best NDCG@10 on the examples that were asked about, the smallest of equals.

    Args:
        pool: of all validation examples.
        numbers: the examples that were asked about.
        opinions: of these.
        blend: of the scores.
        given: a weight that is not to be chosen but measured.
    """
    first, answerable = pool.first_metrics(), len(pool.answerable)
    full = ~np.isnan(first[SELECTION])
    base = {name: float(values[full].mean()) if full.any() else float("nan") for name, values in first.items()}
    share = answerable / max(1, int(full.sum()))
    weights = WEIGHTS if given is None else (0.0, given)
    gains: dict[float, dict[str, Floats]] = {}
    for weight in (*weights, ALONE):
        metrics = pool.metrics(numbers, opinions, blend, weight) if numbers else {}
        gains[weight] = {name: values - first[name][numbers] for name, values in metrics.items()}

    def mean(weight: float, name: str = SELECTION) -> float:
        return share * float(gains[weight][name].mean()) if numbers else 0.0

    by_example = np.stack([gains[weight][SELECTION] for weight in weights]) if numbers else np.zeros((len(weights), 0))
    weight = float(given) if given is not None else weights[_best(by_example)]
    held_out = _held_out_gains(by_example) if given is None else by_example[-1]
    gain, spread = _estimate(held_out, share, int(full.sum()))
    return WeightChoice(
        weight=weight,
        tried=[{"weight": each, SELECTION: base[SELECTION] + mean(each)} for each in weights],
        examples=int(full.sum()), answerable=answerable, asked=len(numbers),
        refused=sum(opinion is None for opinion in opinions), first=base[SELECTION],
        alone=base[SELECTION] + mean(ALONE), gain=gain, low=gain - NORMAL_95 * spread, high=gain + NORMAL_95 * spread,
        metrics={f"validation/{name}": value + mean(weight, name) for name, value in base.items()},
    )  # fmt: skip


def _best(gains: Floats) -> int:
    """The first row of ``gains`` ``(W, M)`` with the highest mean; the first of all without examples."""
    return int(gains.mean(1).argmax()) if gains.shape[1] else 0


def _held_out_gains(gains: Floats) -> Floats:
    """The gain of each example ``(M,)`` by the weight that is best on the folds without it."""
    count = gains.shape[1]
    folds: Ints = np.random.default_rng(count).permutation(count) % FOLDS
    held_out = np.zeros(count)
    for fold in np.unique(folds):
        inside: NDArray[np.bool_] = folds == fold
        held_out[inside] = gains[_best(gains[:, ~inside]), inside]
    return held_out


def _estimate(gains: Floats, share: float, examples: int) -> tuple[float, float]:
    """The mean gain over all examples and its standard error, from those asked of the answerable ``share``.

    The others gain exactly nothing: the variance is that of the asked ones' mean, and that of the share.
    """
    if len(gains) < 2:
        return share * float(gains.sum()), float("nan")
    mean = float(gains.mean())
    variance = share**2 * float(gains.var(ddof=1)) / len(gains) + share * (1 - share) * mean**2 / examples
    return share * mean, sqrt(variance)

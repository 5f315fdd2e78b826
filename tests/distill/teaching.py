"""Small lists, contexts and the whole-matrix reference for the tests of distillation terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from deshi.distillation.score_chunk import ScoreChunk
from deshi.distillation.score_terms import SoftmaxWithTerms
from deshi.distillation.soft_label_batches import SoftLabelBatch
from deshi.distillation.term import Context, Term
from deshi.types import PAD, ScoreKind

POSITIONS, ITEMS, DIM, WIDTH = 12, 30, 8, 6


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lists(lengths: Sequence[int], k: int, n_items: int = ITEMS, kind: str = "logit", seed: int = 0) -> SoftLabelBatch:
    """Random lists of the given lengths, padded to ``k``, with falling scores in the kind's range."""
    generator = seeded(seed)
    items = torch.full((len(lengths), k), PAD)
    scores = torch.zeros(len(lengths), k)
    for row, length in enumerate(lengths):
        items[row, :length] = torch.randperm(n_items, generator=generator)[:length]
        logits = torch.randn(length, generator=generator).sort(descending=True).values * 2
        known = {"log_probability": logits.log_softmax(0) - 0.5, "probability": logits.softmax(0) * 0.7}
        scores[row, :length] = known.get(kind, logits)
    return SoftLabelBatch(items, scores, ScoreKind(kind))


def context(kind: str = "logit", k: int = 8, n_items: int = ITEMS) -> Context:
    """What a run would tell terms: counts of a long tail, teacher's vectors."""
    counts = (100 / torch.arange(1, n_items + 1)).long()
    vectors = torch.randn(n_items, WIDTH, generator=seeded(3)) + 2
    return Context(n_items, DIM, ScoreKind(kind), k, counts, vectors)


def prepared(term: Term, kind: str = "logit", k: int = 8, n_items: int = ITEMS) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        term.prepare(context(kind, k, n_items))
    return term


def chunk_of(scores: Tensor, signal: SoftLabelBatch, targets: Tensor | None = None, seed: int = 0) -> ScoreChunk:
    """A chunk for hand values; without targets there are none."""
    targets = torch.full((len(scores),), PAD) if targets is None else targets
    return ScoreChunk(scores.clone(), targets, signal, seeded(seed))


class Whole(ScoreChunk):
    """A chunk whose scores are a part of autograd's graph: the plain reference."""

    def __init__(self, live: Tensor, targets: Tensor, signal: SoftLabelBatch, generator: torch.Generator) -> None:
        super().__init__(live.detach(), targets, signal, generator)
        self.live = live

    def scores_of(self, items: Tensor) -> Tensor:
        return self.live.gather(1, items.clamp(min=0)).masked_fill(items == PAD, 0.0)

    def whole(self) -> Tensor:
        return self.live

    def logsumexp(self, temperature: float = 1.0) -> Tensor:
        return (self.live / temperature).logsumexp(1)


def reference(hidden: Tensor, table: Tensor, loss: SoftmaxWithTerms, weights: Sequence[float]) -> Tensor:
    """What the fused pass must give, by autograd through the matrix of all scores."""
    scores = hidden @ table.T
    has_target, distilled = loss.targets != PAD, len(loss.soft_labels)
    total = weights[0] * F.cross_entropy(scores[has_target], loss.targets[has_target])
    for term, weight in zip(loss.terms, weights[1:], strict=True):
        values = []
        for part in loss.chunks:
            labels = loss.soft_labels.part(part)
            if len(labels):
                values.append(term(Whole(scores[part], loss.targets[part], labels, loss.generator)))
        total = total + weight * torch.cat(values).sum() / distilled
    return total

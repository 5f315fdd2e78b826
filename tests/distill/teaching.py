"""Small lists, contexts and the whole-matrix reference for the tests of distillation terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deshi.distillation.chunk import Chunk
from deshi.distillation.fused import Pass
from deshi.distillation.soft_label_batches import Signal
from deshi.distillation.term import Context, Term
from deshi.types import PAD

POSITIONS, ITEMS, DIM, WIDTH = 12, 30, 8, 6


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lists(lengths: Sequence[int], k: int, n_items: int = ITEMS, kind: str = "logit", seed: int = 0) -> Signal:
    """Random lists of the given lengths, padded to ``k``, with falling scores in the kind's range."""
    generator = seeded(seed)
    items = torch.full((len(lengths), k), PAD)
    scores = torch.zeros(len(lengths), k)
    for row, length in enumerate(lengths):
        items[row, :length] = torch.randperm(n_items, generator=generator)[:length]
        logits = torch.randn(length, generator=generator).sort(descending=True).values * 2
        known = {"log_probability": logits.log_softmax(0) - 0.5, "probability": logits.softmax(0) * 0.7}
        scores[row, :length] = known.get(kind, logits)
    return Signal(items, scores, kind)


def context(kind: str = "logit", k: int = 8, n_items: int = ITEMS) -> Context:
    """What a run would tell terms: counts of a long tail, teacher's vectors."""
    counts = (100 / torch.arange(1, n_items + 1)).long()
    vectors = torch.randn(n_items, WIDTH, generator=seeded(3)) + 2
    return Context(n_items, DIM, kind, k, counts, vectors)


def prepared(term: Term, kind: str = "logit", k: int = 8, n_items: int = ITEMS) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        term.prepare(context(kind, k, n_items))
    return term


def chunk_of(scores: Tensor, signal: Signal, targets: Tensor | None = None, seed: int = 0) -> Chunk:
    """A chunk for hand values; without targets there are none."""
    targets = torch.full((len(scores),), PAD) if targets is None else targets
    return Chunk(scores.clone(), targets, signal, seeded(seed))


class Whole(Chunk):
    """A chunk whose scores are a part of autograd's graph: the plain reference."""

    def __init__(self, live: Tensor, targets: Tensor, signal: Signal, generator: torch.Generator) -> None:
        super().__init__(live.detach(), targets, signal, generator)
        self.live = live

    def at(self, items: Tensor) -> Tensor:
        return self.live.gather(1, items.clamp(min=0)).masked_fill(items == PAD, 0.0)

    def whole(self) -> Tensor:
        return self.live

    def logsumexp(self, temperature: float = 1.0) -> Tensor:
        return (self.live / temperature).logsumexp(1)


def reference(hidden: Tensor, table: Tensor, work: Pass) -> Tensor:
    """What the fused pass must give, by autograd through the matrix of all scores."""
    scores = hidden @ table.T
    sums = [hidden.new_zeros(()) for _ in work.weights]
    for part, distilled in work.parts():
        signal = work.signal.part(part) if distilled else work.signal.part(slice(0, 0))
        chunk = Whole(scores[part], work.targets[part], signal, work.generator)
        for number, value in enumerate(work.values(chunk, distilled)):
            sums[number] = sums[number] + value
    told, taught = int((work.targets != PAD).sum()), len(work.signal.items)
    parts = zip(work.weights, sums, [told] + [taught] * len(work.terms), strict=True)
    return torch.stack([weight * value / count for weight, value, count in parts]).sum()

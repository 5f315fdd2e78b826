"""The contract of distillation terms over scores, with small lists and an autograd reference to test them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deshi.distillation.score_chunk import ScoreChunk
from deshi.distillation.score_terms import SoftmaxWithTerms
from deshi.distillation.soft_label_batches import SoftLabelBatch
from deshi.distillation.term import Context, ScoreTerm, Term
from deshi.losses.fused_pass import fused_pass
from deshi.types import PAD, ScoreKind

POSITIONS, ITEMS, DIM, WIDTH = 12, 30, 8, 6
WEIGHTS = (0.3, 0.7)
"""Of the cross-entropy and of the term."""
SHAPES = {
    "whole lists": ([8] * 9, 8, ITEMS),
    "short lists": ([8, 1, 3, 2, 5, 8, 1, 7, 4], 8, ITEMS),
    "one item": ([1] * 9, 1, ITEMS),
    "longer than the catalogue": ([6, 6, 5, 6, 2, 1, 6, 4, 6], 8, 6),
}
"""Lengths of the lists, their padded length, number of items."""


@dataclass(frozen=True)
class TermExample:
    """A term with the exceptions that its formula needs.

    Attributes:
        build: makes a new term.
        reaches_unlisted: whether the gradient reaches items that aren't listed.
        tolerance: of its gradients against autograd's, for formulas that lose digits in float32.
    """

    build: Callable[[], ScoreTerm]
    reaches_unlisted: bool = False
    tolerance: tuple[float, float] = (1e-4, 1e-6)

    def loss(self, shape: str, chunk: int = 512) -> tuple[Tensor, Tensor, SoftmaxWithTerms]:
        """Hidden states, an item table and the loss with the term, for lists of one of :data:`SHAPES`."""
        lengths, k, n_items = SHAPES[shape]
        term = prepared(self.build(), k=k, n_items=n_items)
        hidden = torch.randn(POSITIONS, DIM, generator=seeded(1))
        table = torch.randn(n_items, DIM, generator=seeded(2))
        targets = torch.randint(n_items, (POSITIONS,), generator=seeded(4))
        targets[2] = PAD
        loss = SoftmaxWithTerms(targets, lists(lengths, k, n_items), [term], WEIGHTS, chunk, seeded(5))
        return hidden.requires_grad_(), table.requires_grad_(), loss


class TermContract:
    """Inherit as ``class TestMine(TermContract)`` and override :meth:`example`."""

    @pytest.fixture
    def example(self) -> TermExample:
        """The term."""
        raise NotImplementedError("Override the fixture `example` of TermContract.")

    @pytest.mark.parametrize("shape", SHAPES)
    def test_gradient_is_autograds(self, example: TermExample, shape: str) -> None:
        """A term reaches the matrix through few numbers; the gradient must be that of the whole matrix nonetheless."""
        rtol, atol = example.tolerance
        for chunk in (512, 5):
            hidden, table, loss = example.loss(shape, chunk)
            value, sums = fused_pass(hidden, table, loss)
            gradients = torch.autograd.grad(value, (hidden, table))
            loss.generator.manual_seed(5)
            expected = reference(hidden, table, loss, WEIGHTS)
            assert value.isfinite() and sums.isfinite().all()
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
            for left, right in zip(gradients, torch.autograd.grad(expected, (hidden, table)), strict=True):
                torch.testing.assert_close(left, right, rtol=rtol, atol=atol)

    def test_moves_the_student_and_repeats(self, example: TermExample) -> None:
        """A term without gradient teaches nothing; a term with an unseeded stream would spoil a resumed run."""
        hidden, table, loss = example.loss("whole lists")
        labels, targets = loss.soft_labels, loss.targets[: len(loss.soft_labels)]
        scores = (hidden @ table.T).detach()[: len(labels)]
        gradients = []
        for _ in range(2):
            chunk = chunk_of(scores, labels, targets)
            value = loss.terms[0](chunk)
            assert value.shape == (len(scores),)
            gradients.append(chunk.gradient_in_place(value.sum()))
        assert gradients[0].abs().sum() > 0
        assert torch.equal(gradients[0], gradients[1])

    @pytest.mark.parametrize("scale", [1e2, 1e4])
    def test_extreme_scores_stay_finite(self, example: TermExample, scale: float) -> None:
        """A diverging student must end in a large loss, not in NaN weights."""
        for lengths, k, n_items in SHAPES.values():
            term = prepared(example.build(), k=k, n_items=n_items)
            scores = torch.randn(len(lengths), n_items, generator=seeded(1)) * scale
            for sign in (1, -1):
                targets = torch.randint(n_items, (len(lengths),), generator=seeded(4))
                chunk = chunk_of(sign * scores, lists(lengths, k, n_items), targets)
                value = term(chunk)
                assert value.isfinite().all()
                assert chunk.gradient_in_place(value.sum()).isfinite().all()

    def test_padding_learns_nothing(self, example: TermExample) -> None:
        """Padding must not be mistaken for item 0, nor for any item that isn't listed."""
        if example.reaches_unlisted:
            pytest.skip("the term's formula reaches items that aren't listed")
        term, labels = prepared(example.build()), lists([8, 1, 3, 2], 8)
        chunk = chunk_of(torch.randn(4, ITEMS, generator=seeded(1)), labels)
        gradient = chunk.gradient_in_place(term(chunk).sum())
        unlisted = torch.ones(4, ITEMS + 1, dtype=torch.bool)
        unlisted.scatter_(1, labels.items.where(labels.listed, ITEMS), False)
        assert not gradient[unlisted[:, :ITEMS]].any()

    def test_runs_in_bf16(self, example: TermExample) -> None:
        """Mixed precision rounds the products, not the terms."""
        hidden, table, loss = example.loss("short lists")
        value, _ = fused_pass(hidden, table, loss, torch.bfloat16)
        gradients = torch.autograd.grad(value, (hidden, table))
        exact, _ = fused_pass(*example.loss("short lists"))
        assert value.dtype == torch.float32 and all(gradient.isfinite().all() for gradient in gradients)
        torch.testing.assert_close(value, exact, rtol=0.1, atol=0.05)


def seeded(seed: int) -> torch.Generator:
    """A generator with a seed."""
    return torch.Generator().manual_seed(seed)


def lists(lengths: Sequence[int], k: int, n_items: int = ITEMS, kind: str = "logit", seed: int = 0) -> SoftLabelBatch:
    """Random lists of the given lengths, padded to ``k``, with falling scores in the kind's range."""
    generator = seeded(seed)
    items = torch.full((len(lengths), k), PAD)
    scores = torch.zeros(len(lengths), k)
    for row, length in enumerate(lengths):
        items[row, :length] = torch.randperm(n_items, generator=generator)[:length]
        logits = torch.randn(length, generator=generator).sort(descending=True).values * 2
        scaled = {"log_probability": logits.log_softmax(0) - 0.5, "probability": logits.softmax(0) * 0.7}
        scores[row, :length] = scaled.get(kind, logits)
    return SoftLabelBatch(items, scores, ScoreKind(kind))


def context(kind: str = "logit", k: int = 8, n_items: int = ITEMS) -> Context:
    """A context of a long-tailed catalogue with random item vectors of the teacher."""
    counts = (100 / torch.arange(1, n_items + 1)).long()
    vectors = torch.randn(n_items, WIDTH, generator=seeded(3)) + 2
    return Context(n_items, DIM, ScoreKind(kind), k, counts, vectors)


def prepared(term: Term, kind: str = "logit", k: int = 8, n_items: int = ITEMS) -> Any:
    """The term, prepared on :func:`context`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        term.prepare(context(kind, k, n_items))
    return term


def chunk_of(scores: Tensor, soft_labels: SoftLabelBatch, targets: Tensor | None = None, seed: int = 0) -> ScoreChunk:
    """A chunk of given scores; without targets there are none."""
    targets = torch.full((len(scores),), PAD) if targets is None else targets
    return ScoreChunk(scores.clone(), targets, soft_labels, seeded(seed))


class WholeChunk(ScoreChunk):
    """A chunk whose scores are part of autograd's graph: the plain reference."""

    def __init__(self, live: Tensor, targets: Tensor, soft_labels: SoftLabelBatch, generator: torch.Generator) -> None:
        super().__init__(live.detach(), targets, soft_labels, generator)
        self.live = live

    def scores_of(self, items: Tensor) -> Tensor:
        """See :meth:`ScoreChunk.scores_of`."""
        return self.live.gather(1, items.clamp(min=0)).masked_fill(items == PAD, 0.0)

    def whole(self) -> Tensor:
        """See :meth:`ScoreChunk.whole`."""
        return self.live

    def logsumexp(self, temperature: float = 1.0) -> Tensor:
        """See :meth:`ScoreChunk.logsumexp`."""
        return (self.live / temperature).logsumexp(1)


def reference(hidden: Tensor, table: Tensor, loss: SoftmaxWithTerms, weights: Sequence[float]) -> Tensor:
    """The value that the fused pass must give, by autograd through the matrix of all scores."""
    scores = hidden @ table.T
    has_target = loss.targets != PAD
    total = weights[0] * F.cross_entropy(scores[has_target], loss.targets[has_target])
    for term, weight in zip(loss.terms, weights[1:], strict=True):
        values = []
        for part in loss.chunks:
            labels = loss.soft_labels.part(part)
            if len(labels):
                values.append(term(WholeChunk(scores[part], loss.targets[part], labels, loss.generator)))
        total = total + weight * torch.cat(values).sum() / len(loss.soft_labels)
    return total

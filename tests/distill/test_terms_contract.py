"""What every term over scores promises, whatever its formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from teaching import DIM, ITEMS, POSITIONS, chunk_of, lists, prepared, reference, seeded
from torch import Tensor

from deshi.distillation.cd import CD
from deshi.distillation.dllm2rec import DLLM2Rec, DLLM2RecReleased
from deshi.distillation.dro import DRO
from deshi.distillation.listwise import ListwiseKL
from deshi.distillation.margin_mse import MarginMSE
from deshi.distillation.rd import RD
from deshi.distillation.rrd import RRD
from deshi.distillation.score_terms import SoftmaxWithTerms
from deshi.distillation.term import ScoreTerm
from deshi.distillation.unkd import UnKD
from deshi.losses.fused_pass import fused_pass
from deshi.types import PAD

TERMS: dict[str, Callable[[], ScoreTerm]] = {
    "listwise": ListwiseKL,
    "listwise-bucket": lambda: ListwiseKL(other_items="bucket", other_share=0.2, temperature=2.0),
    "dllm2rec": DLLM2Rec,
    "dllm2rec-robust": lambda: DLLM2Rec(top_k=4, alpha=0.5),
    "dllm2rec-released": lambda: DLLM2RecReleased(top_k=4, alpha=1.0),
    "dro": DRO,
    "rd": lambda: RD(decay=3.0),
    "rd-positions": lambda: RD(mu=None),
    "cd": CD,
    "cd-student": lambda: CD(guide="student", labels="ranks"),
    "rrd": RRD,
    "rrd-drawn": lambda: RRD(interesting=3, uninteresting=5),
    "unkd": UnKD,
    "unkd-groups": lambda: UnKD(groups=2, pairs=7),
    "margin-mse": MarginMSE,
}
DRAWING = {"dllm2rec", "dllm2rec-robust", "dllm2rec-released", "dro", "rrd", "rrd-drawn", "listwise-bucket"}
"""Terms whose gradient reaches items beyond the list."""

ROBUST = {"dro", "dllm2rec-robust", "dllm2rec-released"}
"""Terms with squared scores in exponents, which lose digits in float32 however they are computed."""

WEIGHTS = (0.3, 0.7)
SHAPES = {
    "whole lists": ([8] * 9, 8, ITEMS),
    "short lists": ([8, 1, 3, 2, 5, 8, 1, 7, 4], 8, ITEMS),
    "one item": ([1] * 9, 1, ITEMS),
    "longer than the catalogue": ([6, 6, 5, 6, 2, 1, 6, 4, 6], 8, 6),
}


def _work(name: str, shape: str, chunk: int = 512) -> tuple[Tensor, Tensor, SoftmaxWithTerms]:
    lengths, k, n_items = SHAPES[shape]
    term = prepared(TERMS[name](), k=k, n_items=n_items)
    hidden = torch.randn(POSITIONS, DIM, generator=seeded(1))
    table = torch.randn(n_items, DIM, generator=seeded(2))
    targets = torch.randint(n_items, (POSITIONS,), generator=seeded(4))
    targets[2] = PAD
    signal = lists(lengths, k, n_items)
    loss = SoftmaxWithTerms(targets, signal, [term], WEIGHTS, chunk, seeded(5))
    return hidden.requires_grad_(), table.requires_grad_(), loss


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", TERMS)
def test_gradient_is_autograds(name: str, shape: str) -> None:
    """A term reaches the matrix through few numbers; the gradient must be that of the whole matrix nonetheless."""
    tolerance = {"rtol": 2e-3, "atol": 3e-5} if name in ROBUST else {"rtol": 1e-4, "atol": 1e-6}
    for chunk in (512, 5):
        hidden, table, work = _work(name, shape, chunk)
        value, means = fused_pass(hidden, table, work)
        found = torch.autograd.grad(value, (hidden, table))
        work.generator.manual_seed(5)
        expected = reference(hidden, table, work, WEIGHTS)
        assert value.isfinite() and means.isfinite().all()
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
        for got, wanted in zip(found, torch.autograd.grad(expected, (hidden, table)), strict=True):
            torch.testing.assert_close(got, wanted, **tolerance)


@pytest.mark.parametrize("name", TERMS)
def test_moves_the_student_and_repeats(name: str) -> None:
    """A term without gradient teaches nothing; a term with random numbers of its own would spoil a resumed run."""
    hidden, table, work = _work(name, "whole lists")
    signal, targets = work.soft_labels, work.targets[: len(work.soft_labels)]
    scores = (hidden @ table.T).detach()[: len(signal.items)]
    slopes = []
    for _ in range(2):
        chunk = chunk_of(scores, signal, targets)
        value = work.terms[0](chunk)
        assert value.shape == (len(scores),)
        slopes.append(chunk.gradient_in_place(value.sum()))
    assert slopes[0].abs().sum() > 0
    assert torch.equal(slopes[0], slopes[1])


@pytest.mark.parametrize("scale", [1e2, 1e4])
@pytest.mark.parametrize("name", TERMS)
def test_extreme_scores_stay_finite(name: str, scale: float) -> None:
    """A diverging student must end in a large loss, not in NaN weights."""
    for shape in SHAPES:
        lengths, k, n_items = SHAPES[shape]
        term = prepared(TERMS[name](), k=k, n_items=n_items)
        scores = torch.randn(len(lengths), n_items, generator=seeded(1)) * scale
        for sign in (1, -1):
            signal = lists(lengths, k, n_items)
            chunk = chunk_of(sign * scores, signal, torch.randint(n_items, (len(lengths),), generator=seeded(4)))
            value = term(chunk)
            assert value.isfinite().all()
            assert chunk.gradient_in_place(value.sum()).isfinite().all()


@pytest.mark.parametrize("name", sorted(set(TERMS) - DRAWING))
def test_padding_learns_nothing(name: str) -> None:
    """Padding must not be mistaken for item 0, nor for any item that isn't listed."""
    term = prepared(TERMS[name]())
    signal = lists([8, 1, 3, 2], 8)
    scores = torch.randn(4, ITEMS, generator=seeded(1))
    chunk = chunk_of(scores, signal, torch.full((4,), PAD))
    slope = chunk.gradient_in_place(term(chunk).sum())
    outside = torch.ones(4, ITEMS + 1, dtype=torch.bool)
    outside.scatter_(1, signal.items.where(signal.items != PAD, ITEMS), False)
    assert not slope[outside[:, :ITEMS]].any()


@pytest.mark.parametrize("name", TERMS)
def test_runs_in_bf16(name: str) -> None:
    """Mixed precision rounds the products, not the terms."""
    hidden, table, work = _work(name, "short lists")
    value, _ = fused_pass(hidden, table, work, torch.bfloat16)
    slopes = torch.autograd.grad(value, (hidden, table))
    exact, _ = fused_pass(*_work(name, "short lists"))
    assert value.dtype == torch.float32 and all(slope.isfinite().all() for slope in slopes)
    torch.testing.assert_close(value, exact, rtol=0.1, atol=0.05)

"""The fused softmax against PyTorch's own, value and gradients, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deshi.losses.softmax import Softmax, fused_softmax
from deshi.types import PAD, DeshiError, ShapeError


def problem(positions: int, n_items: int, dim: int, scale: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(positions, dim, generator=generator) * scale
    table = torch.randn(n_items, dim, generator=generator)
    return hidden, table, torch.randint(n_items, (positions,), generator=generator)


def value_and_gradients(
    hidden: Tensor, table: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> list[Tensor]:
    hidden, table = hidden.clone().requires_grad_(), table.clone().requires_grad_()
    value = loss(hidden, table, targets)
    value.backward()
    assert hidden.grad is not None and table.grad is not None
    return [value.detach(), hidden.grad, table.grad]


def plain(hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(hidden @ table.T, targets)


def test_hand_value() -> None:
    """Scores 1 and 0 with the first as target: log(1 + exp(-1))."""
    hidden, table = torch.tensor([[1.0, 0.0]]), torch.eye(2)
    assert fused_softmax(hidden, table, torch.tensor([0])).item() == pytest.approx(math.log(1 + math.exp(-1)))


@pytest.mark.parametrize("chunk", [1, 7, 64, 4096])
def test_equals_cross_entropy_in_fp32(chunk: int) -> None:
    """Loss and both gradients must be cross-entropy's to 1e-5, wherever the chunks end."""
    inputs = problem(positions=200, n_items=313, dim=32, scale=0.5)
    fused = value_and_gradients(*inputs, loss=partial(fused_softmax, chunk=chunk))
    for got, wanted in zip(fused, value_and_gradients(*inputs, loss=plain), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
        assert ((got - wanted).norm() / wanted.norm()).item() < 1e-5, "gradients are small: an absolute bound is weak"


def test_large_scores_do_not_overflow() -> None:
    """Scores in the thousands must give the same finite loss as cross-entropy."""
    inputs = problem(positions=20, n_items=50, dim=8, scale=500.0)
    fused = value_and_gradients(*inputs, loss=fused_softmax)
    for got, wanted in zip(fused, value_and_gradients(*inputs, loss=plain), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-5)


def test_bf16_gradients_are_near_the_fp32_ones() -> None:
    """Parity of bf16 products: relative L2 error under 1 % of each gradient (measured 0.4 %), 0.1 % of the loss."""
    inputs = problem(positions=1024, n_items=2000, dim=64, scale=0.3)
    rough = value_and_gradients(*inputs, loss=partial(fused_softmax, dtype=torch.bfloat16))
    exact = value_and_gradients(*inputs, loss=plain)
    assert rough[0].item() == pytest.approx(exact[0].item(), rel=1e-3)
    for got, wanted in zip(rough[1:], exact[1:], strict=True):
        assert got.dtype == torch.float32
        assert ((got - wanted).norm() / wanted.norm()).item() < 0.01
        assert F.cosine_similarity(got.flatten(), wanted.flatten(), dim=0).item() > 0.9999


def test_module_follows_autocast() -> None:
    """The module takes bf16 products under autocast and exact ones outside it."""
    inputs = problem(positions=64, n_items=100, dim=16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = Softmax()(*inputs)
    assert rough.item() == fused_softmax(*inputs, dtype=torch.bfloat16).item()
    assert Softmax()(*inputs).item() == fused_softmax(*inputs).item() != rough.item()


def test_gradient_scales_with_what_follows_the_loss() -> None:
    """Losses are weighted terms of a sum: the gradient must carry the weight."""
    inputs = problem(positions=10, n_items=20, dim=4)
    single = value_and_gradients(*inputs, loss=fused_softmax)
    triple = value_and_gradients(*inputs, loss=lambda *args: 3 * fused_softmax(*args))
    for got, wanted in zip(triple, single, strict=True):
        torch.testing.assert_close(got, 3 * wanted)


@pytest.mark.parametrize("frozen", ["hidden", "table", "both"])
def test_frozen_inputs(frozen: str) -> None:
    """A frozen table or frozen states must not break the loss, nor get a gradient."""
    hidden, table, targets = problem(positions=10, n_items=20, dim=4)
    hidden.requires_grad_(frozen == "table")
    table.requires_grad_(frozen == "hidden")
    value = fused_softmax(hidden, table, targets)
    assert torch.isfinite(value)
    if frozen != "both":
        value.backward()
        assert (hidden.grad is None) == (frozen == "hidden")
        assert (table.grad is None) == (frozen == "table")


def test_no_gradient_mode() -> None:
    """Validation computes losses without gradients: the value must be the same."""
    inputs = problem(positions=10, n_items=20, dim=4)
    with torch.no_grad():
        assert fused_softmax(*inputs).item() == pytest.approx(plain(*inputs).item(), abs=1e-6)


def test_nan_stays_visible() -> None:
    """A NaN in the states must come out as a NaN loss, never as a harmless number."""
    hidden, table, targets = problem(positions=10, n_items=20, dim=4)
    hidden[3, 1] = float("nan")
    assert math.isnan(fused_softmax(hidden, table, targets).item())


def test_one_item_catalogue() -> None:
    """With a single item there is nothing to learn: loss and gradients are zero."""
    hidden, table, targets = problem(positions=5, n_items=1, dim=4)
    value, grad_hidden, grad_table = value_and_gradients(hidden, table, targets, loss=fused_softmax)
    assert value.item() == 0.0
    assert grad_hidden.abs().sum() == grad_table.abs().sum() == 0


def test_chunk_below_one_is_refused() -> None:
    """A chunk of no positions would loop for ever or not at all."""
    with pytest.raises(DeshiError, match="chunk=0"):
        Softmax(chunk=0)


def test_trailing_dimension_names_both_shapes() -> None:
    """A [batch, 1] target broadcasts silently elsewhere; here both shapes are named."""
    hidden, table, targets = problem(positions=10, n_items=20, dim=4)
    with pytest.raises(ShapeError, match=r"targets has shape \(10, 1\), expected \(10\)"):
        fused_softmax(hidden, table, targets[:, None])


def test_padding_targets_are_refused() -> None:
    """Padding isn't an item: the caller leaves those positions out."""
    hidden, table, targets = problem(positions=10, n_items=20, dim=4)
    targets[4] = PAD
    with pytest.raises(DeshiError, match="targets holds -1, expected item indices 0..19"):
        fused_softmax(hidden, table, targets)

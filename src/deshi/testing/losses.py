"""The contract of losses of hidden states against an item table."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deshi.losses.base import Loss
from deshi.types import DeshiError, ShapeError

POSITIONS, ITEMS, DIM = 24, 50, 8


def loss_inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, an item table, both with gradients, and targets."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(POSITIONS, DIM, generator=generator).requires_grad_()
    table = torch.randn(ITEMS, DIM, generator=generator).requires_grad_()
    return hidden, table, torch.randint(ITEMS, (POSITIONS,), generator=generator)


class LossContract:
    """Inherit as ``class TestMine(LossContract)`` and override :meth:`loss`."""

    @pytest.fixture
    def loss(self) -> Loss:
        """A new loss; counts are set by the tests."""
        raise NotImplementedError("Override the fixture `loss` of LossContract.")

    @pytest.fixture(autouse=True)
    def _counts(self, loss: Loss) -> None:
        loss.set_counts(torch.arange(ITEMS))

    def test_value_and_gradients_are_finite(self, loss: Loss) -> None:
        """A finite scalar in fp32 that moves both the states and the items."""
        hidden, table, targets = loss_inputs()
        value = loss(hidden, table, targets)
        value.backward()
        assert value.shape == () and value.dtype == torch.float32 and value.isfinite()
        for tensor in (hidden, table):
            assert tensor.grad is not None and tensor.grad.isfinite().all() and tensor.grad.any()

    def test_same_seed_same_bits(self, loss: Loss) -> None:
        """A resumed run repeats an epoch's draws, whatever the global generator did in between."""
        values = []
        for _ in range(2):
            loss.reseed([3, 1])
            values.append(loss(*loss_inputs()))
            torch.rand(5)
        assert torch.equal(*values)

    def test_training_raises_the_targets(self, loss: Loss) -> None:
        """A loss that is lowered must bring each position's target above the mean item."""
        hidden, table, targets = loss_inputs()
        optimizer = torch.optim.Adam([hidden, table], lr=0.1)
        for _ in range(60):
            optimizer.zero_grad()
            loss(hidden, table, targets).backward()
            optimizer.step()
        scores = (hidden @ table.T).detach()
        assert (scores.gather(1, targets[:, None]).squeeze(1) > scores.mean(1)).all()

    def test_wrong_inputs_are_refused(self, loss: Loss) -> None:
        """A ``(P, 1)`` target or padding among the targets would silently be another loss."""
        hidden, table, targets = loss_inputs()
        with pytest.raises(ShapeError, match="targets has shape"):
            loss(hidden, table, targets[:, None])
        for wrong in (-1, ITEMS):
            with pytest.raises(DeshiError, match=f"targets holds {wrong}"):
                loss(hidden, table, targets.index_fill(0, torch.tensor([0]), wrong))

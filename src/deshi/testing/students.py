"""The contract of students: sequential recommenders with hidden states at every position and an item table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from deshi.losses.softmax import Softmax
from deshi.models.base import HistoryError, SequentialRecommender
from deshi.models.layers import reseed_dropout
from deshi.types import PAD, ShapeError

N_ITEMS, DIM, MAX_LENGTH = 40, 16, 8

Student = TypeVar("Student", bound=SequentialRecommender)

Build = Callable[..., SequentialRecommender]
"""Called as ``build(n_items, dim, max_length, dropout=rate)``."""


def seeded(build: Callable[..., Student], seed: int = 0, dropout: float = 0.0, max_length: int = MAX_LENGTH) -> Student:
    """A network of small sizes with the initial weights of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(N_ITEMS, DIM, max_length, dropout=dropout)


def histories(lengths: list[int], seed: int = 1, width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Random histories of given lengths: items ``(B, width)``, padded on the right, and lengths ``(B,)``."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(lengths)
    width = width or max(lengths)
    items = torch.randint(N_ITEMS, (len(lengths), width), generator=generator)
    return items.masked_fill(torch.arange(width) >= sizes[:, None], PAD), sizes


class StudentContract:
    """Inherit as ``class TestMine(StudentContract)`` and override :meth:`build`."""

    @pytest.fixture
    def build(self) -> Build:
        """The student's class, or a function of ``(n_items, dim, max_length, dropout=rate)`` that builds one."""
        raise NotImplementedError("Override the fixture `build` of StudentContract.")

    def test_padding_elsewhere_than_lengths_say_is_refused(self, build: Build) -> None:
        """Padding inside a history, or items after its end, would silently be read as something else."""
        student = seeded(build)
        for row in ([1, PAD, 2], [1, 2, 3]):
            with pytest.raises(HistoryError, match=r"lengths\[1\]"):
                student(torch.tensor([[4, 5, PAD], row]), torch.tensor([2, 3 if PAD in row else 2]))

    def test_shapes(self, build: Build) -> None:
        """Callers rely on one hidden state per position and one scoring vector per item."""
        student = seeded(build)
        hidden = student(*histories([5, 2, 1]))
        assert hidden.shape == (3, 5, DIM)
        assert student.last_hidden(*histories([5, 2, 1])).shape == (3, DIM)
        assert student.item_table().shape == (N_ITEMS, DIM)
        assert torch.isfinite(hidden).all(), "padded positions must stay finite"

    def test_padding_changes_nothing(self, build: Build) -> None:
        """A history's answer must not depend on how long its neighbours in the batch are."""
        student = seeded(build).eval()
        items, lengths = histories([6, 3, 1], width=MAX_LENGTH)
        together = student(items, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = student(items[row : row + 1, :length], lengths[row : row + 1])
            torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=1e-5)

    def test_no_look_into_the_future(self, build: Build) -> None:
        """If a later item could change an earlier state, training at every position would leak its targets."""
        student = seeded(build).eval()
        items, lengths = histories([MAX_LENGTH, MAX_LENGTH])
        before = student(items, lengths)
        for position in range(1, MAX_LENGTH):
            changed = items.clone()
            changed[:, position:] = (changed[:, position:] + 7) % N_ITEMS
            after = student(changed, lengths)
            torch.testing.assert_close(after[:, :position], before[:, :position], atol=1e-6, rtol=1e-6)
            assert not torch.allclose(after[:, position], before[:, position], atol=1e-4)

    def test_the_order_counts(self, build: Build) -> None:
        """A sequential student that ignores the order of a history isn't one."""
        student = seeded(build).eval()
        ahead = student.last_hidden(torch.tensor([[1, 2, 3]]), torch.tensor([3]))
        swapped = student.last_hidden(torch.tensor([[2, 1, 3]]), torch.tensor([3]))
        assert not torch.allclose(ahead, swapped, atol=1e-4)

    def test_single_item_histories(self, build: Build) -> None:
        """One item is the shortest history there is, and every user begins with it."""
        student = seeded(build).eval()
        hidden = student.last_hidden(torch.tensor([[3], [4]]), torch.tensor([1, 1]))
        assert torch.isfinite(hidden).all()
        assert not torch.allclose(hidden[0], hidden[1], atol=1e-4)

    def test_over_long_histories_keep_their_latest_items(self, build: Build) -> None:
        """Long histories lose their beginning, never their end, also beside shorter ones in the batch."""
        student = seeded(build).eval()
        items, lengths = histories([3 * MAX_LENGTH, 2, MAX_LENGTH + 1])
        hidden = student(items, lengths)
        assert hidden.shape == (3, MAX_LENGTH, DIM)
        cut = [items[0, -MAX_LENGTH:], items[1, :2], items[2, 1 : MAX_LENGTH + 1]]
        for row, history in enumerate(cut):
            alone = student(history[None], torch.tensor([len(history)]))
            torch.testing.assert_close(hidden[row, : len(history)], alone[0], atol=1e-5, rtol=1e-5)
            last = student.last_hidden(items, lengths)[row]
            torch.testing.assert_close(last, alone[0, -1], atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("bad", [N_ITEMS, N_ITEMS + 100, -2])
    def test_unknown_items_are_refused(self, build: Build, bad: int) -> None:
        """An index that the vocabulary doesn't hold would read another item's row or crash far away."""
        with pytest.raises(HistoryError, match=rf"items holds {bad}, expected indices 0..{N_ITEMS - 1}"):
            seeded(build)(torch.tensor([[1, bad]]), torch.tensor([2]))

    def test_empty_histories_are_refused(self, build: Build) -> None:
        """There is no last position to answer from."""
        student = seeded(build)
        with pytest.raises(HistoryError, match="can't answer an empty history"):
            student(torch.tensor([[1], [PAD]]), torch.tensor([1, 0]))
        with pytest.raises(HistoryError, match="a history an item"):
            student(torch.empty(1, 0, dtype=torch.long), torch.zeros(1, dtype=torch.long))

    def test_wrong_shapes_name_both(self, build: Build) -> None:
        """A wrong shape must be understood from its message alone."""
        student = seeded(build)
        with pytest.raises(ShapeError, match=r"lengths has shape \(2, 1\), expected \(2\)"):
            student(torch.tensor([[1], [2]]), torch.tensor([[1], [1]]))
        with pytest.raises(ShapeError, match=r"items has shape \(3,\), expected \(B, L\)"):
            student(torch.tensor([1, 2, 3]), torch.tensor([3]))

    def test_lengths_beyond_the_row_are_refused(self, build: Build) -> None:
        """A length that the row doesn't have means that the batch was built wrongly."""
        with pytest.raises(HistoryError, match="lengths holds 4, expected 1..2"):
            seeded(build)(torch.tensor([[1, 2]]), torch.tensor([4]))

    def test_save_and_load(self, build: Build, tmp_path: Path) -> None:
        """Weights go through safetensors, never pickle, and give the same bits back."""
        student, other = seeded(build).eval(), seeded(build, seed=5).eval()
        inputs = histories([5, 3])
        assert not torch.equal(student(*inputs), other(*inputs))
        save_file(student.state_dict(), tmp_path / "model.safetensors")
        other.load_state_dict(load_file(tmp_path / "model.safetensors"))
        assert torch.equal(student(*inputs), other(*inputs))
        assert torch.equal(student.item_table(), other.item_table())

    def test_evaluation_is_deterministic(self, build: Build) -> None:
        """Dropout must be off in evaluation: the same history always gets the same answer."""
        student = seeded(build, dropout=0.5).eval()
        inputs = histories([5, 3])
        assert torch.equal(student(*inputs), student(*inputs))

    def test_training_noise_follows_its_seed(self, build: Build) -> None:
        """All training noise must come from the students' own seeded streams, or runs can't be repeated."""
        student = seeded(build, dropout=0.5).train()
        inputs = histories([5, 3])
        reseed_dropout(student, [1, 2])
        first, second = student(*inputs), student(*inputs)
        reseed_dropout(student, [1, 2])
        assert torch.equal(student(*inputs), first)
        assert not torch.equal(first, second)

    def test_gradient_reaches_every_parameter(self, build: Build) -> None:
        """A parameter without a gradient is a wire that was never connected."""
        student = seeded(build)
        items, lengths = histories([MAX_LENGTH] * 4)
        hidden = student(items, lengths)[:, :-1].flatten(0, 1)
        Softmax()(hidden, student.item_table(), items[:, 1:].flatten()).backward()
        for name, parameter in student.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        assert (student.items(torch.tensor([PAD])) == 0).all(), "padding must stay a zero vector"

    def test_overfits_a_tiny_batch(self, build: Build) -> None:
        """A student that can't learn four histories by heart can't learn at all."""
        student = seeded(build)
        items, lengths = histories([MAX_LENGTH, MAX_LENGTH - 1, 4, 3], seed=3)
        targets = F.pad(items[:, 1:], (0, 1), value=PAD)
        real = targets != PAD
        loss, optimizer = Softmax(), torch.optim.Adam(student.parameters(), lr=0.01)
        for _ in range(150):
            optimizer.zero_grad()
            value = loss(student(items, lengths)[real], student.item_table(), targets[real])
            value.backward()
            optimizer.step()
        assert float(value.detach()) < 0.1
        scores = student.eval()(items, lengths)[real] @ student.item_table().T
        assert torch.equal(scores.argmax(1), targets[real])

    def test_runs_in_bf16(self, build: Build) -> None:
        """Autocast may be chosen for any student: states stay near the fp32 ones and gradients finite."""
        student = seeded(build)
        inputs = histories([6, 3])
        exact = student(*inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = student(*inputs).float()
        torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)
        rough.square().sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)

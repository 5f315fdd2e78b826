"""What every student must keep: a new student joins by a line in ``STUDENTS``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from deshi.losses.softmax import Softmax
from deshi.models.base import HistoryError, SequentialRecommender
from deshi.models.caser import Caser
from deshi.models.gru4rec import GRU4Rec
from deshi.models.hstu import HSTU, UNSEEN
from deshi.models.layers import reseed_dropout
from deshi.models.ligr import LiGR
from deshi.models.sasrec import SASRec
from deshi.types import PAD, DeshiError, ShapeError

N_ITEMS, DIM, MAX_LENGTH = 40, 16, 8


def rotary_sasrec(n_items: int, dim: int, max_length: int, dropout: float) -> SASRec:
    return SASRec(n_items, dim, max_length, heads=2, dropout=dropout, positions="rotary")


def original_sasrec(n_items: int, dim: int, max_length: int, dropout: float) -> SASRec:
    return SASRec(
        n_items, dim, max_length, heads=1, feed_forward=1.0, dropout=dropout, activation="relu", norm="original"
    )  # fmt: skip


def wide_gru(n_items: int, dim: int, max_length: int, dropout: float) -> GRU4Rec:
    return GRU4Rec(n_items, dim, max_length, hidden=24, layers=2, dropout=dropout)


def rotary_ligr(n_items: int, dim: int, max_length: int, dropout: float) -> LiGR:
    return LiGR(n_items, dim, max_length, blocks=1, heads=4, feed_forward=2.0, dropout=dropout, positions="rotary")


STUDENTS: dict[str, Callable[..., SequentialRecommender]] = {
    "sasrec": SASRec,
    "sasrec_original": original_sasrec,
    "sasrec_rotary": rotary_sasrec,
    "gru4rec": lambda *args, **kwargs: GRU4Rec(*args, hidden=DIM, **kwargs),
    "gru4rec_projected": wide_gru,
    "caser": Caser,
    "caser_window_over_history": lambda *args, **kwargs: Caser(*args, window=MAX_LENGTH + 3, **kwargs),
    "hstu": HSTU,
    "hstu_one_unit": lambda *args, **kwargs: HSTU(*args, blocks=1, heads=1, **kwargs),
    "ligr": LiGR,
    "ligr_rotary": rotary_ligr,
}


def seeded(
    build: Callable[..., SequentialRecommender], seed: int = 0, dropout: float = 0.0, max_length: int = MAX_LENGTH
) -> SequentialRecommender:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(N_ITEMS, DIM, max_length, dropout=dropout)


def histories(lengths: list[int], seed: int = 1, width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(lengths)
    width = width or max(lengths)
    items = torch.randint(N_ITEMS, (len(lengths), width), generator=generator)
    return items.masked_fill(torch.arange(width) >= sizes[:, None], PAD), sizes


@pytest.mark.parametrize("build", STUDENTS.values(), ids=STUDENTS)
class TestStudentContract:
    def test_padding_elsewhere_than_lengths_say_is_refused(self, build: Callable[..., SequentialRecommender]) -> None:
        """Padding inside a history, or items after its end, would silently be read as something else."""
        student = seeded(build)
        for row in ([1, PAD, 2], [1, 2, 3]):
            with pytest.raises(HistoryError, match=r"lengths\[1\]"):
                student(torch.tensor([[4, 5, PAD], row]), torch.tensor([2, 3 if PAD in row else 2]))

    def test_shapes(self, build: Callable[..., SequentialRecommender]) -> None:
        """Callers rely on one hidden state per position and one scoring vector per item."""
        student = seeded(build)
        hidden = student(*histories([5, 2, 1]))
        assert hidden.shape == (3, 5, DIM)
        assert student.last_hidden(*histories([5, 2, 1])).shape == (3, DIM)
        assert student.item_table().shape == (N_ITEMS, DIM)
        assert torch.isfinite(hidden).all(), "padded positions must stay finite"

    def test_padding_changes_nothing(self, build: Callable[..., SequentialRecommender]) -> None:
        """A history's answer must not depend on how long its neighbours in the batch are."""
        student = seeded(build).eval()
        items, lengths = histories([6, 3, 1], width=MAX_LENGTH)
        together = student(items, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = student(items[row : row + 1, :length], lengths[row : row + 1])
            torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=1e-5)

    def test_no_look_into_the_future(self, build: Callable[..., SequentialRecommender]) -> None:
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

    def test_the_order_counts(self, build: Callable[..., SequentialRecommender]) -> None:
        """A sequential student that ignores the order of a history isn't one."""
        student = seeded(build).eval()
        ahead = student.last_hidden(torch.tensor([[1, 2, 3]]), torch.tensor([3]))
        swapped = student.last_hidden(torch.tensor([[2, 1, 3]]), torch.tensor([3]))
        assert not torch.allclose(ahead, swapped, atol=1e-4)

    def test_single_item_histories(self, build: Callable[..., SequentialRecommender]) -> None:
        """One item is the shortest history there is, and every user begins with it."""
        student = seeded(build).eval()
        hidden = student.last_hidden(torch.tensor([[3], [4]]), torch.tensor([1, 1]))
        assert torch.isfinite(hidden).all()
        assert not torch.allclose(hidden[0], hidden[1], atol=1e-4)

    def test_over_long_histories_keep_their_latest_items(self, build: Callable[..., SequentialRecommender]) -> None:
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
    def test_unknown_items_are_refused(self, build: Callable[..., SequentialRecommender], bad: int) -> None:
        """An index that the vocabulary doesn't hold would read another item's row or crash far away."""
        with pytest.raises(HistoryError, match=rf"items holds {bad}, expected indices 0..{N_ITEMS - 1}"):
            seeded(build)(torch.tensor([[1, bad]]), torch.tensor([2]))

    def test_empty_histories_are_refused(self, build: Callable[..., SequentialRecommender]) -> None:
        """There is no last position to answer from."""
        student = seeded(build)
        with pytest.raises(HistoryError, match="can't answer an empty history"):
            student(torch.tensor([[1], [PAD]]), torch.tensor([1, 0]))
        with pytest.raises(HistoryError, match="a history an item"):
            student(torch.empty(1, 0, dtype=torch.long), torch.zeros(1, dtype=torch.long))

    def test_wrong_shapes_name_both(self, build: Callable[..., SequentialRecommender]) -> None:
        """A wrong shape must be understood from its message alone."""
        student = seeded(build)
        with pytest.raises(ShapeError, match=r"lengths has shape \(2, 1\), expected \(2\)"):
            student(torch.tensor([[1], [2]]), torch.tensor([[1], [1]]))
        with pytest.raises(ShapeError, match=r"items has shape \(3,\), expected \(B, L\)"):
            student(torch.tensor([1, 2, 3]), torch.tensor([3]))

    def test_lengths_beyond_the_row_are_refused(self, build: Callable[..., SequentialRecommender]) -> None:
        """A length that the row doesn't have means that the batch was built wrongly."""
        with pytest.raises(HistoryError, match="lengths holds 4, expected 1..2"):
            seeded(build)(torch.tensor([[1, 2]]), torch.tensor([4]))

    def test_save_and_load(self, build: Callable[..., SequentialRecommender], tmp_path: Path) -> None:
        """Weights go through safetensors, never pickle, and give the same bits back."""
        student, other = seeded(build).eval(), seeded(build, seed=5).eval()
        inputs = histories([5, 3])
        assert not torch.equal(student(*inputs), other(*inputs))
        save_file(student.state_dict(), tmp_path / "model.safetensors")
        other.load_state_dict(load_file(tmp_path / "model.safetensors"))
        assert torch.equal(student(*inputs), other(*inputs))
        assert torch.equal(student.item_table(), other.item_table())

    def test_evaluation_is_deterministic(self, build: Callable[..., SequentialRecommender]) -> None:
        """Dropout must be off in evaluation: the same history always gets the same answer."""
        student = seeded(build, dropout=0.5).eval()
        inputs = histories([5, 3])
        assert torch.equal(student(*inputs), student(*inputs))

    def test_training_noise_follows_its_seed(self, build: Callable[..., SequentialRecommender]) -> None:
        """All training noise must come from the students' own seeded streams, or runs can't be repeated."""
        student = seeded(build, dropout=0.5).train()
        inputs = histories([5, 3])
        reseed_dropout(student, [1, 2])
        first, second = student(*inputs), student(*inputs)
        reseed_dropout(student, [1, 2])
        assert torch.equal(student(*inputs), first)
        assert not torch.equal(first, second)

    def test_gradient_reaches_every_parameter(self, build: Callable[..., SequentialRecommender]) -> None:
        """A parameter without a gradient is a wire that was never connected."""
        student = seeded(build)
        items, lengths = histories([MAX_LENGTH] * 4)
        hidden = student(items, lengths)[:, :-1].flatten(0, 1)
        Softmax()(hidden, student.item_table(), items[:, 1:].flatten()).backward()
        for name, parameter in student.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        assert (student.items.weight.grad[0] == 0).all(), "the padding's row must not learn"

    def test_overfits_a_tiny_batch(self, build: Callable[..., SequentialRecommender]) -> None:
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

    def test_runs_in_bf16(self, build: Callable[..., SequentialRecommender]) -> None:
        """Autocast may be chosen for any student: states stay near the fp32 ones and gradients finite."""
        student = seeded(build)
        inputs = histories([6, 3])
        exact = student(*inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = student(*inputs).float()
        torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)
        rough.square().sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: SASRec(0), "n_items=0"),
        (lambda: GRU4Rec(5, hidden=0), "hidden=0"),
        (lambda: GRU4Rec(5, layers=0), "layers=0"),
        (lambda: Caser(5, window=0), "window=0"),
        (lambda: Caser(5, vertical=0), "vertical=0"),
        (lambda: HSTU(5, blocks=0), "blocks=0"),
        (lambda: HSTU(5, dim=8, heads=0), "heads=0, expected a dim that is a multiple"),
        (lambda: HSTU(5, dim=8, heads=3), "dim=8 and heads=3, expected a dim that is a multiple"),
        (lambda: LiGR(5, blocks=0), "blocks=0"),
    ],
)
def test_impossible_sizes_are_refused(build: Callable[[], SequentialRecommender], name: str) -> None:
    """A size of zero, or heads that don't share the width, must be named where it enters, not fail inside a layer."""
    with pytest.raises(DeshiError, match=name):
        build()


def test_caser_equals_its_definition_window_by_window() -> None:
    """The shared convolutions must give the paper's features: each window convolved and pooled alone."""
    student = seeded(Caser).eval()
    items, lengths = histories([6])
    hidden = student(items, lengths)
    embedded = F.pad((student.items(items) * DIM**0.5)[0], (0, 0, student.window - 1, 0))
    for position in range(6):
        square = embedded[position : position + student.window]
        found = [F.relu(conv(square.T)).amax(1) for conv in student.horizontal]
        vertical = (square.T @ student.vertical.weight.T + student.vertical.bias).flatten()
        alone = student.norm(student.mix(torch.cat([*found, vertical])))
        torch.testing.assert_close(hidden[0, position], alone, atol=1e-5, rtol=1e-5)


def test_caser_sees_its_window_only() -> None:
    """Items before the window must not matter: that is what the window means."""
    student = seeded(Caser).eval()
    items, lengths = histories([MAX_LENGTH])
    changed = items.clone()
    changed[0, : MAX_LENGTH - student.window] = (changed[0, : MAX_LENGTH - student.window] + 1) % N_ITEMS
    torch.testing.assert_close(student.last_hidden(changed, lengths), student.last_hidden(items, lengths))


def test_gru4rec_equals_torch_gru() -> None:
    """One layer of the student is PyTorch's GRU over scaled embeddings and a final norm, nothing else."""
    student = GRU4Rec(N_ITEMS, DIM, MAX_LENGTH, hidden=DIM, dropout=0.0)
    items, lengths = histories([5])
    reference = torch.nn.GRU(DIM, DIM, batch_first=True)
    reference.load_state_dict(student.layers[0].state_dict())
    expected = reference(student.items(items) * DIM**0.5)[0]
    torch.testing.assert_close(student(items, lengths), F.layer_norm(expected, [DIM]))


def test_hstu_equals_its_formula_item_by_item() -> None:
    """The units must be the paper's: written out position by position and head by head, with no matrix of weights."""
    student = HSTU(N_ITEMS, DIM, MAX_LENGTH, blocks=2, heads=2, dropout=0.0)
    items, lengths = histories([6])
    x = list((student.items(items) * DIM**0.5)[0])
    for unit in student.blocks:
        rows = [F.silu(unit.project_in.weight @ F.layer_norm(row, [DIM], eps=1e-6)).split(DIM) for row in x]
        added = []
        for i, (gate, query, _, _) in enumerate(rows):
            seen = torch.zeros(DIM)
            for head in (slice(0, DIM // 2), slice(DIM // 2, DIM)):
                for j, (_, _, key, value) in enumerate(rows[: i + 1]):
                    score = (query[head] * key[head]).sum() + unit.bias[i - j]
                    seen[head] += score / (1 + torch.exp(-score)) * value[head]
            gated = gate * F.layer_norm(seen, [DIM], eps=1e-6)
            added.append(unit.project_out.weight @ gated + unit.project_out.bias)
        x = [row + more for row, more in zip(x, added, strict=True)]
    expected = student.norm(torch.stack(x))
    torch.testing.assert_close(student(items, lengths)[0], expected, atol=1e-5, rtol=1e-5)


def test_hstu_counts_what_it_has_seen() -> None:
    """Weights that needn't sum to one are the point: the same item seen twice must add up, where a softmax averages."""
    unit = HSTU(N_ITEMS, DIM, MAX_LENGTH).blocks[0]
    torch.nn.init.zeros_(unit.bias)
    once = torch.randn(1, 1, DIM, generator=torch.Generator().manual_seed(0))
    twice = once.expand(1, 2, DIM)
    alone = unit._attend(once, once, once, torch.arange(1))
    torch.testing.assert_close(unit._attend(twice, twice, twice, torch.arange(2))[:, 1], 2 * alone[:, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_hstu_gives_later_items_no_weight_in_any_precision(dtype: torch.dtype) -> None:
    """Later items are put out by a large negative score: it must give exact zeros, forwards and backwards."""
    score = torch.tensor([UNSEEN, UNSEEN + 50.0], dtype=dtype, requires_grad=True)
    weight = F.silu(score)
    weight.sum().backward()
    assert (weight == 0).all() and score.grad is not None and (score.grad == 0).all()


def test_ligr_equals_its_formula() -> None:
    """The block must be LiGR's: gates of the un-normalised input on sub-layers of the normalised one."""
    student = LiGR(N_ITEMS, DIM, MAX_LENGTH, blocks=1, heads=1, dropout=0.0)
    items, lengths = histories([6])
    x = (student.items(items) * DIM**0.5)[0] + student.positions[:6]
    block = student.blocks[0]
    query, key, value = block.attention.project_in(block.attention_norm(x)).split(DIM, dim=-1)
    scores = (query @ key.T / DIM**0.5).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
    seen = block.attention.project_out(scores.softmax(-1) @ value)
    x = x + seen / (1 + torch.exp(-block.attention_gate(x)))
    normed, swiglu = block.feed_forward_norm(x), block.feed_forward
    found = swiglu.contract(F.silu(swiglu.gate(normed)) * swiglu.expand(normed))
    x = x + found / (1 + torch.exp(-block.feed_forward_gate(x)))
    torch.testing.assert_close(student(items, lengths)[0], student.norm(x), atol=1e-5, rtol=1e-5)


def test_ligr_gates_close_and_open() -> None:
    """Shut gates must let nothing of a sub-layer through, and open ones all: then each is an ordinary residual."""
    student = LiGR(N_ITEMS, DIM, MAX_LENGTH, blocks=1, dropout=0.0)
    block, (items, lengths) = student.blocks[0], histories([6])
    x = student.items(items) * DIM**0.5 + student.positions[:6]
    for gate in (block.attention_gate, block.feed_forward_gate):
        torch.nn.init.constant_(gate.bias, -1000.0)
    torch.testing.assert_close(student(items, lengths), student.norm(x))
    for gate in (block.attention_gate, block.feed_forward_gate):
        torch.nn.init.constant_(gate.bias, 1000.0)
    x = x + block.attention(block.attention_norm(x))
    x = x + block.feed_forward(block.feed_forward_norm(x))
    torch.testing.assert_close(student(items, lengths), student.norm(x))

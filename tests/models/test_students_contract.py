"""deshi's students: the contract for each, and their formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import pytest
import torch
from torch.nn import functional as F

from deshi.models.base import SequentialRecommender
from deshi.models.bsarec import BSARec, FilteredAttention
from deshi.models.caser import Caser
from deshi.models.gru4rec import GRU4Rec
from deshi.models.hstu import HSTU, UNSEEN, Unit
from deshi.models.item_table import ItemEmbedding
from deshi.models.layers import CausalSelfAttention, GatedFeedForward
from deshi.models.ligr import GatedBlock, LiGR
from deshi.models.sasrec import SASRec
from deshi.testing.students import DIM, MAX_LENGTH, N_ITEMS, Build, StudentContract, histories, seeded
from deshi.types import DeshiError
from student_variants import STUDENTS


class TestStudents(StudentContract):
    @pytest.fixture(params=STUDENTS.values(), ids=list(STUDENTS))
    def build(self, request: pytest.FixtureRequest) -> Build:
        return cast(Build, request.param)


@pytest.mark.parametrize("build", STUDENTS.values(), ids=list(STUDENTS))
def test_the_paddings_row_does_not_learn(build: Build) -> None:
    """Row 0 of the embedding stands for padding: a gradient there would turn padding into an item."""
    student = seeded(build)
    items, lengths = histories([MAX_LENGTH, 2])
    student(items, lengths).sum().backward()
    assert isinstance(student.items, ItemEmbedding) and student.items.weight.grad is not None
    assert (student.items.weight.grad[0] == 0).all()


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
        (lambda: BSARec(5, alpha=1.0), r"alpha=1.0, expected a number in \[0, 1\)"),
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
    for unit in cast(Iterable[Unit], student.blocks):
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
    unit = cast(Unit, HSTU(N_ITEMS, DIM, MAX_LENGTH).blocks[0])
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
    assert student.positions is not None
    x = (student.items(items) * DIM**0.5)[0] + student.positions[:6]
    block = cast(GatedBlock, student.blocks[0])
    query, key, value = block.attention.project_in(block.attention_norm(x)).split(DIM, dim=-1)
    scores = (query @ key.T / DIM**0.5).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
    seen = block.attention.project_out(scores.softmax(-1) @ value)
    x = x + seen / (1 + torch.exp(-block.attention_gate(x)))
    normed, swiglu = block.feed_forward_norm(x), cast(GatedFeedForward, block.feed_forward)
    found = swiglu.contract(F.silu(swiglu.gate(normed)) * swiglu.expand(normed))
    x = x + found / (1 + torch.exp(-block.feed_forward_gate(x)))
    torch.testing.assert_close(student(items, lengths)[0], student.norm(x), atol=1e-5, rtol=1e-5)


def test_ligr_gates_close_and_open() -> None:
    """Shut gates must let nothing of a sub-layer through, and open ones all: then each is an ordinary residual."""
    student = LiGR(N_ITEMS, DIM, MAX_LENGTH, blocks=1, dropout=0.0)
    block, (items, lengths) = cast(GatedBlock, student.blocks[0]), histories([6])
    assert student.positions is not None
    x = student.items(items) * DIM**0.5 + student.positions[:6]
    for gate in (block.attention_gate, block.feed_forward_gate):
        torch.nn.init.constant_(gate.bias, -1000.0)
    torch.testing.assert_close(student(items, lengths), student.norm(x))
    for gate in (block.attention_gate, block.feed_forward_gate):
        torch.nn.init.constant_(gate.bias, 1000.0)
    x = x + block.attention(block.attention_norm(x))
    x = x + block.feed_forward(block.feed_forward_norm(x))
    torch.testing.assert_close(student(items, lengths), student.norm(x))


def test_bsarec_equals_its_formula_item_by_item() -> None:
    """The filter must be the docstring's: averages written out position by position, beside plain attention."""
    mixed = FilteredAttention(DIM, heads=2, alpha=0.7)
    x = torch.randn(1, 5, DIM, generator=torch.Generator().manual_seed(0))
    attended = CausalSelfAttention.forward(mixed, x)
    for position in range(5):
        averages = []
        for values, log_rate in zip(x[0, : position + 1].chunk(2, dim=1), mixed.log_rate, strict=True):
            weights = torch.exp(-log_rate.exp() * torch.arange(position, -1, -1))
            averages.append(weights @ values / weights.sum())
        low = torch.cat(averages)
        filtered = low + mixed.beta**2 * (x[0, position] - low)
        torch.testing.assert_close(mixed(x)[0, position], 0.7 * filtered + 0.3 * attended[0, position])


def test_bsarec_filters_high_frequencies_alone() -> None:
    """What is the same at every position has the lowest frequency and must pass, whatever the high ones' factor."""
    mixed = FilteredAttention(DIM, heads=2, alpha=0.7)
    constant = torch.randn(DIM, generator=torch.Generator().manual_seed(0)).expand(1, 6, DIM)
    filtered = (mixed(constant) - 0.3 * CausalSelfAttention.forward(mixed, constant)) / 0.7
    torch.testing.assert_close(filtered, constant)


def test_bsarec_without_its_filter_is_sasrec() -> None:
    """With a share of 0 nothing but SASRec may be left, so that the share is a fair comparison of both."""
    student, plain = BSARec(N_ITEMS, DIM, MAX_LENGTH, dropout=0.0, alpha=0.0), seeded(SASRec)
    student.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(student(*histories([6, 3])), plain(*histories([6, 3])))

"""Item tables from a teacher's vectors: where they start, what they are after folding, what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deshi.configuration.targets import build, check_node
from deshi.distillation.item_tables import InitialisedItemTable, ItemTableAdapter
from deshi.losses.softmax import Softmax
from deshi.models.gru4rec import GRU4Rec
from deshi.models.item_table import ItemEmbedding, ItemTable
from deshi.models.layers import reseed_dropout
from deshi.models.sasrec import SASRec
from deshi.teachers.whitening import pca
from deshi.types import PAD, Batch, DeshiError

N, DIM, WIDTH = 30, 8, 12
ADDED = "deshi.distillation.item_tables.ItemTableAdapter"
NODES: list[dict[str, object]] = [
    {"_target_": ADDED, "hidden": 16, "dropout": 0.3},
    {"_target_": ADDED, "hidden": None, "dropout": 0.3, "offset": 0.0},
    {"_target_": "deshi.distillation.item_tables.InitialisedItemTable"},
    {"_target_": "deshi.distillation.item_tables.InitialisedItemTable", "method": "whiten"},
]


def _vectors(width: int = WIDTH) -> Tensor:
    return torch.randn(N, width, generator=torch.Generator().manual_seed(0)) * torch.arange(1, width + 1) + 5


def _built(node: dict[str, object], width: int = WIDTH, seed: int = 0) -> ItemTable:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        table = build(node, n_items=N, dim=DIM, embeddings=_vectors(width))
    assert isinstance(table, ItemTable)
    return table


@pytest.mark.parametrize("node", NODES)
def test_stands_in_for_a_students_table(node: dict[str, object]) -> None:
    """A student trains with it like with its own: same shapes, zeros for padding, a gradient for each parameter."""
    assert not check_node(node, ("n_items", "dim", "embeddings"))
    items = torch.tensor([[3, 1, 3], [29, PAD, PAD]])
    targets = torch.tensor([[1, 3, 4], [0, PAD, PAD]])
    batch = Batch(torch.arange(2), items, torch.tensor([3, 1]), targets, torch.full((2, 3), PAD))
    for kind in (SASRec, GRU4Rec):
        student = kind(N, DIM)
        student.items = _built(node)
        student.training_loss(batch, Softmax()).backward()
        assert all(p.grad is not None and bool(p.grad.any()) for p in student.items.parameters())
        found = student.items.eval()(items)
        assert found.shape == (2, 3, DIM) and not found[1, 1:].any()
        torch.testing.assert_close(found[items != PAD], student.item_table()[items[items != PAD]])


@pytest.mark.parametrize("node", NODES[:2])
def test_merged_scores_to_the_bit(node: dict[str, object]) -> None:
    """What is served must be what was evaluated: the merged table has the very bits, and folding draws no numbers."""
    added = _built(node)
    assert isinstance(added, ItemTableAdapter)
    state, frozen = torch.random.get_rng_state(), added.vectors.clone()
    merged = added.merged()
    assert torch.equal(state, torch.random.get_rng_state()) and added.training and added.adapter.training
    assert isinstance(merged, ItemEmbedding) and not merged.weight[0].any()
    assert torch.equal(merged.table(), added.eval().table())
    assert torch.equal(frozen, added.vectors) and "vectors" not in dict(added.named_parameters())


def test_starts_where_it_says() -> None:
    """Learning rates assume numbers of a table's usual size; an offset of 0 leaves the teacher's part alone."""
    added = ItemTableAdapter(N, DIM, _vectors(), scale=0.03, offset=0.0)
    assert added.table().std().item() == pytest.approx(0.03, rel=1e-4)
    assert not added.offset.table().any()
    torch.testing.assert_close(added.vectors.mean(0), torch.zeros(WIDTH), atol=1e-5, rtol=0)
    for method in ("pca", "whiten"):
        table = InitialisedItemTable(N, DIM, _vectors(), method=method, scale=0.05).table()
        assert table.pow(2).mean().sqrt().item() == pytest.approx(0.05, rel=1e-4)


def test_initialised_rows_are_the_components() -> None:
    """PCA keeps the teacher's geometry up to one factor; vectors narrower than the table leave random columns."""
    table = InitialisedItemTable(N, DIM, _vectors()).table()
    expected = pca(_vectors(), DIM)
    torch.testing.assert_close(table / table[0, 0], expected / expected[0, 0])
    narrow = InitialisedItemTable(N, DIM, _vectors(5)).table()
    torch.testing.assert_close(narrow[:, :5] / narrow[0, 0], pca(_vectors(5)) / pca(_vectors(5))[0, 0])
    assert 0.01 < narrow[:, 5:].std() < 0.03


def test_dropout_and_start_follow_the_seed() -> None:
    """A run repeats to the bit: the start follows the global seed, dropout the layers' own."""
    first, second, other = (_built(NODES[0], seed=seed) for seed in (1, 1, 2))
    for added in (first, second):
        reseed_dropout(added, [7])
    assert torch.equal(first.table(), second.table())
    assert not torch.equal(first.table(), first.table()), "two masks of one stream differ"
    assert not torch.equal(first.eval().table(), other.eval().table())


@pytest.mark.parametrize("table", [ItemTableAdapter, InitialisedItemTable])
def test_refusals(table: type) -> None:
    """Vectors of other data, broken ones and all-equal ones would train silently to nothing."""
    with pytest.raises(DeshiError, match=r"expected \(30, D\)"):
        table(N, DIM, _vectors()[1:])
    broken = _vectors()
    broken[3, 2] = torch.nan
    with pytest.raises(DeshiError, match="1 of 30 aren't finite"):
        table(N, DIM, broken)
    with pytest.raises(DeshiError, match="all are the same"):
        table(N, DIM, torch.ones(N, WIDTH))
    with pytest.raises(DeshiError, match="positive standard deviation"):
        table(N, DIM, _vectors(), scale=0.0)

"""The text teacher keeps what a student must keep, and knows items by their vectors alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from deshi.losses.softmax import Softmax
from deshi.models.base import SequentialRecommender
from deshi.models.item_table import ItemEmbedding
from deshi.teachers.base import Resources
from deshi.teachers.text import Text, TextTable
from deshi.types import PAD, Batch, DeshiError
from tiny_bundles import random_sequences, tiny_bundle

N_ITEMS = 20


class Vectors:
    """Stands for ItemEmbeddings: fixed random vectors, items 0 and 1 alike."""

    def __init__(self, rows: int = N_ITEMS) -> None:
        self.rows = rows

    def __call__(self, bundle: Any, cache: Path, device: torch.device, ray: Any = None) -> Tensor:
        found = torch.randn(self.rows, 6, generator=torch.Generator().manual_seed(0))
        found[1] = found[0]
        return found

    def describe(self, cache: Path, device: torch.device) -> dict[str, Any]:
        return {"name": "random"}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Text]:
    bundle = tiny_bundle(tmp_path, random_sequences(5, N_ITEMS, 4, 8), n_items=N_ITEMS)

    def no_student(name: str) -> tuple[SequentialRecommender, dict[str, Any]]:
        raise AssertionError("a text teacher needs no student")

    def build(rows: int = N_ITEMS, offsets: bool = False) -> Text:
        resources = Resources(bundle, tmp_path, no_student, torch.device("cpu"))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            vectors = cast(Any, Vectors(rows))
            return Text(
                N_ITEMS, resources, vectors, dim=16, max_length=6, dropout=0.0, adapter=32, offsets=offsets
            )  # fmt: skip

    return build


def batch() -> Batch:
    items = torch.randint(N_ITEMS, (8, 5), generator=torch.Generator().manual_seed(1))
    return Batch(torch.arange(8), items[:, :-1], torch.full((8,), 4), items[:, 1:], torch.zeros(8, 4, dtype=torch.long))


def test_items_of_one_text_are_one_item_to_it(make: Callable[..., Text]) -> None:
    """No ID table may sneak in: equal texts have equal vectors, scores and effects as histories."""
    teacher = make().eval()
    torch.testing.assert_close(teacher.item_table()[0], teacher.item_table()[1])
    histories = torch.tensor([[0, 5, 3], [1, 5, 3]])
    first, second = teacher.next_scores(histories, torch.tensor([3, 3]))
    torch.testing.assert_close(first, second)
    assert not torch.allclose(teacher.item_table()[0], teacher.item_table()[2])


def test_offsets_tell_items_of_one_text_apart(make: Callable[..., Text]) -> None:
    """Text and ID in one model: each item has a part of its own that learns, padding has none."""
    teacher = make(offsets=True).eval()
    table = teacher.item_table()
    assert not torch.allclose(table[0], table[1])
    torch.testing.assert_close(teacher.items(torch.tensor([[3, -1]]))[0], torch.stack([table[3], torch.zeros(16)]))
    teacher.training_loss(batch(), Softmax()).backward()
    assert isinstance(teacher.items, TextTable)
    assert teacher.items.offset is not None and teacher.items.offset.weight.grad is not None
    assert float(teacher.items.offset.weight.grad[1:].abs().sum()) > 0
    assert float(teacher.items.offset.weight.grad[0].abs().sum()) == 0


def test_the_vectors_stay_and_all_else_learns(make: Callable[..., Text]) -> None:
    """The LLM's embeddings are frozen; adapter and network receive gradients and overfit a tiny batch."""
    teacher = make()
    assert isinstance(teacher.items, TextTable)
    before = teacher.items.vectors.clone()
    optimizer = torch.optim.Adam(teacher.parameters(), lr=0.01)
    first = last = 0.0
    for step in range(150):
        loss = teacher.training_loss(batch(), Softmax())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in teacher.parameters())
        optimizer.step()
        value = float(loss.detach())
        first, last = (value, last) if step == 0 else (first, value)
    assert last < 0.5 * first
    assert torch.equal(teacher.items.vectors, before)


def test_padding_and_the_future_change_nothing(make: Callable[..., Text]) -> None:
    """The contract of every student: wider padding and later items leave a position's state as it was."""
    teacher = make().eval()
    items = torch.tensor([[3, 7, 2, 9]])
    whole = teacher(items, torch.tensor([4]))
    cut = teacher(torch.tensor([[3, 7, PAD, PAD, PAD]]), torch.tensor([2]))
    torch.testing.assert_close(whole[:, :2], cut[:, :2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("offsets", [False, True])
def test_ranks_faster_with_its_table_computed_once(make: Callable[..., Text], offsets: bool) -> None:
    """Validation would run every item's text through the adapter for every batch, and the scores are the same."""
    text, histories = make(offsets=offsets), batch()
    before = {name: value.clone() for name, value in text.state_dict().items()}
    fixed = text.eval().for_ranking()
    assert fixed is not text and isinstance(fixed.items, ItemEmbedding) and fixed.blocks is not text.blocks
    with torch.no_grad():
        asked = histories.items, histories.lengths
        torch.testing.assert_close(fixed.next_scores(*asked), text.next_scores(*asked))
    after = text.state_dict()
    assert isinstance(text.items, TextTable) and all(torch.equal(before[name], after[name]) for name in before)
    assert text.merged() is text, "it is kept with its texts"


def test_a_wrong_number_of_vectors_is_refused(make: Callable[..., Text]) -> None:
    """A row too many is somebody's padding row, and all items would be shifted."""
    with pytest.raises(DeshiError, match="21 text embeddings, expected one for each of 20"):
        make(rows=N_ITEMS + 1)

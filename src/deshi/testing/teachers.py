"""The contract of scorers, for every model that ranks the catalogue, teachers among them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deshi.models.scorers import Scorer
from deshi.types import PAD, Batch

LENGTHS = (5, 2, 1, 4)


def history_batch(n_items: int, lengths: tuple[int, ...] = LENGTHS, width: int | None = None, seed: int = 0) -> Batch:
    """Random histories of users 0, 1, ..., padded on the right to ``width``."""
    width, sizes = width or max(lengths), torch.tensor(lengths)
    items = torch.randint(n_items, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(seed))
    items = torch.nn.functional.pad(items, (0, width - items.shape[1]))
    items = items.masked_fill(torch.arange(width) >= sizes[:, None], PAD)
    nothing = torch.full_like(items, PAD)
    return Batch(torch.arange(len(lengths)), items, sizes, nothing, nothing)


class TeacherContract:
    """Inherit as ``class TestMine(TeacherContract)`` and override :meth:`scorer`.

    For teachers that answer after any history; one that is a file of one list a user isn't such a teacher.
    """

    @pytest.fixture
    def scorer(self) -> Scorer:
        """The finished teacher."""
        raise NotImplementedError("Override the fixture `scorer` of TeacherContract.")

    def test_scores_every_item(self, scorer: Scorer) -> None:
        """One score for each history and item; minus infinity may stand for no score, NaN for nothing."""
        scores = scorer.scores(history_batch(scorer.n_items))
        assert scores.shape == (len(LENGTHS), scorer.n_items) and scores.dtype == torch.float32
        assert not scores.isnan().any() and not (scores == torch.inf).any()

    def test_answers_the_same_again(self, scorer: Scorer) -> None:
        """A store that is resumed after an interruption must hold the lists that it would have held."""
        batch = history_batch(scorer.n_items)
        assert torch.equal(scorer.scores(batch), scorer.scores(batch))

    def test_neighbours_and_padding_change_nothing(self, scorer: Scorer) -> None:
        """A history's scores must not depend on the histories that it is batched with, nor on their length."""
        whole = scorer.scores(history_batch(scorer.n_items, width=max(LENGTHS) + 3))
        batch = history_batch(scorer.n_items)
        for row, length in enumerate(LENGTHS):
            _assert_close(scorer.scores(_cut(batch, row, length))[0], whole[row])

    def test_positions_are_scored_as_histories(self, scorer: Scorer) -> None:
        """One pass over a history must give the scores of each of its beginnings, or targets would leak."""
        if not scorer.max_length:
            pytest.skip("the model answers whole histories only")
        lengths = tuple(min(length, scorer.max_length) for length in LENGTHS)
        batch = history_batch(scorer.n_items, lengths)
        where = batch.items != PAD
        scores = scorer.position_scores(batch, where)
        for number, (row, column) in enumerate(where.nonzero().tolist()):
            _assert_close(scores[number], scorer.scores(_cut(batch, row, column + 1))[0])

    def test_vectors_belong_to_the_items(self, scorer: Scorer) -> None:
        """A row too many is somebody's padding row, and all items would be shifted."""
        for vectors in (scorer.item_vectors(), scorer.text_vectors()):
            assert vectors is None or (vectors.ndim == 2 and len(vectors) == scorer.n_items)


def _cut(batch: Batch, row: int, length: int) -> Batch:
    """One history's first ``length`` items."""
    parts = (batch.items, batch.targets, batch.rows)
    items, targets, rows = (tensor[row : row + 1, :length] for tensor in parts)
    return Batch(batch.users[row : row + 1], items, torch.tensor([length]), targets, rows)


def _assert_close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)

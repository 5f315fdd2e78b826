"""The base classes of networks, and the check of their inputs."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from deshi.arrays import BLOCKWISE_ABOVE
from deshi.configuration.needs import Component
from deshi.losses.base import Loss
from deshi.metrics import ScoreBlocks, product_blocks
from deshi.models.item_table import ItemEmbedding, ItemTable
from deshi.types import Batch, DeshiError, ScoreKind, check_shape


class HistoryError(DeshiError, ValueError):
    """A history that a network can't read: empty, or with a number that is no item index."""


def check_histories(items: Tensor, lengths: Tensor, n_items: int) -> None:
    """Refuse histories that are empty, longer than their row, or hold numbers outside ``[-1, n_items)``.

    Raises:
        ShapeError: if ``items`` isn't ``(B, L)`` or ``lengths`` isn't ``(B,)``.
        HistoryError: with the first offending value.
    """
    check_shape("items", items, ("B", "L"))
    check_shape("lengths", lengths, (items.shape[0],))
    if items.numel() == 0:
        raise HistoryError(f"items has shape {tuple(items.shape)}: a batch needs a history and a history an item.")
    low, high = int(items.min()), int(items.max())
    if low < -1 or high >= n_items:
        raise HistoryError(
            f"items holds {low if low < -1 else high}, expected indices 0..{n_items - 1} or -1 (padding). "
            "Encode item ids with Bundle.encode, which leaves out ids that the vocabulary doesn't know."
        )
    short, long = int(lengths.min()), int(lengths.max())
    if short < 1 or long > items.shape[1]:
        raise HistoryError(
            f"lengths holds {short if short < 1 else long}, expected 1..{items.shape[1]} (the width of items). "
            "A network can't answer an empty history: use a popularity ranking there."
        )
    inside = torch.arange(items.shape[1], device=items.device) < lengths[:, None]
    wrong = ((items >= 0) != inside).any(1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise HistoryError(
            f"Row {row} of items has its {int((items[row] >= 0).sum())} items and its padding elsewhere than "
            f"lengths[{row}]={int(lengths[row])} says. Items come first, then -1 up to the row's end."
        )


class Recommender(Component, nn.Module, ABC):
    """A network that is trained, a student or a teacher by its role.

    Attributes:
        n_items: number of items in the vocabulary.
        max_length: number of latest items that it looks at; longer histories lose their beginning.
        score_kind: meaning of :meth:`next_scores`.
        answers_positions: whether it has :meth:`position_scores`.
    """

    n_items: int
    max_length: int
    score_kind: ClassVar[ScoreKind] = ScoreKind.SCORE
    answers_positions: ClassVar[bool] = False

    @abstractmethod
    def training_loss(self, batch: Batch, loss: Loss) -> Tensor:
        """The mean loss over the batch's targets, a scalar.

        Args:
            batch: histories of at most ``max_length`` items with their targets.
            loss: the hard loss.
        """

    def loss_positions(self, batch: Batch) -> int:
        """The number of positions that :meth:`training_loss` is the mean of: those of a batch that have a target.

        Ranks of one training weight their parts of a batch by it.
        """
        return batch.n_targets

    @abstractmethod
    def next_scores(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Scores ``(B, n_items)`` in fp32 of every item as the next one, higher is better.

        Args:
            items: ``(B, L)`` int64 item indices, oldest first, padded on the right with ``-1``, however long.
            lengths: ``(B,)`` int64, the real length of each row, at least 1.
        """

    def position_scores(self, items: Tensor, lengths: Tensor, where: Tensor) -> Tensor:
        """Scores ``(P, n_items)`` in fp32 after the marked positions of ``where`` ``(B, L)``, in row-major order.

        Args:
            items: ``(B, L)`` histories of at most ``max_length`` items, as in :meth:`next_scores`.
            lengths: ``(B,)``.
            where: ``(B, L)`` bool.

        Raises:
            DeshiError: if it answers whole histories only.
        """
        raise DeshiError(f"{type(self).__name__} answers for whole histories only: use next_scores().")

    def next_score_blocks(self, items: Tensor, lengths: Tensor) -> ScoreBlocks | None:
        """:meth:`next_scores` block by block of items, where the whole matrix is too large; None where it isn't."""
        return None

    def describe(self) -> dict[str, Any]:
        """Facts about the network for a run's record, JSON-able; none by default."""
        return {}

    def merged(self) -> Recommender:
        """The network as it is kept and served, without parts that only training needs; itself by default."""
        return self

    def for_ranking(self) -> Recommender:
        """One of the same scores that ranks many histories faster, to be kept nowhere; :meth:`merged` at least."""
        return self.merged()


class SequentialRecommender(Recommender):
    """A network with hidden states and an item table; every student of deshi is one.

    It reads histories and writes one hidden state per position; the score of an item after a position is the
    inner product of that hidden state with the item's row in :meth:`item_table`.

    Args:
        n_items: number of items in the vocabulary.
        dim: width of hidden states and of the item table.
        max_length: number of latest items read; longer histories lose their beginning.

    Attributes:
        items: the item table, which is the input embedding, too.
    """

    def __init__(self, n_items: int, dim: int, max_length: int) -> None:
        super().__init__()
        for name, value in (("n_items", n_items), ("dim", dim), ("max_length", max_length)):
            if value < 1:
                raise DeshiError(f"{type(self).__name__} got {name}={value}, expected a positive number.")
        self.n_items = n_items
        self.dim = dim
        self.max_length = max_length
        self.items: ItemTable = ItemEmbedding(n_items, dim)

    @abstractmethod
    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Hidden states ``(B, L, dim)`` of checked histories ``(B, L)`` with ``L <= max_length``."""

    def encode_last(self, items: Tensor, lengths: Tensor) -> Tensor:
        """The last position's hidden states ``(B, dim)``; override it to spare the work on earlier positions."""
        return at_last(self.encode(items, lengths), lengths)

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Hidden states after every position.

        Args:
            items: ``(B, L)`` int64 item indices, oldest first, padded on the right with ``-1``.
            lengths: ``(B,)`` int64, the real length of each row, at least 1.

        Returns:
            ``(B, L, dim)``, or ``(B, max_length, dim)`` for histories of over ``max_length`` items, of which only
            the latest ``max_length`` are read. Values at padded positions are finite and without meaning.

        Raises:
            ShapeError: for tensors of other shapes.
            HistoryError: for empty histories and numbers that are no item index.
        """
        check_histories(items, lengths, self.n_items)
        items, lengths = keep_latest(items, lengths, self.max_length)
        return self.encode(items, lengths)

    def hidden_states(self, batch: Batch) -> Tensor:
        """:meth:`forward` of a training batch, which is checked on the CPU alone: a device would be waited for."""
        if batch.items.device.type == "cpu":
            check_histories(batch.items, batch.lengths, self.n_items)
        return self.encode(*keep_latest(batch.items, batch.lengths, self.max_length))

    def last_hidden(self, items: Tensor, lengths: Tensor) -> Tensor:
        """The hidden state ``(B, dim)`` after each history's last item: what ranks the next one."""
        check_histories(items, lengths, self.n_items)
        items, lengths = keep_latest(items, lengths, self.max_length)
        return self.encode_last(items, lengths)

    def training_loss(self, batch: Batch, loss: Loss) -> Tensor:
        """The mean loss over all positions that have a target."""
        positions = batch.target_positions
        hidden = self.hidden_states(batch).flatten(0, 1).index_select(0, positions)
        return cast(Tensor, loss(hidden, self.item_table(), batch.targets.flatten()[positions]))

    def next_scores(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Scores ``(B, n_items)``: the last hidden state times the item table, in fp32."""
        hidden = self.last_hidden(items, lengths).float()
        with torch.autocast(hidden.device.type, enabled=False):
            return hidden @ self.item_table().float().T

    def next_score_blocks(self, items: Tensor, lengths: Tensor) -> ScoreBlocks | None:
        """See :meth:`Recommender.next_score_blocks`: above :data:`deshi.arrays.BLOCKWISE_ABOVE` items."""
        if self.n_items <= BLOCKWISE_ABOVE or type(self).next_scores is not SequentialRecommender.next_scores:
            return None
        return product_blocks(self.last_hidden(items, lengths).detach(), self.item_table().detach())

    def item_table(self) -> Tensor:
        """The items' scoring vectors ``(n_items, dim)``, row ``i`` for item index ``i``."""
        return self.items.table()

    def text_vectors(self) -> Tensor | None:
        """``(n_items, D)`` the language model's vectors that the item table is made of, None if it isn't."""
        return self.items.text_vectors()

    def merged(self) -> SequentialRecommender:
        """The network with its item table as plain numbers; itself if the table is nothing else."""
        return self._with_items(lambda items: items.merged())

    def for_ranking(self) -> SequentialRecommender:
        """See :meth:`Recommender.for_ranking`: the item table is computed once, not for every batch."""
        return self._with_items(lambda items: items.numbers())

    def _with_items(self, change: Callable[[ItemTable], ItemTable]) -> SequentialRecommender:
        """A copy with the item table changed; itself if it is the same table."""
        items = change(self.items)
        return self if items is self.items else copy.deepcopy(self, {id(self.items): items})


def at_last(x: Tensor, lengths: Tensor) -> Tensor:
    """Each row's last real position: ``(B, L, dim)`` -> ``(B, dim)``."""
    return x[torch.arange(x.shape[0], device=x.device), lengths - 1]


def keep_latest(items: Tensor, lengths: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
    """Cut histories ``(B, L)`` to their latest ``max_length`` items; shorter ones stay as they are.

    Returns:
        items ``(B, min(L, max_length))`` and lengths ``(B,)``.
    """
    if items.shape[1] <= max_length:
        return items, lengths
    first = (lengths - max_length).clamp(min=0)
    columns = first[:, None] + torch.arange(max_length, device=items.device)
    return items.gather(1, columns), lengths.clamp(max=max_length)

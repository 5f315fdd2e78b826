"""Scorers: whatever scores the whole catalogue after a history, and networks as scorers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.arrays import BLOCKWISE_ABOVE
from deshi.metrics import ScoreBlocks, product_blocks
from deshi.models.base import Recommender, SequentialRecommender
from deshi.types import Batch, DeshiError, ScoreKind


class Scorer(ABC):
    """A model that scores every item of the catalogue as the next one after a history.

    Attributes:
        n_items: number of items of the catalogue.
        max_length: the longest history whose positions :meth:`position_scores` answers in one pass; 0 for a model
            that answers whole histories only.
        score_kind: meaning of the scores.
        is_evidence: whether the scores are evidence to add to a distribution, such as logarithms of counts, rather
            than a distribution: their weight in a sum is free.
        network: the trained network behind the scorer, if there is one.
    """

    n_items: int
    max_length: int = 0
    score_kind: ScoreKind = ScoreKind.SCORE
    is_evidence: bool = False
    network: Recommender | None = None

    @abstractmethod
    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32, higher is better; the batch holds whole histories, however long."""

    def score_blocks(self, batch: Batch) -> ScoreBlocks | None:
        """:meth:`scores` block by block of items, where the whole matrix is too large; None: it has to be whole."""
        return None

    def position_scores(self, batch: Batch, where: Tensor) -> Tensor:
        """Scores ``(P, n_items)`` float32 after each marked position, in row-major order of ``where`` ``(B, L)``.

        The batch's histories have at most ``max_length`` items. The scores equal those that :meth:`scores` gives for
        the history up to that position.

        Raises:
            DeshiError: if the model answers whole histories only.
        """
        raise DeshiError(f"{type(self).__name__} answers for whole histories only (max_length=0): use scores().")

    def to(self, device: torch.device | str) -> Scorer:
        """The scorer with what it computes with on ``device``; by default itself, for one that has nothing there."""
        return self

    def leave_user_out(self) -> Scorer:
        """The scorer for training positions: it knows nothing of the histories' own users where that can be left out.

        Counts can leave it out exactly. A trained network can't: it is returned as it is.
        """
        return self

    def cost(self) -> dict[str, Any] | None:
        """Sums of numbers so far, by name, of what the answers cost where they are paid for; None elsewhere."""
        return None

    def item_vectors(self) -> NDArray[np.float32] | None:
        """``(n_items, D)`` the model's own vectors of the items, None if it has none."""
        return None

    def text_vectors(self) -> NDArray[np.float32] | None:
        """``(n_items, D)`` the language model's vectors of the items that the model is made of, None without."""
        return None


class RecommenderScorer(Scorer):
    """A trained network as a :class:`Scorer`, in evaluation mode.

    Args:
        network: it is moved to ``device`` and switched to evaluation mode.
        device: where to compute.
    """

    network: Recommender

    def __init__(self, network: Recommender, device: torch.device | str = "cpu") -> None:
        self.network = network.to(device).eval()
        self.n_items, self.score_kind = network.n_items, network.score_kind
        self.max_length = network.max_length if network.answers_positions else 0

    def to(self, device: torch.device | str) -> RecommenderScorer:
        """The scorer with its network on ``device``."""
        return RecommenderScorer(self.network, device)

    @torch.no_grad()
    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32; the network looks at its latest ``max_length`` items."""
        return self.network.next_scores(batch.items, batch.lengths)

    @torch.no_grad()
    def position_scores(self, batch: Batch, where: Tensor) -> Tensor:
        """See :meth:`Scorer.position_scores`."""
        return self.network.position_scores(batch.items, batch.lengths, where)


class SequentialScorer(Scorer):
    """A sequential recommender as a :class:`Scorer`: its hidden states times its item table, in evaluation mode.

    Args:
        network: it is moved to ``device`` and switched to evaluation mode.
        device: where to compute.
    """

    score_kind = ScoreKind.LOGIT
    network: SequentialRecommender

    def __init__(self, network: SequentialRecommender, device: torch.device | str = "cpu") -> None:
        self.network = network.to(device).eval()
        self.n_items = network.n_items
        self.max_length = network.max_length
        with torch.no_grad():
            table = network.item_table().detach().float().T
            # products with a transposed copy are faster; of a large table it would take too much memory
            self._table = table if self.n_items > BLOCKWISE_ABOVE else table.contiguous()

    def to(self, device: torch.device | str) -> SequentialScorer:
        """The scorer with its network and its item table on ``device``."""
        moved = copy(self)
        moved.network, moved._table = self.network.to(device), self._table.to(device)
        return moved

    @torch.no_grad()
    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32; the network looks at its latest ``max_length`` items."""
        return self.network.last_hidden(batch.items, batch.lengths).float() @ self._table

    @torch.no_grad()
    def score_blocks(self, batch: Batch) -> ScoreBlocks | None:
        """See :meth:`Scorer.score_blocks`: above :data:`deshi.arrays.BLOCKWISE_ABOVE` items."""
        if self.n_items <= BLOCKWISE_ABOVE:
            return None
        return product_blocks(self.network.last_hidden(batch.items, batch.lengths), self._table.T)

    @torch.no_grad()
    def position_scores(self, batch: Batch, where: Tensor) -> Tensor:
        """See :meth:`Scorer.position_scores`."""
        return self.network(batch.items, batch.lengths)[where].float() @ self._table

    def item_vectors(self) -> NDArray[np.float32]:
        """``(n_items, dim)`` the item table."""
        return self._table.T.cpu().numpy()

    def text_vectors(self) -> NDArray[np.float32] | None:
        """See :meth:`Scorer.text_vectors`."""
        vectors = self.network.text_vectors()
        return None if vectors is None else vectors.float().cpu().numpy()


class ListScorer(Scorer):
    """A model that answers with its best items, never with the scores of all: the index of a large catalogue."""

    def scores(self, batch: Batch) -> Tensor:
        """Refused: such a model has lists alone."""
        raise DeshiError(f"{type(self).__name__} answers with lists, not with the scores of all items: use lists().")

    @abstractmethod
    def lists(self, batch: Batch, k: int, filter_seen: bool) -> tuple[Tensor, Tensor]:
        """The ``k`` best items after each history and their scores.

        Args:
            batch: whole histories.
            k: length of the lists.
            filter_seen: whether a history's items are left out of its list.

        Returns:
            items ``(B, k)`` int64, best first, ``PAD`` where there are no more, and scores ``(B, k)`` float32.
        """


def scorer_of(network: Recommender, device: torch.device | str = "cpu") -> Scorer:
    """The fastest :class:`Scorer` for a network: all positions in one pass where it is sequential."""
    if isinstance(network, SequentialRecommender):
        return SequentialScorer(network, device)
    return RecommenderScorer(network, device)

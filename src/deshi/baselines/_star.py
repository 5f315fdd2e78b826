"""STAR: texts like those of the latest items, and items that the same users had; nothing is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array, vstack
from torch import Tensor

from deshi.baselines._events import Events
from deshi.baselines._history import latest_items
from deshi.baselines._search import Grid, SearchedBaseline
from deshi.baselines._seqrules import pruned
from deshi.types import Batch, DeshiError

_BLOCK = 1000
"""Items whose common users are counted at a time."""

_GRIDS: tuple[Grid, ...] = (
    {"text_weight": (0.1, 0.3, 0.5, 0.7, 0.9)},
    {"history_decay": (0.3, 0.5, 0.9)},
    {"latest": (1, 10)},
    {"text_weight": (0.2, 0.4, 0.6, 0.8)},
)


class Star(SearchedBaseline):
    """The retrieval of STAR (Lee et al. 2024, arXiv 2410.16458): text similarity plus common users.

    After a history whose ``k``-th latest item is ``h_k``, item ``j`` scores the sum over ``k <= latest`` of
    ``history_decay ** (k - 1) (text_weight s(h_k, j) + (1 - text_weight) n(h_k, j) / sqrt(n(h_k) n(j)))``: ``s`` is the
    cosine of the items' text vectors, ``n`` the users who have an item, or both, in training. Unlike in the paper no
    ratings weigh the items, the weights sum to 1, and only an item's ``neighbours`` nearest by common users count, with
    all that tie with the last; the re-ranking by a language model is left out.

    Args:
        vectors: ``(n_items, D)`` of the items' texts.
        text_weight: share of the text, from 0 to 1.
        history_decay: weight of an item of the history for each item after it, above 0 and up to 1.
        latest: items of a history that are read.
        neighbours: items that count as near by common users, for each item.
    """

    grids = _GRIDS
    most_examples = 5_120

    def __init__(
        self,
        vectors: Tensor,
        text_weight: float = 0.5,
        history_decay: float = 0.7,
        latest: int = 3,
        neighbours: int = 500,
    ) -> None:
        if not (0 <= text_weight <= 1 and 0 < history_decay <= 1) or min(latest, neighbours) < 1:
            raise DeshiError(
                f"Star got text_weight={text_weight}, history_decay={history_decay}, latest={latest} and "
                f"neighbours={neighbours}, expected a weight from 0 to 1, a decay above 0 and up to 1, and the others "
                "from 1."
            )
        self.text_weight, self.history_decay, self.latest = text_weight, history_decay, latest
        self.neighbours = neighbours
        # Equal texts have equal vectors: each is scored once, so that its items tie exactly.
        unit = torch.nn.functional.normalize(vectors.float(), dim=1)
        self._texts, self._text_of_item = torch.unique(unit, dim=0, return_inverse=True)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that :meth:`search` chooses."""
        return {name: getattr(self, name) for name in ("text_weight", "history_decay", "latest")}

    def _set(self, settings: dict[str, Any]) -> None:
        vars(self).update(settings)

    def _fit(self, events: Events) -> None:
        if len(self._text_of_item) != events.n_items:
            raise DeshiError(
                f"Star has text vectors of {len(self._text_of_item)} items, the data has {events.n_items}: one for "
                "each is expected, in the order of the vocabulary."
            )
        self._near = common_users(events, self.neighbours)

    def sparse_scores(self, batch: Batch) -> Tensor:
        """See :meth:`deshi.baselines.SearchedBaseline.sparse_scores`."""
        weights = self.history_decay ** np.arange(self.latest, dtype=np.float64)
        offsets, items, shares = latest_items(batch, torch.arange(len(batch.items)), batch.lengths - 1, weights)
        history = csr_array((shares, items, offsets), shape=(len(batch.items), self.n_items))
        near = (history @ self._near).astype(np.float32).toarray() * np.float32(1 - self.text_weight)
        # sum_k w_k s(h_k, j) is the product of the weighted sum of the history's vectors with that of j
        vectors = torch.nn.functional.embedding_bag(
            self._text_of_item[torch.from_numpy(items)], self._texts, torch.from_numpy(offsets[:-1]), mode="sum",
            per_sample_weights=torch.from_numpy(shares.astype(np.float32)),
        )  # fmt: skip
        similarity = (vectors @ self._texts.T).index_select(1, self._text_of_item)
        return torch.from_numpy(near).add_(similarity, alpha=self.text_weight)


def common_users(events: Events, kept: int) -> csr_array:
    """``(n_items, n_items)`` cosines of the items' sets of users, without the diagonal, the ``kept`` greatest a row."""
    users, items = events.pairs()
    counts = np.bincount(items, minlength=events.n_items).clip(min=1)
    ones = coo_array((1 / np.sqrt(counts[items]), (users, items)), shape=(events.n_users, events.n_items))
    by_user, by_item = ones.tocsr(), ones.T.tocsr()
    blocks = []
    for first in range(0, events.n_items, _BLOCK):
        block = (by_item[first : first + _BLOCK] @ by_user).tocoo()
        other = block.col != block.row + first
        values = block.data[other].round(9)  # equal sets have equal cosines, whatever the order of the sum
        blocks.append(pruned(csr_array((values, (block.row[other], block.col[other])), shape=block.shape), kept))
    return csr_array(vstack(blocks))

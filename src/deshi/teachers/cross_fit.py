"""Cross-fitting: each user is scored by a teacher that was trained on other users' histories only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.models.scorers import Scorer
from deshi.types import Batch, DeshiError


def draw_folds(n_users: int, n_folds: int, seed: int) -> NDArray[np.int64]:
    """``(n_users,)`` each user's fold, drawn at random, of sizes that differ by one at most.

    Raises:
        DeshiError: unless ``2 <= n_folds <= n_users``.
    """
    if not 2 <= n_folds <= n_users:
        raise DeshiError(f"cross_fit is {n_folds}, expected 2 to {n_users} folds (the number of users).")
    generator = np.random.Generator(np.random.SFC64([seed, 17]))
    return generator.permutation(np.arange(n_users) % n_folds)


class CrossFitted(Scorer):
    """One scorer a fold; a history is scored by its user's.

    With scorers that were each trained without their own fold, every answer is out of sample (the idea of
    cross-fitting: Chernozhukov et al. 2018, https://doi.org/10.1111/ectj.12097).

    Args:
        scorers: of each fold.
        folds: ``(n_users,)`` each user's fold.
    """

    def __init__(self, scorers: Sequence[Scorer], folds: NDArray[np.int64]) -> None:
        if int(folds.max(initial=-1)) + 1 != len(scorers):
            raise DeshiError(f"The folds name {int(folds.max(initial=-1)) + 1} teachers, but there are {len(scorers)}.")
        self.n_items, self.score_kind = scorers[0].n_items, scorers[0].score_kind
        self.max_length = min(scorer.max_length for scorer in scorers)
        self._scorers = scorers
        self._folds = torch.from_numpy(folds)

    def to(self, device: torch.device | str) -> CrossFitted:
        """The same with every fold's teacher on ``device``."""
        return CrossFitted([scorer.to(device) for scorer in self._scorers], self._folds.numpy())

    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32, each row by the teacher of its user's fold."""
        scores = torch.empty(len(batch.users), self.n_items, device=batch.items.device)
        for fold, rows in self._parts(batch):
            scores[rows] = self._scorers[fold].scores(batch.select(rows))
        return scores

    def position_scores(self, batch: Batch, where: Tensor) -> Tensor:
        """See :meth:`~deshi.models.scorers.Scorer.position_scores`."""
        owner = where.nonzero()[:, 0]
        scores = torch.empty(len(owner), self.n_items, device=batch.items.device)
        for fold, rows in self._parts(batch):
            scores[torch.isin(owner, rows)] = self._scorers[fold].position_scores(batch.select(rows), where[rows])
        return scores

    def text_vectors(self) -> NDArray[np.float32] | None:
        """``(n_items, D)`` the language model's vectors of the items, which all folds share; None if there are none."""
        return self._scorers[0].text_vectors()

    def _parts(self, batch: Batch) -> list[tuple[int, Tensor]]:
        """Each fold that occurs in the batch, with its rows in ascending order."""
        folds = self._folds.to(batch.users.device)[batch.users]
        return [(int(fold), (folds == fold).nonzero().squeeze(1)) for fold in folds.unique()]

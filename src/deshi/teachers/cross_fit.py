"""Cross-fitting: each user is answered by a teacher that was trained on other users' histories only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.models.scorers import PositionScorer, Scorer, StudentScorer
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


class CrossFitted:
    """One scorer a fold; a history is scored by its user's.

    With scorers that were each trained without their own fold, every answer is out of sample (the idea of
    cross-fitting: Chernozhukov et al. 2018, https://doi.org/10.1111/ectj.12097).

    Args:
        scorers: of each fold; all scorers of positions, or none.
        folds: ``(n_users,)`` each user's fold.
    """

    def __init__(self, scorers: Sequence[Scorer], folds: NDArray[np.int64]) -> None:
        if int(folds.max(initial=-1)) + 1 != len(scorers):
            raise DeshiError(f"The folds name {int(folds.max(initial=-1)) + 1} teachers, but there are {len(scorers)}.")
        self.n_items = scorers[0].n_items
        self._scorers = scorers
        self._folds = torch.from_numpy(folds)

    @property
    def score_kind(self) -> str:
        """What the scores are, see :mod:`deshi.soft_labels.manifest`."""
        return str(getattr(self._scorers[0], "score_kind", "score"))

    @property
    def max_length(self) -> int:
        """The longest history that every fold's teacher reads in one pass; 0 if one of them can't."""
        readers = [one.max_length for one in self._scorers if isinstance(one, PositionScorer)]
        return min(readers) if len(readers) == len(self._scorers) else 0

    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32, each row by the teacher of its user's fold."""
        found = torch.empty(len(batch.users), self.n_items, device=batch.items.device)
        for fold, rows in self._parts(batch):
            found[rows] = self._scorers[fold].scores(batch.select(rows))
        return found

    def position_scores(self, batch: Batch, where: Tensor) -> Tensor:
        """``(P, n_items)`` float32, see :class:`~deshi.models.scorers.PositionScorer`."""
        owner = where.nonzero()[:, 0]
        found = torch.empty(len(owner), self.n_items, device=batch.items.device)
        for fold, rows in self._parts(batch):
            scorer = self._scorers[fold]
            if not isinstance(scorer, PositionScorer):
                raise DeshiError("A teacher of this cross-fitting answers for whole histories only: use scores().")
            found[torch.isin(owner, rows)] = scorer.position_scores(batch.select(rows), where[rows])
        return found

    def text_vectors(self) -> NDArray[np.float32] | None:
        """``(n_items, D)`` the language model's vectors of the items, which all folds share; None if there are none."""
        first = self._scorers[0]
        return first.text_vectors() if isinstance(first, StudentScorer) else None

    def _parts(self, batch: Batch) -> list[tuple[int, Tensor]]:
        """Each fold that occurs in the batch, with its rows in ascending order."""
        folds = self._folds.to(batch.users.device)[batch.users]
        return [(int(fold), (folds == fold).nonzero().squeeze(1)) for fold in folds.unique()]

"""A teacher's soft labels at the positions of a batch, read from one or several stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.soft_labels import SoftLabels
from deshi.types import PAD, DeshiError, ScoreKind, check_shape, copied_to


@dataclass(frozen=True)
class SoftLabelBatch:
    """A teacher's lists at positions.

    Attributes:
        items: ``(P, K)`` int64, best first, ``PAD`` where a list ends; a row of ``PAD`` is not distilled.
        scores: ``(P, K)`` float32, falling along a row, 0 where the item is ``PAD``.
        score_kind: meaning of the scores.
        users: ``(P,)`` int64 whose histories the positions are of; None if nobody asks.
    """

    items: Tensor
    scores: Tensor
    score_kind: ScoreKind = ScoreKind.LOGIT
    users: Tensor | None = None

    def __post_init__(self) -> None:
        check_shape("SoftLabelBatch.items", self.items, ("P", "K"))
        check_shape("SoftLabelBatch.scores", self.scores, tuple(self.items.shape))

    def __len__(self) -> int:
        return len(self.items)

    def part(self, rows: slice | Tensor) -> SoftLabelBatch:
        """The lists of some positions."""
        return self._map(lambda tensor: tensor[rows])

    def top(self, k: int | None) -> SoftLabelBatch:
        """The first ``k`` of every list, or whole lists for None."""
        return SoftLabelBatch(self.items[:, :k], self.scores[:, :k], self.score_kind, self.users)

    def to(self, device: torch.device | str) -> SoftLabelBatch:
        """The same lists on ``device``, to which they are copied without waiting."""
        return self._map(lambda tensor: copied_to(device, tensor))

    def pin_memory(self) -> SoftLabelBatch:
        """The same lists in memory from which they are copied to a GPU without waiting."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> SoftLabelBatch:
        users = None if self.users is None else change(self.users)
        return SoftLabelBatch(change(self.items), change(self.scores), self.score_kind, users)

    @property
    def listed(self) -> Tensor:
        """``(P, K)`` bool, False after a list's end."""
        return self.items != PAD

    @property
    def log_scores(self) -> Tensor:
        """The scores ``(P, K)``, probabilities as logarithms."""
        return self.scores.clamp(min=1e-12).log() if self.score_kind is ScoreKind.PROBABILITY else self.scores


class SoftLabelLists:
    """The lists of one or several stores behind one row number.

    The first rows are the events of the bundle; the rows of each store of augmented histories follow in the order in
    which the stores are given.

    Args:
        n_rows: number of the bundle's events.
        stores: opened stores on that bundle, at most one of them about the bundle's own histories.
        k: longest list that is read; None reads whole lists.
        chosen: ``(R,)`` bool, the rows that are distilled; None is all that are covered.

    Raises:
        DeshiError: if two stores are about the bundle's histories, or their scores are of different kinds.
    """

    def __init__(
        self, n_rows: int, stores: Sequence[SoftLabels], k: int | None = None, chosen: NDArray[np.bool_] | None = None
    ) -> None:
        plain = sum(not store.augmented for store in stores)
        kinds = sorted({str(store.score_kind) for store in stores})
        if not stores or plain > 1 or len(kinds) > 1:
            raise DeshiError(
                f"Got {len(stores)} soft-label stores, {plain} of them about the data's own histories, with scores "
                f"of the kinds {kinds}. Expected one store on the data's histories at most, any number on augmented "
                "ones, and one kind of scores. An ensemble (deshi teach teacher=ensemble) joins teachers in one store."
            )
        self.score_kind = ScoreKind(kinds[0])
        self._stores: list[tuple[int, SoftLabels]] = []
        self.n_rows = n_rows
        for store in stores:
            self._stores.append((self.n_rows if store.augmented else 0, store))
            self.n_rows += store.n_rows if store.augmented else 0
        self.k = min([max(store.k for store in stores), *([] if k is None else [k])])
        self._chosen = chosen

    @property
    def covered(self) -> NDArray[np.bool_]:
        """``(R,)`` which rows are distilled."""
        covered = np.zeros(self.n_rows, dtype=np.bool_)
        for start, store in self._stores:
            covered[start : start + store.n_rows] |= store.covered
        return covered if self._chosen is None else covered & self._chosen

    def at(self, rows: Tensor) -> SoftLabelBatch:
        """The lists after rows ``(P,)`` int64; ``PAD`` and rows that aren't distilled have empty ones."""
        numbers = rows.cpu().numpy()
        items = np.full((len(numbers), self.k), PAD, dtype=np.int64)
        scores = np.zeros((len(numbers), self.k), dtype=np.float32)
        for start, store in self._stores:
            inside = (numbers >= start) & (numbers < start + store.n_rows)
            if self._chosen is not None:
                inside[inside] = self._chosen[numbers[inside]]
            width = min(self.k, store.k)
            items[inside, :width] = store.items[numbers[inside] - start, :width]
            scores[inside, :width] = store.scores[numbers[inside] - start, :width]
        return SoftLabelBatch(
            torch.from_numpy(items).to(rows.device), torch.from_numpy(scores).to(rows.device), self.score_kind
        )

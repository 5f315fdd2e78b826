"""What a teacher says at the positions of a batch, taken from soft-label stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.soft_labels.store import SoftLabels
from deshi.types import PAD, DeshiError, check_shape


@dataclass(frozen=True)
class Signal:
    """A teacher's lists at positions.

    Attributes:
        items: ``(P, K)`` int64, best first, ``PAD`` where a list ends; a row of ``PAD`` is not distilled.
        scores: ``(P, K)`` float32, falling along a row, 0 where the item is ``PAD``.
        kind: what the scores are, one of :data:`deshi.soft_labels.manifest.SCORE_KINDS`.
    """

    items: Tensor
    scores: Tensor
    kind: str = "logit"

    def __post_init__(self) -> None:
        check_shape("Signal.items", self.items, ("P", "K"))
        check_shape("Signal.scores", self.scores, tuple(self.items.shape))

    def part(self, rows: slice | Tensor) -> Signal:
        """The lists of some positions."""
        return Signal(self.items[rows], self.scores[rows], self.kind)

    def top(self, k: int) -> Signal:
        """The first ``k`` of every list."""
        return Signal(self.items[:, :k], self.scores[:, :k], self.kind)

    @property
    def covered(self) -> Tensor:
        """``(P,)`` bool, whether the teacher said anything there."""
        return self.items[:, 0] != PAD


class Lists:
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
        own = [store for store in stores if not store.augmented]
        kinds = sorted({str(store.manifest["score_kind"]) for store in stores})
        if not stores or len(own) > 1 or len(kinds) > 1:
            raise DeshiError(
                f"Got {len(stores)} soft-label stores, {len(own)} of them about the data's own histories, with scores "
                f"of the kinds {kinds}. Expected one store on the data's histories at most, any number on augmented "
                "ones, and one kind of scores. An ensemble (deshi teach teacher=ensemble) joins teachers in one store."
            )
        self.kind = kinds[0]
        self._stores = list(stores)
        others = [store for store in stores if store.augmented]
        self._starts = [0 if not store.augmented else -1 for store in stores]
        begin = n_rows
        for store in others:
            self._starts[self._stores.index(store)] = begin
            begin += store.n_rows
        self.n_rows = begin
        self.k = max(store.k for store in stores) if k is None else min(k, max(store.k for store in stores))
        self._chosen = chosen

    @property
    def covered(self) -> NDArray[np.bool_]:
        """``(R,)`` which rows are distilled."""
        found = np.zeros(self.n_rows, dtype=np.bool_)
        for start, store in zip(self._starts, self._stores, strict=True):
            found[start : start + store.n_rows] |= store.covered
        return found if self._chosen is None else found & self._chosen

    def at(self, rows: Tensor) -> Signal:
        """The lists after rows ``(P,)`` int64; ``PAD`` and rows that aren't distilled have empty ones."""
        numbers = rows.cpu().numpy()
        items = np.full((len(numbers), self.k), PAD, dtype=np.int64)
        scores = np.zeros((len(numbers), self.k), dtype=np.float32)
        for start, store in zip(self._starts, self._stores, strict=True):
            here = (numbers >= start) & (numbers < start + store.n_rows)
            if self._chosen is not None:
                here[here] = self._chosen[numbers[here]]
            width = min(self.k, store.k)
            items[here, :width] = store.items[numbers[here] - start, :width]
            scores[here, :width] = store.scores[numbers[here] - start, :width]
        return Signal(torch.from_numpy(items).to(rows.device), torch.from_numpy(scores).to(rows.device), self.kind)

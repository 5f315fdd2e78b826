"""Popularity: the same list for everyone."""

from __future__ import annotations

import torch
from torch import Tensor

from deshi.baselines._base import Baseline
from deshi.baselines._events import Events
from deshi.types import Batch


class Popularity(Baseline):
    """Scores an item by its number of training events."""

    def _fit(self, events: Events) -> None:
        self._counts = torch.from_numpy(events.counts()).float()

    def _scores(self, batch: Batch) -> Tensor:
        return self._counts.expand(len(batch.items), -1)

"""Scorers that are slow, die, have no answer or a bug, for tests of what becomes of their tasks on a cluster."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch

from deshi.types import Batch
from hashed_scorer import Hashed


class Slow(Hashed):
    """Takes its time, so that something can happen between two shards."""

    def scores(self, batch: Batch) -> torch.Tensor:
        time.sleep(0.02)
        return super().scores(batch)


class Mortal(Hashed):
    """Ends its process at one row: once, or whenever it is asked for it."""

    def __init__(self, n_items: int, marker: Path, forever: bool = False) -> None:
        super().__init__(n_items)
        self.marker, self.forever = marker, forever

    def scores(self, batch: Batch) -> torch.Tensor:
        if (batch.rows == 20).any() and (self.forever or not self.marker.exists()):
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().scores(batch)


class Broken(Hashed):
    """Has no answer."""

    def scores(self, batch: Batch) -> torch.Tensor:
        return super().scores(batch) * torch.nan


class Faulty(Hashed):
    """Has a bug."""

    def scores(self, batch: Batch) -> torch.Tensor:
        raise KeyError("weights")

"""Explicit random streams, so that no draw depends on the global seed."""

from __future__ import annotations

import numpy as np
import torch


class RandomStream:
    """A torch generator per device that restarts from a seed."""

    def __init__(self) -> None:
        self.reseed([0])

    def reseed(self, seed: list[int]) -> None:
        """Restart from ``seed`` (numbers of 0 or more): the same seed gives the same draws."""
        self._seed = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1)
        self._generator: torch.Generator | None = None

    def generator(self, device: torch.device) -> torch.Generator:
        """The generator on ``device``, in the state that the last draw there left."""
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device)
            self._generator.manual_seed(self._seed)
        return self._generator

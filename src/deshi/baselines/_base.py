"""The base class of baselines: fitted on training events alone, then a scorer."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from deshi.arrays import Ints
from deshi.baselines._events import Events, training_events
from deshi.data.bundle import Bundle
from deshi.models.scorers import Scorer
from deshi.types import Batch, DeshiError


class Baseline(Scorer):
    """A scorer without learnt weights. It computes on the CPU and is deterministic.

    Attributes:
        n_items: size of the catalogue, 0 before :meth:`fit`.
    """

    n_items: int = 0

    def fit(self, bundle: Bundle, starts: Ints, ends: Ints) -> Baseline:
        """Learn from the events at the flat positions ``[starts[u], ends[u])`` of every user ``u``, no others.

        Raises:
            DeshiError: if there are none, or the catalogue is too large for the baseline.
        """
        events = training_events(bundle, starts, ends)
        self._fit(events)
        self.n_items = events.n_items
        return self

    @torch.no_grad()
    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32, higher is better."""
        if not self.n_items:
            raise DeshiError(f"{type(self).__name__} has not been fitted; call fit(bundle, starts, ends) first.")
        return self._scores(batch)

    @abstractmethod
    def _fit(self, events: Events) -> None: ...

    @abstractmethod
    def _scores(self, batch: Batch) -> Tensor: ...

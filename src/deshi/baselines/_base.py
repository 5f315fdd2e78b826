"""The base class of baselines: fitted on training events alone, then a scorer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from deshi.arrays import Ints
from deshi.baselines._events import Events, training_events
from deshi.data.bundle import Bundle
from deshi.data.example_batches import ExampleBatch, ExampleBatches
from deshi.data.splits import Split
from deshi.models.scorers import Scorer
from deshi.types import Batch, DeshiError

_BATCH = 256
"""Validation examples that are scored at a time."""


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
        return self.fit_events(training_events(bundle, starts, ends))

    def fit_events(self, events: Events) -> Baseline:
        """Learn from these events."""
        self._fit(events)
        self.n_items = events.n_items
        return self

    def choose(self, bundle: Bundle, split: Split, filter_seen: bool = True) -> dict[str, Any]:
        """Choose the settings by NDCG@10 on the validation examples of ``split``, with its training events.

        Returns:
            The settings; none, and the arguments stay as they are, for a baseline without such settings.
        """
        examples = split.examples(bundle, "validation")
        if not len(examples):
            return {}
        batches = ExampleBatches(bundle, examples, bundle.n_interactions, _BATCH, filter_seen)
        self.search(training_events(bundle, *split.train_ranges(bundle)), list(batches))
        return self.settings

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that :meth:`search` chooses, by name; none by default."""
        return {}

    def search(
        self, events: Events, validation: Sequence[ExampleBatch], fixed: Collection[str] = ()
    ) -> list[dict[str, Any]]:
        """Choose the settings by NDCG@10 on validation, fitted on ``events``, those named in ``fixed`` excepted.

        Returns:
            All that were tried, each with its ``ndcg@10``.
        """
        return []

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

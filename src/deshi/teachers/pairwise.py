"""Counts of item pairs as a teacher: nothing is trained, and the counts know nothing of the user they answer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deshi.baselines import Pairwise, training_events
from deshi.data.example_batches import ExampleBatches
from deshi.models.scorers import Scorer
from deshi.teachers.base import FittedTeacher, Resources
from deshi.types import Batch


class PairwiseTeacher(FittedTeacher):
    """The baseline :class:`~deshi.baselines.Pairwise` as a teacher, alone or as an ensemble's member.

    A user's own pairs hold the answers to that user's training positions: soft labels are made by the counts of all
    other users, exactly (:meth:`leave_user_out`), which costs no further counting.

    Args:
        n_items: number of items.
        resources: the data and which events of them are trained on.
        max_distance, distance_decay, history_decay, smoothing: see :class:`~deshi.baselines.Pairwise`; those that are
            None are chosen by NDCG@10 on validation.
        latest: items of a history that are read, at most.
    """

    is_evidence = True

    def __init__(
        self,
        n_items: int,
        resources: Resources,
        max_distance: int | None = None,
        distance_decay: float | None = None,
        history_decay: float | None = None,
        smoothing: float | None = None,
        latest: int = 50,
    ) -> None:
        arguments: dict[str, Any] = {
            "max_distance": max_distance, "distance_decay": distance_decay, "history_decay": history_decay,
            "smoothing": smoothing,
        }  # fmt: skip
        self.given = {name: value for name, value in arguments.items() if value is not None}
        self.counts = Pairwise(**self.given, latest=latest)
        self.n_items, self.resources = n_items, resources
        self.max_length, self.score_kind = self.counts.max_length, self.counts.score_kind

    def fit(self, validation: ExampleBatches) -> dict[str, Any]:
        """Choose the settings that were not given by NDCG@10 on validation.

        Returns:
            ``settings`` and ``tried``: every setting with its NDCG@10.
        """
        tried = self.counts.search(self._events(), list(validation), self.given)
        return {"settings": self.counts.settings, "tried": tried}

    def restore(self, state: dict[str, Any]) -> None:
        """Count with the settings that :meth:`fit` returned, on the events that this run is trained on."""
        self.counts = Pairwise(**state["settings"], latest=self.counts.latest)
        self.counts.fit_events(self._events())

    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32."""
        return self.counts.scores(batch.to("cpu")).to(batch.items.device)

    def position_scores(self, batch: Batch, where: Tensor) -> Tensor:
        """See :meth:`~deshi.models.scorers.Scorer.position_scores`."""
        return self.counts.position_scores(batch.to("cpu"), where.cpu()).to(batch.items.device)

    def leave_user_out(self) -> Scorer:
        """See :meth:`deshi.baselines.Pairwise.leave_user_out`."""
        return self.counts.leave_user_out()

    def item_vectors(self) -> NDArray[np.float32]:
        """See :meth:`deshi.baselines.Pairwise.item_vectors`."""
        return self.counts.item_vectors()

    def _events(self) -> Any:
        return training_events(self.resources.bundle, *self.resources.ranges())

"""Counts of item pairs as a teacher: nothing is trained, and the counts know nothing of the user they answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from deshi.baselines import Grid, Pairwise, best_settings, similar_items, training_events
from deshi.data.example_batches import ExampleBatch, ExampleBatches
from deshi.models.scorers import Scorer
from deshi.teachers._weight_search import EVIDENCE_WEIGHTS, Pool
from deshi.teachers.base import FittedTeacher, Resources
from deshi.teachers.ensemble import normalised
from deshi.teachers.item_embeddings import ItemEmbeddings, vectors_of_items
from deshi.types import Batch, DeshiError

log = logging.getLogger(__name__)

_MOST_SCORES = 300_000_000
"""Scores of the members that are held for the search: 1.2 GB."""

_GRIDS: tuple[Grid, ...] = (
    {"history_decay": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)},
    {"distance_decay": (0.5, 0.7, 0.85)},
    {"smoothing": (0.3, 1.0, 3.0)},
)
"""Around the settings of the counts alone."""

_SPREADS: tuple[Grid, ...] = ({"spread": (1.0,)}, {"smoothing": (0.4, 0.75, 1.5)}, {"spread": (0.5, 2.0)})
"""Tried last: with similar items the counts have twenty times as many entries."""
_MOST_ENTRIES = 400_000_000
"""Entries of the spread counts at most: 5 GB."""


class PairwiseTeacher(FittedTeacher):
    """The baseline :class:`~deshi.baselines.Pairwise` as a teacher, alone or as an ensemble's member.

    A user's own pairs hold the answers to that user's training positions: soft labels are made by the counts of all
    other users, exactly (:meth:`leave_user_out`), which costs no further counting.

    Counts that are added to other models want other settings than counts alone: what a text model knows of the earlier
    items of a history needn't be counted. With ``members`` the settings are those of the best sum.

    With ``embeddings`` an item is also counted where items of similar texts are, as far as validation likes it.

    Args:
        n_items: number of items.
        resources: the data, which events of them are trained on, and where the members are loaded from.
        members: finished runs that the counts will be added to in an ensemble.
        max_distance, distance_decay, history_decay, smoothing: see :class:`~deshi.baselines.Pairwise`; those that are
            None are chosen by NDCG@10 on validation.
        latest: items of a history that are read, at most.
        embeddings: how the items' text vectors are made; None: counts of the items alone.
        neighbours: items of the most similar texts, for each item.
        spread: see :class:`~deshi.baselines.Pairwise`; chosen as the others, where there are ``embeddings``.
    """

    is_evidence = True

    def __init__(
        self,
        n_items: int,
        resources: Resources,
        members: list[str] | None = None,
        max_distance: int | None = None,
        distance_decay: float | None = None,
        history_decay: float | None = None,
        smoothing: float | None = None,
        latest: int = 50,
        embeddings: ItemEmbeddings | None = None,
        neighbours: int = 30,
        spread: float | None = None,
    ) -> None:
        if neighbours < 1 or (spread and embeddings is None):
            raise DeshiError(
                f"teacher.neighbours is {neighbours} and teacher.spread is {spread}, expected neighbours from 1, and a "
                "spread only where teacher.embeddings says by which texts items are similar."
            )
        arguments: dict[str, Any] = {
            "max_distance": max_distance, "distance_decay": distance_decay, "history_decay": history_decay,
            "smoothing": smoothing, "spread": spread,
        }  # fmt: skip
        self.given = {name: value for name, value in arguments.items() if value is not None}
        self.similar: csr_array | None = None
        if embeddings is not None:
            self.similar = similar_items(vectors_of_items(embeddings, resources, n_items)[0], neighbours)
        self.latest = latest
        self.counts = self._with(self.given)
        self.n_items, self.resources, self.members = n_items, resources, members or []
        self.max_length, self.score_kind = self.counts.max_length, self.counts.score_kind

    def fit(self, validation: ExampleBatches) -> dict[str, Any]:
        """Choose the settings that were not given by NDCG@10 on validation: of the counts, then of the sum.

        Returns:
            ``settings`` and ``tried``: every setting with its NDCG@10, ``tried_beside`` with that of the best sum.
        """
        batches = list(validation)
        tried = self.counts.search(self._events(), batches, self.given)
        state = {"settings": self.counts.settings, "tried": tried}
        if self.members:
            grids = (*_GRIDS, *self._spreads())
            best, beside = best_settings(self.counts.settings, grids, self._beside(batches), self.given)
            state |= {"settings": best, "tried_beside": beside, "members": self.members}
        return state

    def _spreads(self) -> tuple[Grid, ...]:
        """What is tried of similar items; nothing where there are none, or too many pairs to be spread."""
        if self.similar is None:
            return ()
        entries = self.counts.counts.nnz * self.similar.nnz // self.n_items
        if entries <= _MOST_ENTRIES:
            return _SPREADS
        log.warning("counts of similar items would have up to %d entries: items are counted alone", entries)
        return ()

    def _beside(self, batches: list[ExampleBatch]) -> Callable[[dict[str, Any]], float]:
        """The NDCG@10 of the members' mean log-probabilities plus the counts at their best weight, by settings."""
        scorers = [self.resources.load_scorer(name, self.resources.device)[0] for name in self.members]
        # a sample of the batches, where the members' scores of all would not fit
        step = -(-len(batches) * len(batches[0].numbers) * self.n_items // _MOST_SCORES)
        sample, events = batches[::step], self._events()
        means = [
            torch.stack([normalised(scorer.scores(batch.histories), "log_softmax").cpu() for scorer in scorers]).mean(0)
            for batch in sample
        ]
        weights = [[1.0, weight] for weight in EVIDENCE_WEIGHTS]

        def quality(settings: dict[str, Any]) -> float:
            counts, pool = self._with(settings), Pool()
            counts.fit_events(events)
            for batch, mean in zip(sample, means, strict=True):
                pool.add(batch, [mean, counts.scores(batch.histories)])
            return max(pool.ndcg(weights))

        return quality

    def restore(self, state: dict[str, Any]) -> None:
        """Count with the settings that :meth:`fit` returned, on the events that this run is trained on."""
        self.counts = self._with(state["settings"])
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

    def _with(self, settings: dict[str, Any]) -> Pairwise:
        return Pairwise(**settings, latest=self.latest, similar=self.similar)

    def _events(self) -> Any:
        return training_events(self.resources.bundle, *self.resources.ranges())

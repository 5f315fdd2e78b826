"""The choice of a baseline's settings by NDCG@10 on validation: one small grid after the other."""

from __future__ import annotations

import itertools
import logging
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from deshi.arrays import Array, Floats, Ints
from deshi.baselines._base import Baseline
from deshi.baselines._events import Events
from deshi.data.example_batches import ExampleBatch
from deshi.metrics import metrics_from_ranks, rank_rows
from deshi.types import PAD, Batch

log = logging.getLogger(__name__)

Grid = Mapping[str, Sequence[Any]]


class SearchedBaseline(Baseline):
    """A baseline whose settings are chosen by trying them on validation.

    Attributes:
        grids: what :meth:`search` tries, one after the other.
        most_examples: validation examples that it ranks, about; of more it takes every n-th batch.
    """

    grids: ClassVar[Sequence[Grid]]
    most_examples: ClassVar[int] = 25_000

    def search(
        self, events: Events, validation: Sequence[ExampleBatch], fixed: Collection[str] = ()
    ) -> list[dict[str, Any]]:
        """See :meth:`deshi.baselines.Baseline.search`."""
        examples = sum(len(batch.numbers) for batch in validation)
        drawn = validation[:: max(1, -(-examples // self.most_examples))]
        if len(drawn) < len(validation):
            shown = type(self).__name__, len(drawn), len(validation)
            log.info("settings of %s by %d of %d batches of validation examples", *shown)

        def quality(settings: dict[str, Any]) -> float:
            self._set(settings)
            return self.validation_ndcg(drawn)

        self.fit_events(events)
        best, tried = best_settings(self.settings, self.grids, quality, fixed)
        self._set(best)
        return tried

    @abstractmethod
    def _set(self, settings: dict[str, Any]) -> None:
        """Take up other settings, on the events that it is fitted on."""

    @abstractmethod
    def sparse_scores(self, batch: Batch) -> csr_array | Tensor:
        """``(B, n_items)`` float32; the batch holds whole histories. Sparse if most scores are 0 and none is below."""

    def _scores(self, batch: Batch) -> Tensor:
        return full(self.sparse_scores(batch))

    def validation_ndcg(self, validation: Sequence[ExampleBatch]) -> float:
        """NDCG@10 over validation examples."""
        ranks, examples = [], []
        for batch in validation:
            has_target, scores = (batch.targets != PAD).numpy(), self.sparse_scores(batch.histories)
            if isinstance(scores, Tensor):
                all_ranks = rank_rows(scores, batch.targets, batch.seen)[0].numpy()
            else:
                all_ranks = sparse_ranks(scores, batch.targets.numpy(), batch.seen.numpy())
            ranks.append(all_ranks[has_target])
            examples.append(np.broadcast_to(batch.numbers.numpy()[:, None], has_target.shape)[has_target])
        return metrics_from_ranks(np.concatenate(ranks), (10,), np.concatenate(examples))["ndcg@10"]


def full(scores: csr_array | Tensor) -> Tensor:
    """The scores as a full table."""
    return scores if isinstance(scores, Tensor) else torch.from_numpy(scores.toarray())


def sparse_ranks(scores: csr_array, targets: Ints, seen: Ints) -> Floats:
    """The ranks of :func:`deshi.metrics.rank_rows` for sparse scores that aren't negative, without the full matrix.

    Args:
        scores: ``(B, N)``, from 0, each entry once.
        targets: ``(B, T)``, padded with ``PAD``.
        seen: ``(B, S)`` items that are no candidates, padded with ``PAD``.

    Returns:
        ``(B, T)`` from 1; infinite for a target that is seen, without meaning where it is padding.
    """
    size, n_items = scores.shape
    rows = np.repeat(np.arange(size), np.diff(scores.indptr))
    # the distinct seen items of each row: they are taken out of the counts below
    where = np.nonzero(seen != PAD)
    keys = np.unique(where[0] * n_items + seen[where])
    seen_rows, seen_scores = keys // n_items, np.asarray(scores[keys // n_items, keys % n_items]).ravel()
    candidates = n_items - np.bincount(seen_rows, minlength=size)
    ranks = np.empty(targets.shape)
    for column in range(targets.shape[1]):
        target = targets[:, column]
        is_target = scores.indices == target[rows]
        score = np.bincount(rows[is_target], scores.data[is_target], size).astype(scores.dtype)

        def count(reached: Callable[[Array, Array], Array], score: Array = score) -> Array:
            all_items = np.bincount(rows, reached(scores.data, score[rows]), size)
            return all_items - np.bincount(seen_rows, reached(seen_scores, score[seen_rows]), size)

        # a score of 0 is reached by every candidate, also by those without an entry
        higher, not_lower = count(np.greater), np.where(score > 0, count(np.greater_equal), candidates)
        is_seen = (seen == target[:, None]).any(1)
        ranks[:, column] = np.where(is_seen, np.inf, (higher + not_lower + 1) / 2)
    return ranks


def best_settings(
    start: Mapping[str, Any],
    grids: Sequence[Grid],
    quality: Callable[[dict[str, Any]], float],
    fixed: Collection[str] = (),
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The best settings that a search by coordinates finds.

    Args:
        start: the settings to begin with.
        grids: values of some settings, tried in all combinations, the others as they were best in the grids before.
        quality: of settings, higher is better. Equal ones: the first that was tried.
        fixed: settings that stay as they are.

    Returns:
        The best settings, and all that were tried, each with its ``ndcg@10``.
    """
    tried: dict[tuple[Any, ...], float] = {}
    best, names = dict(start), list(start)
    for grid in grids:
        free = {name: values for name, values in grid.items() if name not in fixed}
        combinations = [dict(zip(free, values, strict=True)) for values in itertools.product(*free.values())]
        for settings in [best | changes for changes in combinations]:
            key = tuple(settings.values())
            if key not in tried:
                tried[key] = quality(settings)
        best = dict(zip(names, max(tried.items(), key=lambda trial: trial[1])[0], strict=True))
    value = tried[tuple(best.values())]
    log.info("settings %s: validation NDCG@10 %.4f, the best of %d", best, value, len(tried))
    return best, [dict(zip(names, key, strict=True)) | {"ndcg@10": ndcg} for key, ndcg in tried.items()]

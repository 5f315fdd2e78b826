"""The ranking pass: exact ranks of evaluation examples' targets, batch by batch, reduced to metrics at the end.

Validation during training, the choice of an ensemble's weights, evaluation and the audit all rank through it. Ranks
are counts of comparisons, so that they depend neither on the device nor on how the examples are batched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deshi.data.example_batches import ExampleBatch
from deshi.metrics import ScoreBlocks, metrics_from_ranks, rank_blocks, rank_rows
from deshi.types import PAD


@dataclass(frozen=True, eq=False)
class CollectedRanks:
    """The ranks of ``T`` targets of ``C`` examples by ``S`` scorings, in the order of examples.

    Attributes:
        examples: ``(T,)`` int64, the number of each target's example.
        ranks: ``(S, T)`` float64, from 1; infinite for targets that are no candidates.
        n_candidates: ``(C,)`` int64.
        top_items: ``(S, C, K)`` int64, each example's best candidates, ``PAD`` where there are fewer.
    """

    examples: Tensor
    ranks: Tensor
    n_candidates: Tensor
    top_items: Tensor

    def metrics(self, ks: Sequence[int] = (10,)) -> list[dict[str, float]]:
        """For each scoring, the means of every metric at every K over all examples."""
        return [metrics_from_ranks(ranks, ks, self.examples) for ranks in self.ranks]


class RankCollector:
    """Ranks every batch that it is given, by one scoring or by several that share candidates and targets.

    Args:
        top_k: how many of the best candidates to keep.
    """

    def __init__(self, top_k: int = 0) -> None:
        self._top_k = top_k
        self._batches: list[tuple[Tensor, ...]] = []

    def add(self, batch: ExampleBatch, scorings: Iterable[Tensor | ScoreBlocks]) -> None:
        """Rank a batch's targets.

        Args:
            batch: on the device of the scores.
            scorings: each ``(B, N)`` scores of all items, whole or in blocks; one at a time is held, none is kept.

        Raises:
            ScoreError: for scores that can't be ranked, see :func:`deshi.metrics.rank_rows`.
        """
        has_target = batch.targets != PAD
        examples = batch.numbers[:, None].expand_as(batch.targets)[has_target]
        ranks, lists, n_candidates = [], [], torch.empty(0)
        for scores in scorings:
            ranked = (
                rank_blocks(scores, batch.targets, batch.seen, self._top_k)
                if isinstance(scores, ScoreBlocks)
                else rank_rows(scores, batch.targets, batch.seen, self._top_k)
            )
            scored_ranks, n_candidates, top_items = ranked
            ranks.append(scored_ranks[has_target])
            lists.append(top_items)
        # One tensor of ranks is kept a batch, not one a scoring: each small one that outlives the matrices made around
        # it would keep the allocator from using their memory again.
        tensors = batch.numbers, n_candidates, torch.stack(lists), examples, torch.stack(ranks)
        self._batches.append(tuple(tensor.cpu() for tensor in tensors))

    def collected(self, gather: Callable[[Tensor], Tensor] | None = None) -> CollectedRanks:
        """All ranks so far; the examples are all that were added.

        Args:
            gather: joins a tensor along its first dimension with those of other processes that have ranked examples.
        """
        numbers, n_candidates, lists, examples, ranks = self._joined()
        if gather is not None:
            numbers, n_candidates, examples = (gather(tensor) for tensor in (numbers, n_candidates, examples))
            lists, ranks = (gather(tensor.transpose(0, 1)).transpose(0, 1) for tensor in (lists, ranks))
        by_number = numbers.argsort()
        by_example = examples.argsort(stable=True)  # an example's targets stay in their order
        return CollectedRanks(
            examples[by_example], ranks[:, by_example], n_candidates[by_number], lists[:, by_number]
        )  # fmt: skip

    def _joined(self) -> list[Tensor]:
        """The batches' tensors as one each, as :meth:`add` keeps them; those of no example without any batch."""
        if not self._batches:
            empty = torch.zeros(0, dtype=torch.int64)
            lists, ranks = torch.zeros(1, 0, self._top_k, dtype=torch.int64), torch.zeros(1, 0, dtype=torch.float64)
            return [empty, empty, lists, empty, ranks]
        dims = (0, 0, 1, 0, 1)
        columns = zip(*self._batches, strict=True)
        return [torch.cat(tensors, dim=dim) for tensors, dim in zip(columns, dims, strict=True)]

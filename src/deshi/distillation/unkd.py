"""Unbiased distillation: the teacher's order among items of like popularity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from deshi.distillation.list_losses import check_positive
from deshi.distillation.score_chunk import ScoreChunk
from deshi.distillation.term import Context, ScoreTerm
from deshi.types import PAD


class UnKD(ScoreTerm):
    """Unbiased knowledge distillation (Chen et al., WSDM 2023, https://arxiv.org/abs/2211.14729).

    Items are parted into groups of like popularity and about equal sums of training targets. From the teacher's list,
    pairs are drawn inside a group with probabilities ``~ exp(-rank in the group / decay)``, and the value is the mean
    of ``-log sigmoid(s_better - s_worse)`` over them: what the teacher knows, without its preference for popular items.
    The groups' shares of the pairs are the program's (chengang95/UnKD): in proportion to the largest plus the smallest
    mean popularity of a group minus its own, so that unpopular groups have more.

    Deviations: a store's list stands for the teacher's whole ranking, so that a group with less than two items on it
    has no pairs; pairs are drawn at every position instead of once an epoch, and a pair of one item twice is left out
    instead of drawn again; groups are cut at equal sums at once, not greedily.

    Args:
        top_k: length of the list; None takes what the store has.
        groups: number of groups.
        pairs: number of pairs drawn at a position.
        decay: of the probability by rank, in places.
        weight, final_weight: see :class:`deshi.distillation.term.Term`.
    """

    group: Tensor

    reads_few_scores = True

    def __init__(
        self, top_k: int | None = None, groups: int = 4, pairs: int = 30, decay: float = 20.0, weight: float = 1.0,
        final_weight: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(weight, final_weight)
        check_positive("UnKD", top_k=top_k, groups=groups, pairs=pairs, decay=decay)
        self.top_k, self.groups, self.pairs, self.decay = top_k, groups, pairs, decay
        self.shares: list[int] = []

    def prepare(self, context: Context) -> None:
        """Part the items into groups."""
        super().prepare(context)
        self.register_buffer("group", popularity_groups(context.counts, self.groups), persistent=False)
        self.shares = pairs_of_groups(context.counts, self.group, self.pairs)

    def forward(self, chunk: ScoreChunk) -> Tensor:
        """See :class:`~deshi.distillation.term.ScoreTerm`."""
        labels = chunk.soft_labels.top(self.top_k)
        items, listed = labels.items, labels.listed
        group = self.group[items.clamp(min=0)].masked_fill(~listed, PAD)
        drawn = [self._pairs(chunk, group == number, pairs) for number, pairs in enumerate(self.shares) if pairs]
        better, worse = torch.cat([pair[0] for pair in drawn], 1), torch.cat([pair[1] for pair in drawn], 1)
        scores = chunk.scores_of(items)
        losses = F.softplus(scores.gather(1, worse) - scores.gather(1, better))
        is_pair = better != worse
        return (losses * is_pair).sum(1) / is_pair.sum(1).clamp(min=1)

    def _pairs(self, chunk: ScoreChunk, members: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
        """Indices into the list of the better and of the worse item, ``(C, pairs)`` each; equal where there is no pair.

        Args:
            chunk: source of the random numbers.
            members: ``(C, K)`` bool, the listed items of one group.
            pairs: number of pairs.
        """
        # probability of each member by its rank inside the group, 0 for items of other groups
        probability = (-members.cumsum(1) / self.decay).exp() * members
        too_few = members.sum(1, keepdim=True) < 2  # no pair: both draws become index 0
        drawn = torch.multinomial(
            probability.where(~too_few, 1.0), 2 * pairs, replacement=True, generator=chunk.generator
        )
        drawn = drawn.masked_fill(too_few, 0)
        # lists are best first: the smaller index is the better item
        return torch.minimum(drawn[:, :pairs], drawn[:, pairs:]), torch.maximum(drawn[:, :pairs], drawn[:, pairs:])


def popularity_groups(counts: Tensor, groups: int) -> Tensor:
    """The group ``(N,)`` int64 of each item, 0 the most popular: equal sums of ``counts`` as far as items allow."""
    order = counts.argsort(descending=True, stable=True)
    before = counts[order].double().cumsum(0) - counts[order]  # sum of the counts of all more popular items
    group = torch.empty_like(order)
    group[order] = (before * groups / counts.sum().clamp(min=1)).long().clamp(max=groups - 1)
    return group


def pairs_of_groups(counts: Tensor, group: Tensor, pairs: int) -> list[int]:
    """The number of pairs of each group, about ``pairs`` together: 0 where it is empty, else 1 at least."""
    sizes = group.bincount()
    means = group.bincount(counts.double()) / sizes.clamp(min=1)
    present = means[sizes > 0]
    shares = (present.max() + present.min() - means) * (sizes > 0)
    numbers = (pairs * shares / shares.sum().clamp(min=1e-12)).round().long().clamp(min=1) * (sizes > 0)
    return [int(count) for count in numbers]

"""The search for an ensemble's weights on validation, among the members' best candidates."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from math import comb

import torch
from torch import Tensor

from deshi.data.example_batches import ExampleBatch
from deshi.metrics import candidate_scores, metrics_from_ranks
from deshi.types import PAD

MOST_WEIGHTS = 200
"""Weight vectors of the first round at most."""
EVIDENCE_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)
"""Weights of a member whose scores are evidence; the first round tries every third."""
_BEST = 100
"""Best candidates of each member that the ranks of the search are counted among."""
_ROUNDS = 20
_KEPT = 5
"""Best weight vectors that the search goes on from."""
_ROWS = 1024


class Pool:
    """The members' scores of each validation example's best candidates, and of its targets.

    Ranks among them are exact but for an item that no member has among its best 100 and the sum among its best 10.
    Any number of weights is tried in a moment, since the members' full scores are needed once.
    """

    def __init__(self) -> None:
        self._scores: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._examples: list[Tensor] = []

    def add(self, batch: ExampleBatch, parts: Sequence[Tensor]) -> None:
        """Keep what is needed of the members' normalised scores, each ``(B, N)``."""
        best = min(_BEST, parts[0].shape[1])
        masked = [candidate_scores(part, batch.seen) for part in parts]
        lists = [torch.where(scores.isnan(), -torch.inf, scores).topk(best).indices for scores in masked]
        items = torch.cat([batch.targets.clamp(min=0), *lists], dim=1)
        pool = torch.stack([scores.gather(1, items) for scores in masked], dim=2)
        # an item that stands in several lists counts once: later ones get no score, which wins and ties no comparison
        ordered, order = items.sort(dim=1, stable=True)
        repeated = torch.zeros_like(items, dtype=torch.bool)
        repeated.scatter_(1, order[:, 1:], ordered[:, 1:] == ordered[:, :-1])
        pool[repeated] = torch.nan
        targets = batch.targets.shape[1]
        for column in range(targets):  # a target's own scores stand in its column, unless it is seen
            rows = batch.targets[:, column] != PAD
            scores = torch.stack([scores.gather(1, items[:, column, None])[:, 0] for scores in masked], dim=1)
            self._targets.append(scores[rows])
            self._scores.append(pool[rows])
            self._examples.append(batch.numbers[rows])

    def ndcg(self, vectors: Sequence[Sequence[float]]) -> list[float]:
        """NDCG@10 of each weight vector ``(M,)``."""
        weights = torch.tensor(vectors).T  # (M, V)
        ranks = []
        for scores, targets in zip(self._scores, self._targets, strict=True):
            for rows in torch.arange(len(scores)).split(_ROWS):
                sums, own = scores[rows] @ weights, (targets[rows] @ weights)[:, None]
                higher, not_lower = (sums > own).sum(1), (sums >= own).sum(1)
                tied = (higher + not_lower.clamp(min=1) + 1).double() / 2
                ranks.append(tied.masked_fill(own[:, 0].isnan(), torch.inf))
        everything, examples = torch.cat(ranks), torch.cat(self._examples)
        return [metrics_from_ranks(column, (10,), examples)["ndcg@10"] for column in everything.T]


def search_weights(pool: Pool, is_evidence: Sequence[bool], steps: int) -> list[tuple[list[float], float]]:
    """Weights by NDCG@10 on validation: a grid over all members, then moves of one or two weights.

    A round moves from the best few vectors, not from the best alone: a member that helps at other weights of evidence
    only would be missed otherwise. The search ends where no move brings a new vector among the best few.

    Args:
        pool: of the members' scores.
        is_evidence: whether a member's scores are evidence with a free weight up to 10; the others' weights sum to 1.
        steps: parts that the whole weight of the others is divided into.

    Returns:
        Every weight vector that was tried with its NDCG@10, the best one first, else in the order of the trials.
    """
    tried: dict[tuple[float, ...], float] = {}

    def try_all(vectors: Iterable[list[float]]) -> None:
        fresh = [vector for vector in dict.fromkeys(map(tuple, vectors)) if vector not in tried]
        if fresh:
            tried.update(zip(fresh, pool.ndcg(fresh), strict=True))

    try_all(_grid(is_evidence, steps))
    moved_from: set[tuple[float, ...]] = set()
    for _ in range(_ROUNDS):
        best = heapq.nlargest(_KEPT, tried, key=tried.__getitem__)
        starts = [vector for vector in best if vector not in moved_from]
        if not starts:
            break
        moved_from.update(starts)
        try_all(moved for start in starts for moved in _moves(start, is_evidence, steps))
    first = max(tried, key=tried.__getitem__)
    others = ((list(vector), value) for vector, value in tried.items() if vector != first)
    return [(list(first), tried[first]), *others]


def _grid(is_evidence: Sequence[bool], steps: int) -> Iterator[list[float]]:
    """All weights of the members that sum to 1 with all coarse weights of evidence, as many as are allowed."""
    coarse: tuple[float, ...] = EVIDENCE_WEIGHTS[::3]
    free = sum(is_evidence)
    while free and len(coarse) ** free > MOST_WEIGHTS // (len(is_evidence) - free) and len(coarse) > 2:
        coarse = coarse[::2]
    combinations = list(itertools.product(coarse, repeat=free))
    for shares in weight_vectors(len(is_evidence) - free, steps, MOST_WEIGHTS // len(combinations)):
        for evidence in combinations:
            yield _placed(shares, evidence, is_evidence)


def _placed(shares: Sequence[float], evidence: Sequence[float], is_evidence: Sequence[bool]) -> list[float]:
    first, second = iter(evidence), iter(shares)
    return [next(first) if free else next(second) for free in is_evidence]


def _moves(weights: Sequence[float], is_evidence: Sequence[bool], steps: int) -> Iterator[list[float]]:
    """The weights with one step moved from a member to another, or with another weight of one member of evidence."""
    shared = [member for member, free in enumerate(is_evidence) if not free]
    for giver, taker in itertools.permutations(shared, 2):
        if round(weights[giver] * steps) >= 1:
            moved = list(weights)
            moved[giver] = round(weights[giver] * steps - 1) / steps
            moved[taker] = round(weights[taker] * steps + 1) / steps
            yield moved
    for member in (member for member, free in enumerate(is_evidence) if free):
        for weight in EVIDENCE_WEIGHTS:
            yield [*weights[:member], weight, *weights[member + 1 :]]


def weight_vectors(members: int, steps: int, most: int = MOST_WEIGHTS) -> Iterator[list[float]]:
    """All weights from 0 to 1 in equal steps that sum to 1; as many steps as ``most`` vectors allow."""
    fewer = [number for number in range(1, steps + 1) if steps % number == 0]
    count = max((number for number in fewer if comb(number + members - 1, members - 1) <= most), default=1)
    for bars in itertools.combinations(range(count + members - 1), members - 1):
        edges = (-1, *bars, count + members - 1)
        yield [(right - left - 1) / count for left, right in itertools.pairwise(edges)]

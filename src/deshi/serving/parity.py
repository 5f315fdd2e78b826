"""Comparison of a graph with its PyTorch model: all test ranks, all top-10 lists, the scores themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.arrays import Ints
from deshi.data.bundle import Bundle
from deshi.data.example_batches import ExampleBatches
from deshi.data.splits import Examples
from deshi.metrics import candidate_scores, metrics_from_ranks, rank_rows
from deshi.models.base import keep_latest
from deshi.models.scorers import ListScorer, Scorer
from deshi.serving._block_scoring import scores_of_all
from deshi.serving.bundle import ServingBundle
from deshi.serving.engine import Engine
from deshi.serving.onnx_network import OnnxNetwork
from deshi.serving.pair_table import PairTable
from deshi.types import PAD, Batch, DeshiError

MOST_SCORES = 1 << 26
"""Scores of a batch that each side computes at most: a quarter of a GiB, and several copies of it."""

LIST = 10
"""Length of the lists that are compared."""


class OnnxScorer(Scorer):
    """A bundle's graph and item table as a :class:`~deshi.models.scorers.Scorer`, computing as the engine does.

    Args:
        network: the graph.
        table: ``(n_items, dim)``.
        max_length: number of latest items that the network reads.
        pairs: transition counts that are added; None without.
    """

    def __init__(
        self, network: OnnxNetwork, table: NDArray[np.floating], max_length: int, pairs: PairTable | None = None
    ) -> None:
        self.n_items, self._max_length = len(table), max_length
        self._network, self._table, self._pairs = network, table, pairs

    @classmethod
    def of_bundle(cls, bundle: ServingBundle) -> OnnxScorer:
        """The scores that a bundle's engine answers by."""
        table = bundle.item_table
        return cls(OnnxNetwork(bundle.graph(), table=table), table, bundle.max_length, bundle.pair_table)

    def hidden(self, batch: Batch) -> NDArray[np.float32]:
        """``(B, dim)`` the states after the histories."""
        items, lengths = keep_latest(batch.items, batch.lengths, self._max_length)
        return self._network.hidden(items.numpy(), lengths.numpy())

    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32."""
        scores = scores_of_all(self.hidden(batch), self._table)
        if self._pairs is not None:
            for row, history in zip(scores, whole_histories(batch), strict=True):
                self._pairs.add_to(row, history)
        return torch.from_numpy(scores)


class EngineLists(ListScorer):
    """The lists of a bundle's engine, by its index if it has one.

    Args:
        engine: opened.
    """

    def __init__(self, engine: Engine) -> None:
        self.n_items, self._engine = engine.n_items, engine

    def lists(self, batch: Batch, k: int, filter_seen: bool) -> tuple[Tensor, Tensor]:
        """See :meth:`deshi.models.scorers.ListScorer.lists`."""
        answered, values = self._engine.top(whole_histories(batch), k, filter_seen=filter_seen)
        items, scores = np.full((len(answered), k), PAD, dtype=np.int64), np.full((len(answered), k), -np.inf)
        width = answered.shape[1]  # the whole catalogue, where it has fewer than k items
        items[:, :width], scores[:, :width] = answered, np.nan_to_num(values, nan=-np.inf)
        return torch.from_numpy(items), torch.from_numpy(scores.astype(np.float32))


def whole_histories(batch: Batch) -> list[Ints]:
    """The histories of a batch without padding."""
    return [row[:length] for row, length in zip(batch.items.numpy(), batch.lengths.tolist(), strict=True)]


@dataclass(frozen=True)
class Parity:
    """Differences between two scorers; targets are counted, where an example may have several.

    Attributes:
        examples: compared, each on the whole catalogue.
        targets: ranks compared.
        ranks_equal: of them, those that are the same.
        ranks_beyond_ties: those that differ by more than items whose scores lie within ``tolerance`` of the target's.
        largest_rank_difference: of one target.
        mean_rank_difference: mean absolute difference over the targets.
        lists_equal: top-10 lists that hold the same items in the same order.
        lists_beyond_ties: those that differ by more than an exchange of items within ``tolerance``.
        largest_score_difference: of one item for one user.
        tolerance: below which scores count as the same.
        ndcg10_model: of the PyTorch model.
        ndcg10_graph: of the graph.
    """

    examples: int
    targets: int
    ranks_equal: int
    ranks_beyond_ties: int
    largest_rank_difference: float
    mean_rank_difference: float
    lists_equal: int
    lists_beyond_ties: int
    largest_score_difference: float
    tolerance: float
    ndcg10_model: float
    ndcg10_graph: float

    @property
    def holds(self) -> bool:
        """Whether the two give the same answers up to ties."""
        return not (self.ranks_beyond_ties or self.lists_beyond_ties) and (
            self.largest_score_difference <= self.tolerance
        )

    def plain(self) -> dict[str, Any]:
        """As JSON-able numbers."""
        return asdict(self) | {"holds": self.holds}

    def refuse(self, name: str) -> None:
        """Stop unless the answers are the same.

        Raises:
            DeshiError: with what differs.
        """
        if not self.holds:
            raise DeshiError(
                f"{name} does not answer as the PyTorch model does: {self.ranks_beyond_ties} of {self.targets} ranks "
                f"and {self.lists_beyond_ties} of {self.examples} top-{LIST} lists differ by more than ties, the "
                f"largest score difference is {self.largest_score_difference:.3g}, expected at most parity.tolerance="
                f"{self.tolerance:g}. Raise the tolerance only where scores are large and hardly any rank differs."
            )


def compare_scorers(
    model: Scorer,
    graph: Scorer,
    bundle: Bundle,
    examples: Examples,
    filter_seen: bool,
    tolerance: float,
    batch_size: int = 16,
) -> Parity:
    """Score all examples with both and compare.

    Args:
        model: the reference.
        graph: the scorer that is compared with it.
        bundle: the data.
        examples: of the bundle.
        filter_seen: whether items of the history are no candidates.
        tolerance: below which a difference between scores counts as none.
        batch_size: examples scored at a time.

    Raises:
        DeshiError: for scores that can't be ranked.
    """
    blocks = []
    batch_size = max(1, min(batch_size, MOST_SCORES // bundle.n_items))
    for numbers, batch, targets, seen in ExampleBatches(
        bundle, examples, bundle.n_interactions, batch_size, filter_seen
    ):
        blocks.append((numbers, _compare(model.scores(batch).cpu(), graph.scores(batch), targets, seen, tolerance)))
    # Each real target belongs to the example of its row.
    owners = torch.cat([numbers[:, None].expand_as(block["real"])[block["real"]] for numbers, block in blocks])
    joined = {
        name: torch.cat([block[name].reshape(-1) for _, block in blocks]) for name in blocks[0][1] if name != "real"
    }
    return _summary(joined, owners, len(examples), tolerance)


def _compare(model: Tensor, graph: Tensor, targets: Tensor, seen: Tensor, tolerance: float) -> dict[str, Tensor]:
    """One batch: for each real target its ranks and whether they agree, for each example its list and the scores."""
    ranks, _, best = rank_rows(model, targets, seen, LIST)
    graph_ranks, _, graph_best = rank_rows(graph, targets, seen, LIST)
    masked, real = candidate_scores(model, seen, fill=-torch.inf), targets != PAD
    lowest, highest = _rank_bounds(masked, targets, tolerance)
    # A target that was seen is no candidate: its rank is infinite by both.
    within = (ranks == graph_ranks) | (graph_ranks >= lowest) & (graph_ranks <= highest)
    return {
        "real": real,
        "ranks": ranks[real],
        "graph_ranks": graph_ranks[real],
        "within": within[real],
        "lists": (best == graph_best).all(1),
        "lists_within": _lists_agree(masked, best, graph_best, tolerance),
        "scores": (model - graph).abs().amax(1),
    }


def _rank_bounds(masked: Tensor, targets: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """The ranks ``(B, T)`` that targets could have if scores moved by less than ``tolerance`` against each other."""
    target_scores = masked.gather(1, targets.clamp(min=0))
    columns = range(targets.shape[1])
    # At best all items within the tolerance stand below the target, at worst above it; `>=` counts the target itself.
    lowest = torch.stack([1 + (masked > target_scores[:, [t]] + tolerance).sum(1) for t in columns], dim=1)
    highest = torch.stack([(masked >= target_scores[:, [t]] - tolerance).sum(1) for t in columns], dim=1)
    return lowest, highest


def _lists_agree(masked: Tensor, first: Tensor, second: Tensor, tolerance: float) -> Tensor:
    """``(B,)`` whether at each rank both lists have an item of the same score, or neither has one."""
    scores, second_scores = (masked.gather(1, items.clamp(min=0)) for items in (first, second))
    both = (first != PAD) & (second != PAD)
    same = torch.where(both, (scores - second_scores).abs() <= tolerance, (first == PAD) & (second == PAD))
    return same.all(1)


def _summary(values: Mapping[str, Tensor], owners: Tensor, n_examples: int, tolerance: float) -> Parity:
    ranks, graph_ranks = values["ranks"], values["graph_ranks"]
    gap = torch.where(ranks == graph_ranks, 0.0, (ranks - graph_ranks).abs())  # infinite ranks are equal
    figures = [
        metrics_from_ranks(values[name].numpy(), [LIST], owners.numpy(), n_examples)[f"ndcg@{LIST}"]
        for name in ("ranks", "graph_ranks")
    ]
    return Parity(
        examples=n_examples,
        targets=len(gap),
        ranks_equal=int((gap == 0).sum()),
        ranks_beyond_ties=int((~values["within"]).sum()),
        largest_rank_difference=float(gap.max()),
        mean_rank_difference=float(gap.mean()),
        lists_equal=int(values["lists"].sum()),
        lists_beyond_ties=int((~values["lists_within"]).sum()),
        largest_score_difference=float(values["scores"].max()),
        tolerance=tolerance,
        ndcg10_model=float(figures[0]),
        ndcg10_graph=float(figures[1]),
    )

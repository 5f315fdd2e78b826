"""Whether a graph answers as the PyTorch model does: all test ranks, all top-10 lists, the scores themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.data.bundle import Bundle
from deshi.data.example_batches import ExampleBatches
from deshi.data.splits import Examples
from deshi.metrics.ranking import metrics_from_ranks
from deshi.metrics.ranks import candidate_scores, rank_rows
from deshi.models.base import keep_latest
from deshi.models.scorers import Scorer
from deshi.serving.onnx_network import OnnxNetwork
from deshi.types import PAD, Batch, DeshiError

LIST = 10
"""Length of the lists that are compared."""


class OnnxScorer(Scorer):
    """A bundle's graph and item table as a :class:`~deshi.models.scorers.Scorer`, computing as the engine does.

    Args:
        network: the graph.
        table: ``(n_items, dim)``.
        max_length: number of latest items that the network reads.
    """

    def __init__(self, network: OnnxNetwork, table: NDArray[np.float32], max_length: int) -> None:
        self.n_items, self._max_length = len(table), max_length
        self._network, self._table = network, table

    def hidden(self, batch: Batch) -> NDArray[np.float32]:
        """``(B, dim)`` the states after the histories."""
        items, lengths = keep_latest(batch.items, batch.lengths, self._max_length)
        return self._network.hidden(items.numpy(), lengths.numpy())

    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32."""
        return torch.from_numpy(self.hidden(batch) @ self._table.T)


@dataclass(frozen=True)
class Parity:
    """What a comparison of two scorers found; targets are counted, where an example may have several.

    Attributes:
        examples: users asked, each on the whole catalogue.
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

    def refuse(self, what: str) -> None:
        """Stop unless the answers are the same.

        Raises:
            DeshiError: with what differs.
        """
        if not self.holds:
            raise DeshiError(
                f"{what} does not answer as the PyTorch model does: {self.ranks_beyond_ties} of {self.targets} ranks "
                f"and {self.lists_beyond_ties} of {self.examples} top-{LIST} lists differ by more than ties, the "
                "largest "
                f"score difference is {self.largest_score_difference:.3g}, expected at most parity.tolerance="
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
    """Ask both scorers all examples and compare.

    Args:
        model: the reference.
        graph: what is held against it.
        bundle: the data.
        examples: the questions.
        filter_seen: whether items of the history are no candidates.
        tolerance: below which a difference between scores counts as none.
        batch_size: examples asked at a time.

    Raises:
        DeshiError: for scores that can't be ranked.
    """
    blocks = []
    for numbers, batch, targets, seen in ExampleBatches(
        bundle, examples, bundle.n_interactions, batch_size, filter_seen
    ):
        blocks.append((numbers, _compare(model.scores(batch).cpu(), graph.scores(batch), targets, seen, tolerance)))
    owners = torch.cat([numbers[:, None].expand_as(found["real"])[found["real"]] for numbers, found in blocks])
    joined = {
        name: torch.cat([found[name].reshape(-1) for _, found in blocks]) for name in blocks[0][1] if name != "real"
    }
    return _summary(joined, owners, len(examples), tolerance)


def _compare(own: Tensor, other: Tensor, targets: Tensor, seen: Tensor, tolerance: float) -> dict[str, Tensor]:
    """One batch: for each real target its ranks and whether they agree, for each example its list and the scores."""
    ranks, _, best = rank_rows(own, targets, seen, LIST)
    other_ranks, _, other_best = rank_rows(other, targets, seen, LIST)
    masked, real = candidate_scores(own, targets, seen, fill=-torch.inf), targets != PAD
    lowest, highest = _rank_bounds(masked, targets, tolerance)
    among = (other_ranks >= lowest) & (other_ranks <= highest)
    return {
        "real": real,
        "ranks": ranks[real],
        "other_ranks": other_ranks[real],
        "among": among[real],
        "lists": (best == other_best).all(1),
        "lists_among": _lists_agree(masked, best, other_best, tolerance),
        "scores": (own - other).abs().amax(1),
    }


def _rank_bounds(masked: Tensor, targets: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """The ranks ``(B, T)`` that targets could have if scores moved by less than ``tolerance`` against each other."""
    own = masked.gather(1, targets.clamp(min=0))
    columns = range(targets.shape[1])
    lowest = torch.stack([1 + (masked > own[:, [t]] + tolerance).sum(1) for t in columns], dim=1)
    highest = torch.stack([(masked >= own[:, [t]] - tolerance).sum(1) for t in columns], dim=1)
    return lowest, highest


def _lists_agree(masked: Tensor, best: Tensor, other: Tensor, tolerance: float) -> Tensor:
    """``(B,)`` whether at each place both lists have an item of the same score, or neither has one."""
    scores, other_scores = (masked.gather(1, found.clamp(min=0)) for found in (best, other))
    both = (best != PAD) & (other != PAD)
    same = torch.where(both, (scores - other_scores).abs() <= tolerance, (best == PAD) & (other == PAD))
    return same.all(1)


def _summary(found: Mapping[str, Tensor], owners: Tensor, n_examples: int, tolerance: float) -> Parity:
    gap = (found["ranks"] - found["other_ranks"]).abs()
    figures = [
        metrics_from_ranks(found[name].numpy(), [LIST], owners.numpy(), n_examples)[f"ndcg@{LIST}"]
        for name in ("ranks", "other_ranks")
    ]
    return Parity(
        examples=n_examples,
        targets=len(gap),
        ranks_equal=int((gap == 0).sum()),
        ranks_beyond_ties=int((~found["among"]).sum()),
        largest_rank_difference=float(gap.max()),
        mean_rank_difference=float(gap.mean()),
        lists_equal=int(found["lists"].sum()),
        lists_beyond_ties=int((~found["lists_among"]).sum()),
        largest_score_difference=float(found["scores"].max()),
        tolerance=tolerance,
        ndcg10_model=float(figures[0]),
        ndcg10_graph=float(figures[1]),
    )

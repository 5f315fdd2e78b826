"""Result of ``export``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deshi.rendering import Block, Result, Table, paragraphs
from deshi.serving.approximate_search import Recall
from deshi.serving.bundle import ServingBundle
from deshi.serving.latency import Latency
from deshi.serving.parity import LIST, Parity


@dataclass(frozen=True)
class ExportResult(Result):
    """A written serving bundle.

    Attributes:
        folder: where it is.
        bundle: read back.
        parity: of each graph against the PyTorch model.
        recall: of the index for approximate search; None if there is none.
        latency: of single requests.
        seconds: that the export took.
        seen: sentences about targets that their user had consumed before.
        counts: sentences about the counts beside the student, if they were asked for.
        student_latency: the same times without the bundle's counts; None if it has none.
    """

    folder: Path
    bundle: ServingBundle = field(repr=False)
    parity: Mapping[str, Parity]
    recall: Recall | None
    latency: Latency
    seconds: float
    seen: Sequence[str] = ()
    counts: Sequence[str] = ()
    student_latency: Latency | None = None

    def blocks(self) -> list[Block]:
        """The files, and how near the graphs are to the model."""
        rows = [[name, f"{entry['bytes'] / 1024:,.1f}"] for name, entry in self.bundle.manifest["files"].items()]
        lines = [sentence for name, parity in self.parity.items() for sentence in sentences(name, parity)]
        if self.recall is not None:
            lines.append(self.recall.sentence())
        lines += [*self.counts, self.latency.sentence()]
        if self.student_latency is not None:
            lines.append(f"Without counts: {self.student_latency.sentence()}")
        return [
            Table(f"{self.bundle.name}, version {self.bundle.version}", ["File", "KiB"], rows),
            *paragraphs(*self.seen, tone="warning" if self.bundle.filter_seen else "plain"),
            *paragraphs(*lines, f"Written to {self.folder} in {self.seconds:.1f} s"),
        ]


def sentences(name: str, parity: Parity) -> list[str]:
    """What a comparison found, in two sentences."""
    differing = parity.targets - parity.ranks_equal
    return [
        f"{name}: {parity.ranks_equal:,} of {parity.targets:,} test ranks are those of the PyTorch model"
        + (f", {differing:,} differ, by at most {parity.largest_rank_difference:g}" if differing else "")
        + f"; {parity.lists_equal:,} of {parity.examples:,} top-{LIST} lists are the same.",
        f"{name}: the largest score difference is {parity.largest_score_difference:.2g}, NDCG@{LIST} "
        f"{parity.ndcg10_model:.4f} -> {parity.ndcg10_graph:.4f}.",
    ]

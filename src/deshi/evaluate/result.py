"""What the stage ``evaluate`` hands back, and how it looks in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import polars as pl
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

Metrics = Mapping[str, float]

COLUMNS = ("ndcg", "recall", "hr", "mrr", "map", "coverage")
TITLES = {"ndcg": "NDCG", "recall": "Recall", "hr": "HR", "mrr": "MRR", "map": "MAP", "coverage": "Coverage"}


@dataclass(frozen=True)
class EvaluateResult:
    """A finished evaluation.

    Attributes:
        folder: the run folder that it wrote.
        ranker: the name of what was evaluated: a student or a reference ranker.
        metrics: of it, such as ``test/ndcg@10``; means over all cases, ``test/n_cases`` of them.
        references: the same for every reference ranker that was evaluated beside it.
        ranks: a row a target: ``part``, ``case``, ``user``, ``user_id``, ``target``, ``item_id``, ``rank``,
            ``n_candidates``.
        ks: the list lengths.
        warnings: sentences about what makes the figures doubtful.
        notes: sentences about what was left out.
    """

    folder: Path
    ranker: str
    metrics: Metrics
    references: Mapping[str, Metrics]
    ranks: pl.DataFrame = field(repr=False)
    ks: Sequence[int]
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()

    def tables(self) -> Group:
        """The figures for a rich console."""
        shown: list[RenderableType] = []
        for part in parts_of(self.metrics):
            shown.append(self._by_k(part))
            if self.references:
                shown.append(self._by_ranker(part))
        shown += [Text(f"WARNING: {sentence}", style="bold red") for sentence in self.warnings]
        shown += [Text(sentence) for sentence in self.notes]
        shown.append(Text(f"Written to {self.folder}"))
        return Group(*shown)

    def _by_k(self, part: str) -> Table:
        cases = int(self.metrics[f"{part}/n_cases"])
        table = _table(f"{self.ranker}, {part}, {cases:,} cases, exact full ranking", "K")
        for k in self.ks:
            table.add_row(str(k), *_figures(self.metrics, part, k))
        return table

    def _by_ranker(self, part: str) -> Table:
        k = headline_k(self.ks)
        table = _table(f"Beside the reference rankers, {part}, at {k}", "Ranker")
        table.add_row(self.ranker, *_figures(self.metrics, part, k), style="bold")
        for name, metrics in self.references.items():
            table.add_row(name, *_figures(metrics, part, k))
        return table

    def __str__(self) -> str:
        """The tables as plain text."""
        console = Console(file=StringIO(), width=110, color_system=None)
        with console.capture() as capture:
            console.print(self.tables())
        return capture.get().rstrip()

    def _repr_html_(self) -> str:
        console = Console(record=True, width=110, file=StringIO())
        console.print(self.tables())
        return console.export_html(inline_styles=True, code_format='<pre style="line-height:1.2">{code}</pre>')


def parts_of(metrics: Metrics) -> list[str]:
    """The parts of a split that ``metrics`` are about, such as ``test``, in their order."""
    return list(dict.fromkeys(name.split("/")[0] for name in metrics))


def headline_k(ks: Sequence[int]) -> int:
    """The K that rankers are compared at: 10, or the largest if 10 isn't measured."""
    return 10 if 10 in ks else max(ks)


def unbeaten(ranker: str, metrics: Metrics, references: Mapping[str, Metrics], ks: Sequence[int]) -> list[str]:
    """A sentence for every reference ranker and part whose NDCG the ranker does not beat."""
    k = headline_k(ks)
    return [
        f"{ranker} does not beat {name} on NDCG@{k} ({part}: {metrics[key]:.4f} against {other[key]:.4f})."
        for part in parts_of(metrics)
        for name, other in references.items()
        for key in [f"{part}/ndcg@{k}"]
        if not metrics[key] > other[key]
    ]


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for name in COLUMNS:
        table.add_column(TITLES[name], justify="right")
    return table


def _figures(metrics: Metrics, part: str, k: int) -> list[str]:
    return [f"{metrics[f'{part}/{name}@{k}']:.4f}" for name in COLUMNS]

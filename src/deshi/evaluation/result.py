"""What the stage ``evaluate`` hands back, and how it looks in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deshi.data.rendering import Rendered

Metrics = Mapping[str, float]

COLUMNS = {"ndcg": "NDCG", "recall": "Recall", "hr": "HR", "mrr": "MRR", "map": "MAP"}
BEYOND = {
    "coverage@{k}": "Coverage",
    "gini@{k}": "Gini",
    "novelty@{k}": "Novelty",
    "popularity_lift@{k}": "Pop. lift",
    "ild@{k}": "ILD",
    "hit_ratio@1": "HitRatio@1",
    "valid_ratio": "Valid ratio",
    "hit_ratio_of_all@1": "Product",
    "ece": "ECE",
    "log_loss": "Log loss",
}

WORDS = "written_"
"""How the names of the figures begin that are about answers in words."""


@dataclass(frozen=True)
class EvaluateResult(Rendered):
    """A finished evaluation.

    Attributes:
        folder: the run folder that it wrote.
        ranker: the name of what was evaluated: a student or a baseline.
        metrics: of it, such as ``test/ndcg@10``; means over all examples, ``test/n_examples`` of them.
        baselines: the same for every baseline that was evaluated beside it.
        ranks: a row a target: ``part``, ``example``, ``user``, ``user_id``, ``target``, ``item_id``, ``rank``,
            ``n_candidates``.
        ks: the list lengths.
        slices: ``ranker``, ``part``, ``slice``, ``value``, ``n_examples`` and the metrics, for every ranker.
        warnings: sentences about what makes the figures doubtful.
        notes: sentences about what was left out.
        protocol: among what it was ranked, in words.
    """

    folder: Path
    ranker: str
    metrics: Metrics
    baselines: Mapping[str, Metrics]
    ranks: pl.DataFrame = field(repr=False)
    ks: Sequence[int]
    slices: pl.DataFrame = field(repr=False)
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    protocol: str = "exact full ranking"

    def tables(self) -> Group:
        """The figures for a rich console."""
        shown: list[RenderableType] = []
        for part in parts_of(self.metrics):
            shown.append(self._by_k(part))
            if self.baselines:
                shown.append(self._by_ranker(part))
            shown += [*self._beyond(part), *self._in_words(part), self._by_slice(part)]
        shown += [Text(f"WARNING: {sentence}", style="bold red") for sentence in self.warnings]
        shown += [Text(sentence) for sentence in self.notes]
        shown.append(Text(f"Written to {self.folder}"))
        return Group(*shown)

    def _by_k(self, part: str) -> Table:
        examples = int(self.metrics[f"{part}/n_examples"])
        table = _table(f"{self.ranker}, {part}, {examples:,} examples, {self.protocol}", "K", COLUMNS.values())
        for k in self.ks:
            table.add_row(str(k), *_figures(self.metrics, [f"{part}/{name}@{k}" for name in COLUMNS]))
        return table

    def _by_ranker(self, part: str) -> Table:
        k = headline_k(self.ks)
        table = _table(f"Beside the baselines, {part}, at {k}", "Ranker", COLUMNS.values())
        self._add_rankers(table, [f"{part}/{name}@{k}" for name in COLUMNS])
        return table

    def _beyond(self, part: str) -> list[Table]:
        k = headline_k(self.ks)
        names = {f"{part}/{name.format(k=k)}": title for name, title in BEYOND.items()}
        rankers = [self.metrics, *self.baselines.values()]
        known = [name for name in names if any(name in metrics for metrics in rankers)]
        if not known:
            return []
        full = f"{part}/coverage@{k}" in known
        title = f"Beyond accuracy, {part}, at {k}" if full else f"Answers and calibration, {part}"
        table = _table(title, "Ranker", [names[name] for name in known])
        self._add_rankers(table, known)
        return [table]

    def _in_words(self, part: str) -> list[Table]:
        examples = self.metrics.get(f"{part}/{WORDS}n_examples")
        if examples is None:
            return []
        names = ("hit_ratio@1", "valid_ratio", "hit_ratio_of_all@1")
        title = f"Answers in words, {part}, {int(examples):,} examples"
        table = _table(title, self.ranker, [BEYOND[name] for name in names])
        table.add_row("written", *_figures(self.metrics, [f"{part}/{WORDS}{name}" for name in names]), style="bold")
        ranked = self.metrics[f"{part}/{WORDS}ranked_first"]
        table.add_row("ranked first", *(f"{value:.4f}" for value in (ranked, 1.0, ranked)))
        return [table]

    def _by_slice(self, part: str) -> Table:
        metric = f"ndcg@{headline_k(self.ks)}"
        rankers = [self.ranker, *self.baselines]
        table = _table(f"{metric.upper()} by slice, {part}", "Slice", ["Examples", *rankers])
        own = self.slices.filter(pl.col("part") == part)
        wide = own.pivot("ranker", index=["slice", "value", "n_examples"], values=metric, maintain_order=True)
        for row in wide.iter_rows(named=True):
            cells = [f"{row[name]:.4f}" for name in rankers]
            table.add_row(f"{row['slice']}: {row['value']}", f"{row['n_examples']:,}", *cells)
        return table

    def _add_rankers(self, table: Table, names: Sequence[str]) -> None:
        table.add_row(self.ranker, *_figures(self.metrics, names), style="bold")
        for ranker, metrics in self.baselines.items():
            if any(name in metrics for name in names):
                table.add_row(ranker, *_figures(metrics, names))


def parts_of(metrics: Metrics) -> list[str]:
    """The parts of a split that ``metrics`` are about, such as ``test``, in their order."""
    return list(dict.fromkeys(name.split("/")[0] for name in metrics))


def headline_k(ks: Sequence[int]) -> int:
    """The K that rankers are compared at: 10, or the largest if 10 isn't measured."""
    return 10 if 10 in ks else max(ks)


def unbeaten(ranker: str, metrics: Metrics, baselines: Mapping[str, Metrics], ks: Sequence[int]) -> list[str]:
    """A sentence for every baseline and part whose NDCG the ranker does not beat."""
    k = headline_k(ks)
    return [
        f"{ranker} does not beat {name} on NDCG@{k} ({part}: {metrics[key]:.4f} against {other[key]:.4f})."
        for part in parts_of(metrics)
        for name, other in baselines.items()
        for key in [f"{part}/ndcg@{k}"]
        if not metrics[key] > other[key]
    ]


def _table(title: str, first: str, others: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", min_width=len(title))
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _figures(metrics: Metrics, names: Sequence[str]) -> list[str]:
    return [f"{metrics[name]:.4f}" if name in metrics else "-" for name in names]

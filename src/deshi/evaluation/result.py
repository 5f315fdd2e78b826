"""The result of an evaluation, as tables for a terminal and a notebook."""

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

GENERATED = "generated_"
"""Prefix of the metrics of generated answers."""


@dataclass(frozen=True)
class EvaluateResult(Rendered):
    """A finished evaluation.

    Attributes:
        folder: the run folder that it wrote.
        model: its name: of a network, an ensemble, files of lists or a baseline.
        metrics: of the model, such as ``test/ndcg@10``; means over all examples, ``test/n_examples`` of them.
        baselines: the same for every baseline that was evaluated beside it.
        ranks: a row a target: ``part``, ``example``, ``user``, ``user_id``, ``target``, ``item_id``, ``rank``,
            ``n_candidates``.
        ks: the list lengths.
        slices: ``model``, ``part``, ``slice``, ``value``, ``n_examples`` and the metrics, for every model.
        warnings: sentences about what makes the figures doubtful.
        notes: sentences about what was left out.
        protocol: the candidates, in words.
    """

    folder: Path
    model: str
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
                shown.append(self._by_model(part))
            shown += [*self._beyond(part), *self._generated(part), self._by_slice(part)]
        shown += [Text(f"WARNING: {sentence}", style="bold red") for sentence in self.warnings]
        shown += [Text(sentence) for sentence in self.notes]
        shown.append(Text(f"Written to {self.folder}"))
        return Group(*shown)

    def _by_k(self, part: str) -> Table:
        examples = int(self.metrics[f"{part}/n_examples"])
        table = _table(f"{self.model}, {part}, {examples:,} examples, {self.protocol}", "K", COLUMNS.values())
        for k in self.ks:
            table.add_row(str(k), *_figures(self.metrics, [f"{part}/{name}@{k}" for name in COLUMNS]))
        return table

    def _by_model(self, part: str) -> Table:
        k = headline_k(self.ks)
        table = _table(f"Model and baselines, {part}, at {k}", "Model", COLUMNS.values())
        self._add_models(table, [f"{part}/{name}@{k}" for name in COLUMNS])
        return table

    def _beyond(self, part: str) -> list[Table]:
        k = headline_k(self.ks)
        names = {f"{part}/{name.format(k=k)}": title for name, title in BEYOND.items()}
        measured = [
            name for name in names if any(name in metrics for metrics in (self.metrics, *self.baselines.values()))
        ]
        if not measured:
            return []
        full = f"{part}/coverage@{k}" in measured
        title = f"Beyond accuracy, {part}, at {k}" if full else f"Answers and calibration, {part}"
        table = _table(title, "Model", [names[name] for name in measured])
        self._add_models(table, measured)
        return [table]

    def _generated(self, part: str) -> list[Table]:
        examples = self.metrics.get(f"{part}/{GENERATED}n_examples")
        if examples is None:
            return []
        names = ("hit_ratio@1", "valid_ratio", "hit_ratio_of_all@1")
        title = f"Generated answers, {part}, {int(examples):,} examples"
        table = _table(title, self.model, [BEYOND[name] for name in names])
        table.add_row(
            "generated", *_figures(self.metrics, [f"{part}/{GENERATED}{name}" for name in names]), style="bold"
        )
        ranked = self.metrics[f"{part}/{GENERATED}ranked_first"]
        table.add_row("ranked first", *(f"{value:.4f}" for value in (ranked, 1.0, ranked)))
        return [table]

    def _by_slice(self, part: str) -> Table:
        metric = f"ndcg@{headline_k(self.ks)}"
        models = [self.model, *self.baselines]
        table = _table(f"{metric.upper()} by slice, {part}", "Slice", ["Examples", *models])
        slices = self.slices.filter(pl.col("part") == part)
        wide = slices.pivot("model", index=["slice", "value", "n_examples"], values=metric, maintain_order=True)
        for row in wide.iter_rows(named=True):
            cells = [f"{row[name]:.4f}" for name in models]
            table.add_row(f"{row['slice']}: {row['value']}", f"{row['n_examples']:,}", *cells)
        return table

    def _add_models(self, table: Table, names: Sequence[str]) -> None:
        table.add_row(self.model, *_figures(self.metrics, names), style="bold")
        for baseline, metrics in self.baselines.items():
            if any(name in metrics for name in names):
                table.add_row(baseline, *_figures(metrics, names))


def parts_of(metrics: Metrics) -> list[str]:
    """The parts of a split that ``metrics`` are about, such as ``test``, in their order."""
    return list(dict.fromkeys(name.split("/")[0] for name in metrics))


def headline_k(ks: Sequence[int]) -> int:
    """The K that models are compared at: 10, or the largest if 10 isn't measured."""
    return 10 if 10 in ks else max(ks)


def unbeaten(model: str, metrics: Metrics, baselines: Mapping[str, Metrics], ks: Sequence[int]) -> list[str]:
    """A sentence for every baseline and part whose NDCG the model does not beat."""
    k = headline_k(ks)
    return [
        f"{model} does not beat {name} on NDCG@{k} ({part}: {metrics[key]:.4f} against {baseline[key]:.4f})."
        for part in parts_of(metrics)
        for name, baseline in baselines.items()
        for key in [f"{part}/ndcg@{k}"]
        if not metrics[key] > baseline[key]
    ]


def _table(title: str, first: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", min_width=len(title))
    table.add_column(first)
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _figures(metrics: Metrics, names: Sequence[str]) -> list[str]:
    return [f"{metrics[name]:.4f}" if name in metrics else "-" for name in names]

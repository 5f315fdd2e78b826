"""The result of an evaluation as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from deshi.rendering import Block, Cell, Paragraph, Result, Row, Table, paragraphs

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
class EvaluateResult(Result):
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
        unbeaten: a sentence for each part in which the model doesn't beat the best baseline.
        notes: sentences about what was left out.
        protocol: the candidates of the ranking, as a phrase.
    """

    folder: Path
    model: str
    metrics: Metrics
    baselines: Mapping[str, Metrics]
    ranks: pl.DataFrame = field(repr=False)
    ks: Sequence[int]
    slices: pl.DataFrame = field(repr=False)
    warnings: Sequence[str] = ()
    unbeaten: Sequence[str] = ()
    notes: Sequence[str] = ()
    protocol: str = "exact full ranking"

    def frame(self) -> pl.DataFrame:
        """The metrics as a table: ``model``, ``part``, ``metric`` and ``value``, a row for each figure."""
        models = {self.model: self.metrics, **self.baselines}
        pairs = [(model, name, value) for model, metrics in models.items() for name, value in metrics.items()]
        rows = [(model, *name.split("/", 1), value) for model, name, value in pairs]
        schema = {"model": pl.String, "part": pl.String, "metric": pl.String, "value": pl.Float64}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def blocks(self) -> list[Block]:
        """Figures of each part, warnings and notes."""
        blocks: list[Block] = []
        for part in parts_of(self.metrics):
            blocks.append(self._by_k(part))
            if self.baselines:
                columns = {f"{part}/{name}@{headline_k(self.ks)}": title for name, title in COLUMNS.items()}
                blocks.append(self._by_model(f"Model and baselines, {part}, at {headline_k(self.ks)}", columns))
            blocks += [*self._beyond(part), *self._generated(part), self._by_slice(part)]
        blocks += [*paragraphs(*self.warnings, *self.unbeaten, tone="warning"), *paragraphs(*self.notes)]
        return [*blocks, Paragraph(f"Written to {self.folder}")]

    def _by_k(self, part: str) -> Table:
        examples = int(self.metrics[f"{part}/n_examples"])
        rows = [[str(k), *_figures(self.metrics, [f"{part}/{name}@{k}" for name in COLUMNS])] for k in self.ks]
        title = f"{self.model}, {part}, {examples:,} examples, {self.protocol}"
        return Table(title, ["K", *COLUMNS.values()], rows)

    def _by_model(self, title: str, columns: Mapping[str, str]) -> Table:
        """A row a model that has any of the metrics; ``columns`` are the metrics with their heads."""
        rows = [_bold([self.model, *_figures(self.metrics, list(columns))])]
        for name, metrics in self.baselines.items():
            if any(metric in metrics for metric in columns):
                rows.append([name, *_figures(metrics, list(columns))])
        return Table(title, ["Model", *columns.values()], rows)

    def _beyond(self, part: str) -> list[Table]:
        k = headline_k(self.ks)
        columns = {f"{part}/{name.format(k=k)}": title for name, title in BEYOND.items()}
        models = [self.metrics, *self.baselines.values()]
        measured = {name: title for name, title in columns.items() if any(name in metrics for metrics in models)}
        if not measured:
            return []
        full = f"{part}/coverage@{k}" in measured
        title = f"Beyond accuracy, {part}, at {k}" if full else f"Answers and calibration, {part}"
        return [self._by_model(title, measured)]

    def _generated(self, part: str) -> list[Table]:
        examples = self.metrics.get(f"{part}/{GENERATED}n_examples")
        if examples is None:
            return []
        names = ("hit_ratio@1", "valid_ratio", "hit_ratio_of_all@1")
        ranked = self.metrics[f"{part}/{GENERATED}ranked_first"]
        rows = [
            _bold(["generated", *_figures(self.metrics, [f"{part}/{GENERATED}{name}" for name in names])]),
            ["ranked first", *(f"{value:.4f}" for value in (ranked, 1.0, ranked))],
        ]
        title = f"Generated answers, {part}, {int(examples):,} examples"
        return [Table(title, [self.model, *(BEYOND[name] for name in names)], rows)]

    def _by_slice(self, part: str) -> Table:
        metric = f"ndcg@{headline_k(self.ks)}"
        models = [self.model, *self.baselines]
        wide = self.slices.filter(pl.col("part") == part).pivot(
            "model", index=["slice", "value", "n_examples"], values=metric, maintain_order=True
        )
        rows = [
            [f"{row['slice']}: {row['value']}", f"{row['n_examples']:,}", *(f"{row[name]:.4f}" for name in models)]
            for row in wide.iter_rows(named=True)
        ]
        return Table(f"{metric.upper()} by slice, {part}", ["Slice", "Examples", *models], rows)


def parts_of(metrics: Metrics) -> list[str]:
    """The parts of a split that ``metrics`` are about, such as ``test``, in their order."""
    return list(dict.fromkeys(name.split("/")[0] for name in metrics))


def headline_k(ks: Sequence[int]) -> int:
    """The K that models are compared at: 10, or the largest if 10 isn't measured."""
    return 10 if 10 in ks else max(ks)


def _bold(row: Sequence[str]) -> Row:
    return [Cell(text, bold=True) for text in row]


def _figures(metrics: Metrics, names: Sequence[str]) -> list[str]:
    return [f"{metrics[name]:.4f}" if name in metrics else "-" for name in names]

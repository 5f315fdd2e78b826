"""Figures held against plain formulas over the stored ranks: one mean over all examples, no mean of batch means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from deshi.artifacts import read_json
from deshi.baselines import BASELINES
from deshi.data.splits import Ratio
from deshi.evaluation import evaluate_ranks, summarise
from tiny_bundles import random_sequences, tiny_bundle


def figures_of(ranks: pl.DataFrame) -> dict[str, float]:
    """HR, NDCG, recall and MRR at 10 of one part's ranks, example by example."""
    values: dict[str, list[float]] = {name: [] for name in ("hr", "ndcg", "recall", "mrr")}
    for _, example in ranks.group_by("example"):
        hits = sorted(rank for rank in example["rank"] if rank <= 10)
        values["hr"].append(float(bool(hits)))
        ideal = sum(1 / np.log2(1 + place) for place in range(1, min(10, example.height) + 1))
        values["ndcg"].append(sum(1 / np.log2(1 + rank) for rank in hits) / ideal)
        values["recall"].append(len(hits) / example.height)
        values["mrr"].append(1 / hits[0] if hits else 0.0)
    return {f"{name}@10": float(np.mean(column)) for name, column in values.items()}


@pytest.mark.parametrize("part", ["validation", "test"])
def test_saved_figures_follow_from_saved_ranks(part: str, finished_root: Path) -> None:
    """Batches of any size, the last one smaller, must leave no trace in a figure."""
    for folder in (finished_root / "runs" / "evaluate").iterdir():
        metrics = read_json(folder / "metrics.json")
        ranks = pl.read_parquet(folder / "ranks.parquet").filter(pl.col("part") == part)
        for name, value in figures_of(ranks).items():
            assert metrics[f"{part}/{name}"] == pytest.approx(value, abs=1e-12)
        assert metrics[f"{part}/n_examples"] == ranks["example"].n_unique()


@pytest.mark.parametrize("batch_size", [1, 7, 64, 512])
def test_figures_do_not_depend_on_the_batch_size(batch_size: int, tmp_path: Path) -> None:
    """With several targets an example and 101 examples, which no batch size divides."""
    bundle = tiny_bundle(tmp_path, random_sequences(101, 40, 6, 14))
    split = Ratio(0.2, 0.3, targets="all")(bundle)
    scorer = BASELINES["markov"]().fit(bundle, *split.train_ranges(bundle))
    ranking = evaluate_ranks(scorer, bundle, split.examples(bundle, "test"), batch_size=batch_size)
    figures = summarise(ranking.ranks, ranking.top_items, [10], bundle.n_items)
    assert figures["n_examples"] == 101
    for name, value in figures_of(ranking.ranks).items():
        assert figures[name] == pytest.approx(value, abs=1e-12)

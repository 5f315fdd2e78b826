"""Do the figures follow from the stored ranks? If not: batch means, or a last batch that was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.arrays import Floats
from deshi.auditing.finding import Finding, finding, place
from deshi.metrics.ranking import METRICS, example_ranks, metrics_per_example

BATCHES = (8, 16, 32, 50, 64, 100, 128, 200, 250, 256, 500, 512, 1000, 1024, 2000, 2048, 4096, 8192)
EXACT = 1e-6
"""By how much a figure may differ: it was computed from the same ranks."""


def audit_figures(
    metrics: Mapping[str, float],
    ranks: pl.DataFrame,
    part: str,
    lengths: NDArray[Any] | None = None,
    batch_size: int | None = None,
) -> list[Finding]:
    """Compare the stored figures of one part with those of its stored ranks.

    Args:
        metrics: such as ``test/ndcg@10``.
        ranks: that part's, with ``example`` and ``rank``.
        part: validation or test.
        lengths: ``(C,)`` history lengths of the examples; programs batch by length too.
        batch_size: of the evaluation's configuration, tried beside the usual ones.
    """
    usable = ranks.filter(pl.col("rank").is_not_nan() & (pl.col("rank") >= 1))
    asked = [name for name in metrics if _known(name, part)]
    if not usable.height or not asked:
        return []
    n_examples = int(usable["example"].max()) + 1  # type: ignore[arg-type]
    grouped = example_ranks(usable["rank"].to_numpy(), usable["example"].to_numpy(), n_examples)
    values = metrics_per_example(grouped, sorted({int(name.rpartition("@")[2]) for name in asked}))
    columns = {name: values[name.partition("/")[2]] for name in asked}
    wrong = [name for name in asked if not _same(metrics[name], float(np.nanmean(columns[name])))]
    counted = metrics.get(f"{part}/n_examples", n_examples)
    if not wrong and counted == n_examples:
        return []
    orders: list[NDArray[Any]] = [np.arange(n_examples)]
    if lengths is not None and len(lengths) == n_examples:
        orders.append(np.argsort(-lengths, kind="stable"))
    chosen = {name: columns[name] for name in wrong or asked}
    return [_explained(metrics, chosen, orders, batch_size, int(counted), n_examples)]


def _known(name: str, part: str) -> bool:
    first, _, rest = name.partition("/")
    return first == part and rest.partition("@")[0] in METRICS and "@" in rest


def _same(stored: float, computed: float) -> bool:
    return abs(stored - computed) <= EXACT * max(1.0, abs(stored))


def _explained(
    metrics: Mapping[str, float],
    columns: Mapping[str, Floats],
    orders: list[NDArray[Any]],
    batch_size: int | None,
    counted: int,
    n_examples: int,
) -> Finding:
    name = next((one for one in columns if "/ndcg@10" in one), next(iter(columns)))
    where = [place(file="metrics.json", figure=one, stored=f"{metrics[one]:.6f}") for one in columns]
    effect = (
        f"{name} is {metrics[name]:.6f} as stored and {np.nanmean(columns[name]):.6f} over all {n_examples:,} examples."
    )
    fix = "Keep a rank for every example, concatenate all batches, and average once at the end."
    for rule, size, order in _candidates(orders, batch_size, n_examples):
        if all(_same(metrics[one], _batched(values[order], size, rule)) for one, values in columns.items()):
            if rule == "averaged-by-batch":
                what = f"{len(columns)} figures are means of the means of batches of {size:,}: the last, smaller batch "
                what += "counts as much as a whole one."
            else:
                left = n_examples % size
                what = f"{len(columns)} figures leave out the last batch: {left:,} of {n_examples:,} examples, in "
                what += f"batches of {size:,}."
            return finding(rule, what, where, effect, fix)
    if counted < n_examples:
        what = f"The figures are of {counted:,} examples, but ranks are stored of {n_examples:,}."
        return finding("last-batch-dropped", what, where, effect, fix)
    what = (
        f"{len(columns)} figures are not the means over the {n_examples:,} stored examples, nor means of usual batches."
    )
    return finding("metrics-not-from-ranks", what, where, effect, "Run deshi evaluate again. " + fix)


def _candidates(
    orders: list[NDArray[Any]], batch_size: int | None, n_examples: int
) -> Iterator[tuple[str, int, NDArray[Any]]]:
    sizes = dict.fromkeys([*([batch_size] if batch_size else []), *BATCHES])
    for size in sizes:
        if size < n_examples and n_examples % size:
            for order in orders:
                yield "averaged-by-batch", size, order
                yield "last-batch-dropped", size, order


def _batched(values: Floats, size: int, rule: str) -> float:
    if rule == "last-batch-dropped":
        return float(np.nanmean(values[: len(values) // size * size]))
    return float(np.mean([np.nanmean(values[begin : begin + size]) for begin in range(0, len(values), size)]))

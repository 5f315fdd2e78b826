"""Do the figures follow from the stored ranks? If not: batch means, or a last batch that was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.auditing.finding import Finding, finding, place
from deshi.metrics.ranking import METRICS, case_ranks, metrics_per_case

Floats = NDArray[np.float64]
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
        ranks: that part's, with ``case`` and ``rank``.
        part: validation or test.
        lengths: ``(C,)`` history lengths of the cases; programs batch by length too.
        batch_size: of the evaluation's configuration, tried beside the usual ones.
    """
    usable = ranks.filter(pl.col("rank").is_not_nan() & (pl.col("rank") >= 1))
    asked = [name for name in metrics if _known(name, part)]
    if not usable.height or not asked:
        return []
    n_cases = int(usable["case"].max()) + 1  # type: ignore[arg-type]
    grouped = case_ranks(usable["rank"].to_numpy(), usable["case"].to_numpy(), n_cases)
    values = metrics_per_case(grouped, sorted({int(name.rpartition("@")[2]) for name in asked}))
    columns = {name: values[name.partition("/")[2]] for name in asked}
    wrong = [name for name in asked if not _same(metrics[name], float(np.nanmean(columns[name])))]
    counted = metrics.get(f"{part}/n_cases", n_cases)
    if not wrong and counted == n_cases:
        return []
    orders: list[NDArray[Any]] = [np.arange(n_cases)]
    if lengths is not None and len(lengths) == n_cases:
        orders.append(np.argsort(-lengths, kind="stable"))
    chosen = {name: columns[name] for name in wrong or asked}
    return [_explained(metrics, chosen, orders, batch_size, int(counted), n_cases)]


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
    n_cases: int,
) -> Finding:
    name = next((one for one in columns if "/ndcg@10" in one), next(iter(columns)))
    where = [place(file="metrics.json", figure=one, stored=f"{metrics[one]:.6f}") for one in columns]
    effect = f"{name} is {metrics[name]:.6f} as stored and {np.nanmean(columns[name]):.6f} over all {n_cases:,} cases."
    mend = "Keep a rank for every case, concatenate all batches, and average once at the end."
    for rule, size, order in _candidates(orders, batch_size, n_cases):
        if all(_same(metrics[one], _batched(values[order], size, rule)) for one, values in columns.items()):
            if rule == "averaged-by-batch":
                what = f"{len(columns)} figures are means of the means of batches of {size:,}: the last, smaller batch "
                what += "counts as much as a whole one."
            else:
                left = n_cases % size
                what = f"{len(columns)} figures leave out the last batch: {left:,} of {n_cases:,} cases, in batches of "
                what += f"{size:,}."
            return finding(rule, what, where, effect, mend)
    if counted < n_cases:
        what = f"The figures are of {counted:,} cases, but ranks are stored of {n_cases:,}."
        return finding("last-batch-dropped", what, where, effect, mend)
    what = f"{len(columns)} figures are not the means over the {n_cases:,} stored cases, nor means of usual batches."
    return finding("metrics-not-from-ranks", what, where, effect, "Run deshi evaluate again. " + mend)


def _candidates(
    orders: list[NDArray[Any]], batch_size: int | None, n_cases: int
) -> Iterator[tuple[str, int, NDArray[Any]]]:
    sizes = dict.fromkeys([*([batch_size] if batch_size else []), *BATCHES])
    for size in sizes:
        if size < n_cases and n_cases % size:
            for order in orders:
                yield "averaged-by-batch", size, order
                yield "last-batch-dropped", size, order


def _batched(values: Floats, size: int, rule: str) -> float:
    if rule == "last-batch-dropped":
        return float(np.nanmean(values[: len(values) // size * size]))
    return float(np.mean([np.nanmean(values[begin : begin + size]) for begin in range(0, len(values), size)]))

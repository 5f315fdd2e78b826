"""Section of slices and calibration: metrics of groups of examples, and probabilities against how often they hold."""

from __future__ import annotations

import numpy as np
import polars as pl

from deshi.metrics import metric_title
from deshi.rendering import Table
from deshi.reporting._blocks import Block, Picture, Pictures, Section
from deshi.reporting._context import Context, evaluate_again
from deshi.reporting._drawing import figure_name
from deshi.reporting._figures import Curve, against_diagonal, grouped_bars, rows_height
from deshi.reporting._runs import baseline_names
from deshi.runs import read_part

SLICES_FILE, CALIBRATION_FILE = "slices.parquet", "calibration.parquet"
LEAD = (
    "The metric for parts of the examples, with their number n. Small parts jump about: a difference between bars "
    "over a few dozen examples says little. Grey points are baselines. Calibration compares the probability that a "
    "model gives to its first item with how often that item is right: on the diagonal they agree, below it the model "
    "is too sure of itself."
)


def section(context: Context) -> Section:
    """Bars for each way of slicing, and the calibration curves; or the command that makes them."""
    slices, calibration = _read(context, SLICES_FILE), _read(context, CALIBRATION_FILE)
    blocks: list[Block] = []
    if slices:
        names = dict.fromkeys(name for frame in slices.values() for name in frame["slice"].to_list())
        blocks.append(Pictures([_picture(context, name, slices) for name in names]))
    if calibration:
        blocks.append(Pictures([_calibration(context, calibration)]))
    unsliced = [run for run in context.runs if run.label not in slices]
    uncalibrated = [run for run in context.runs if run.record["run"] and run.label not in calibration]
    blocks += evaluate_again("slices", unsliced, context.part)
    blocks += evaluate_again("calibration", uncalibrated, context.part)
    return Section("slices", "Slices and calibration", LEAD, blocks)


def _read(context: Context, name: str) -> dict[str, pl.DataFrame]:
    """A file of the evaluations, by label; without those that lack it, or whose part is empty."""
    paths = {run.label: run.evaluation.folder / name for run in context.runs}
    frames = {label: read_part(path, context.part) for label, path in paths.items() if path.is_file()}
    return {label: frame for label, frame in frames.items() if frame.height}


def _picture(context: Context, name: str, frames: dict[str, pl.DataFrame]) -> Picture:
    figures: dict[str, dict[str, tuple[float, int]]] = {}
    for run in context.runs:
        if run.label in frames:
            figures[run.label] = _values(frames[run.label], str(run.record["model"]), name, context.metric)
    for baseline in baseline_names(context.runs):
        measured = (_values(frame, baseline, name, context.metric) for frame in frames.values())
        if values := next(filter(None, measured), None):
            figures[baseline] = values
    counts = {value: n for values in figures.values() for value, (_, n) in values.items()}
    groups = [f"{value} (n={n:,})" for value, n in counts.items()]
    bars = sum(context.color(label) is not None for label in figures)
    series = {
        label: np.array([values.get(value, (np.nan, 0))[0] for value in counts]) for label, values in figures.items()
    }
    rows = [context.row(label, *(f"{value:.4f}" for value in values)) for label, values in series.items()]
    metric = metric_title(context.metric)
    title = f"{metric} by {name.replace('_', ' ')}"
    return context.figures.picture(
        f"slices-{figure_name(name)}", title, f"{title} on {context.part}; n is the number of examples of a slice.",
        grouped_bars(groups, [(context.styles[label], values) for label, values in series.items()], metric, bars),
        Table(title, ["model", *groups], rows), rows_height(len(groups) * max(3, bars + 1) // 2),
    )  # fmt: skip


def _values(frame: pl.DataFrame, model: str, name: str, metric: str) -> dict[str, tuple[float, int]]:
    """The metric and the number of examples by the slice's value, for one model."""
    rows = frame.filter((pl.col("model") == model) & (pl.col("slice") == name))
    if metric not in rows.columns:
        return {}
    return {
        str(value): (float("nan") if figure is None else float(figure), int(n))
        for value, n, figure in rows.select("value", "n_examples", metric).iter_rows()
    }


def _calibration(context: Context, frames: dict[str, pl.DataFrame]) -> Picture:
    bins = {label: frame.filter(pl.col("n_examples") > 0).sort("bin") for label, frame in frames.items()}
    lines = [
        Curve(context.styles[label], frame["confidence"].to_list(), frame["accuracy"].to_list())
        for label, frame in bins.items()
    ]
    rows = [
        context.row(label, f"{confidence:.4f}", f"{accuracy:.4f}", f"{n:,}")
        for label, frame in bins.items()
        for confidence, accuracy, n in frame.select("confidence", "accuracy", "n_examples").iter_rows()
    ]
    return context.figures.picture(
        "calibration", "Calibration",
        f"Mean probability of the first item against how often it is right, in bins of examples of {context.part}.",
        against_diagonal(lines, "confidence", "accuracy"),
        Table("Calibration by bin", ["run", "confidence", "accuracy", "examples"], rows),
    )  # fmt: skip

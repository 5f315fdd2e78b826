"""The section of slices and calibration: for whom the models are good, and whether their scores mean anything."""

from __future__ import annotations

import numpy as np
import polars as pl

from deshi.reporting.blocks import Block, Picture, Pictures, Row, Section, Table
from deshi.reporting.context import Context, evaluate_again, title_of
from deshi.reporting.drawing import plain
from deshi.reporting.figures import Curve, against_diagonal, grouped_bars, rows_height
from deshi.reporting.models import Model, baseline_names
from deshi.runs import read_part

SLICES_FILE, CALIBRATION_FILE = "slices.parquet", "calibration.parquet"
LEAD = (
    "The metric for parts of the examples, with their number n. Small parts jump about: a difference between bars "
    "over a "
    "few dozen examples says little. Grey points are baselines. Calibration compares the probability that a model "
    "gives to its first item with how often that item is right: on the diagonal they agree, below it the model is "
    "too sure of itself."
)


def section(context: Context) -> Section:
    """Bars for each way of slicing, and the calibration curves; or the command that makes them."""
    frames = {
        model.label: frame for model in context.models if (frame := _read(model, SLICES_FILE, context)) is not None
    }
    blocks: list[Block] = []
    if frames:
        blocks.append(Pictures([_picture(context, name, frames) for name in _slices(frames)]))
    curves = {m.label: frame for m in context.models if (frame := _read(m, CALIBRATION_FILE, context)) is not None}
    if curves:
        blocks.append(Pictures([_calibration(context, curves)]))
    students = [model for model in context.models if model.record["run"]]
    blocks += evaluate_again("slices", [m for m in context.models if m.label not in frames], context.part)
    blocks += evaluate_again("calibration", [m for m in students if m.label not in curves], context.part)
    return Section("slices", "Slices and calibration", LEAD, blocks)


def _read(model: Model, name: str, context: Context) -> pl.DataFrame | None:
    path = model.evaluation.folder / name
    frame = read_part(path, context.part) if path.is_file() else None
    return frame if frame is not None and frame.height else None


def _slices(frames: dict[str, pl.DataFrame]) -> list[str]:
    return list(dict.fromkeys(name for frame in frames.values() for name in frame["slice"].to_list()))


def _picture(context: Context, name: str, frames: dict[str, pl.DataFrame]) -> Picture:
    column = context.metric
    tables: dict[str, dict[str, tuple[float, int]]] = {}
    for model in context.models:
        if model.label in frames:
            tables[model.label] = _values(frames[model.label], str(model.record["model"]), name, column)
    for baseline in baseline_names(context.models):
        found = next((v for f in frames.values() if (v := _values(f, baseline, name, column))), None)
        if found:
            tables[baseline] = found
    counts = {value: n for found in tables.values() for value, (_, n) in found.items()}
    groups = [f"{value} (n={n:,})" for value, n in counts.items()]
    bars = sum(context.color(label) is not None for label in tables)
    shown = [
        (context.pens[label], np.array([found.get(value, (np.nan, 0))[0] for value in counts]))
        for label, found in tables.items()
    ]
    rows = [Row(pen.label, [f"{value:.4f}" for value in values], context.color(pen.label)) for pen, values in shown]
    title = f"{title_of(column)} by {name.replace('_', ' ')}"
    return context.studio.picture(
        f"slices-{plain(name)}", title, f"{title} on {context.part}; n is the number of examples of a slice.",
        grouped_bars(groups, shown, title_of(column), bars), Table(title, ["model", *groups], rows),
        rows_height(len(groups) * max(3, bars + 1) // 2),
    )  # fmt: skip


def _values(frame: pl.DataFrame, model: str, name: str, column: str) -> dict[str, tuple[float, int]]:
    """The metric and the number of examples by the slice's value, for one model."""
    rows = frame.filter((pl.col("model") == model) & (pl.col("slice") == name))
    if column not in rows.columns:
        return {}
    return {
        str(value): (float("nan") if figure is None else float(figure), int(n))
        for value, n, figure in rows.select("value", "n_examples", column).iter_rows()
    }


def _calibration(context: Context, curves: dict[str, pl.DataFrame]) -> Picture:
    known = {label: frame.filter(pl.col("n_examples") > 0).sort("bin") for label, frame in curves.items()}
    shown = [
        Curve(context.pens[label], frame["confidence"].to_list(), frame["accuracy"].to_list())
        for label, frame in known.items()
    ]
    rows = [
        Row(label, [f"{confidence:.4f}", f"{accuracy:.4f}", f"{n:,}"], context.color(label))
        for label, frame in known.items()
        for confidence, accuracy, n in frame.select("confidence", "accuracy", "n_examples").iter_rows()
    ]
    return context.studio.picture(
        "calibration", "Calibration",
        f"Mean probability of the first item against how often it is right, in bins of examples of {context.part}.",
        against_diagonal(shown, "confidence", "accuracy"),
        Table("Calibration by bin", ["run", "confidence", "accuracy", "examples"], rows),
    )  # fmt: skip

"""Section of learning curves: training loss and validation metric by epoch."""

from __future__ import annotations

from typing import Any

import polars as pl

from deshi.metrics import metric_title
from deshi.rendering import Table
from deshi.reporting._blocks import Block, Missing, Picture, Pictures, Section
from deshi.reporting._context import Context
from deshi.reporting._figures import Curve, curves
from deshi.reporting._runs import ReportedRun
from deshi.runs import LOSS, read_curve

LEAD = (
    "The loss on the training data and the metric that the best epoch is selected by, after each epoch. A ring marks "
    "the selected epoch. A curve that still rises at its end was stopped too early; a validation metric that falls "
    "while the loss falls is overfitting. Losses of different kinds have different scales."
)


def section(context: Context) -> Section:
    """Curves of all runs that are still there, and a sentence about the others."""
    by_epoch = {run.label: read_curve(run.trained.folder) if run.trained else None for run in context.runs}
    frames = {label: frame for label, frame in by_epoch.items() if frame is not None}
    blocks: list[Block] = []
    if frames:
        blocks.append(Pictures([_loss(context, frames), *_selection(context, frames)]))
    blocks += [_missing(run) for run in context.runs if run.label not in frames]
    return Section("learning", "Learning curves", LEAD, blocks)


def _missing(run: ReportedRun) -> Missing:
    if run.record["run"] is None:
        return Missing(f"{run.label} is a baseline: it isn't trained in epochs.")
    if run.trained is not None:
        folds = run.trained.record.get("cross_fit", 0)
        reason = f"was trained in {folds} folds, whose curves are in fold-*" if folds else "isn't trained in epochs"
        return Missing(f"{run.label} ({run.trained.record['model']}) {reason}: it has no curve.")
    return Missing(f"The run of {run.label} is no longer at {run.record['run']}; its curves went with it.")


def _loss(context: Context, frames: dict[str, pl.DataFrame]) -> Picture:
    lines = [
        Curve(context.styles[label], frame["epoch"].to_list(), frame[_loss_column(frame)].to_list())
        for label, frame in frames.items()
    ]
    return context.figures.picture(
        "learning-loss", "Training loss", "Mean training loss over all positions, by epoch.",
        curves(lines, "epoch", "loss"), _ends(context, frames, "loss"),
    )  # fmt: skip


def _loss_column(frame: pl.DataFrame) -> str:
    return next(name for name in frame.columns if name.startswith(LOSS))


def _selection(context: Context, frames: dict[str, pl.DataFrame]) -> list[Picture]:
    """The curve of the metric that the first run selects by; runs that select by another have it too, unmarked."""
    records = {run.label: run.trained.record for run in context.runs if run.trained}
    metric = str(records[next(iter(frames))]["selected_on"])
    lines = []
    for label, frame in frames.items():
        if metric not in frame.columns:
            continue
        measured = frame.drop_nulls(metric)
        epochs, selected = measured["epoch"].to_list(), records[label]["selected_epoch"]
        mark = epochs.index(selected) if records[label]["selected_on"] == metric and selected in epochs else None
        lines.append(Curve(context.styles[label], epochs, measured[metric].to_list(), mark))
    if not lines:
        return []
    name = metric_title(metric.partition("/")[2])
    picture = context.figures.picture(
        "learning-validation", f"{name} on validation",
        f"{name} on validation by epoch; a ring marks the epoch that was selected.",
        curves(lines, "epoch", name), _ends(context, frames, metric, records),
    )  # fmt: skip
    return [picture]


def _ends(
    context: Context, frames: dict[str, pl.DataFrame], column: str, records: dict[str, Any] | None = None
) -> Table:
    """First and last value of each curve, and the selected epoch."""
    rows = []
    for label, frame in frames.items():
        name = _loss_column(frame) if column == "loss" else column
        if name in frame.columns:
            values = frame[name].drop_nulls().to_list()
            selected = [str(records[label]["selected_epoch"])] if records else []
            ends = [f"{value:.4f}" for value in (values[0], values[-1])]
            rows.append(context.row(label, str(frame.height), *selected, *ends))
    columns = ["run", "epochs", *(["selected"] if records else []), "first", "last"]
    return Table("First and last value", columns, rows)

"""The section of learning curves: loss and validation metric by epoch, as training has left them."""

from __future__ import annotations

import polars as pl

from deshi.reporting.blocks import Block, Missing, Picture, Pictures, Row, Section, Table
from deshi.reporting.context import Context, title_of
from deshi.reporting.figures import Curve, curves
from deshi.reporting.models import Model
from deshi.runs import LOSS, read_curve

LEAD = (
    "The loss on the training data and the metric that the best epoch is selected by, after each epoch. A ring marks "
    "the selected epoch. A curve that still rises at its end was stopped too early; a validation metric that falls "
    "while the loss falls is overfitting. Losses of different kinds have different scales."
)


def section(context: Context) -> Section:
    """Curves of all models whose run is still there, and a sentence about the others."""
    found = {model.label: _read(model) for model in context.models}
    blocks: list[Block] = []
    curves_of = {label: rows for label, rows in found.items() if rows is not None}
    if curves_of:
        blocks.append(Pictures([_loss(context, curves_of), *_selection(context, curves_of)]))
    for model in context.models:
        if found[model.label] is None:
            blocks.append(_absent(model))
    return Section("learning", "Learning curves", LEAD, blocks)


def _read(model: Model) -> pl.DataFrame | None:
    return read_curve(model.run.folder) if model.run else None


def _absent(model: Model) -> Missing:
    if model.record["run"] is None:
        return Missing(f"{model.label} is a baseline: it isn't trained in epochs.")
    return Missing(f"The run of {model.label} is no longer at {model.record['run']}; its curves went with it.")


def _loss(context: Context, found: dict[str, pl.DataFrame]) -> Picture:
    shown = [
        Curve(context.pens[label], rows["epoch"].to_list(), rows[_loss_column(rows)].to_list())
        for label, rows in found.items()
    ]
    return context.studio.picture(
        "learning-loss", "Training loss", "Mean training loss over all positions, by epoch.",
        curves(shown, "epoch", "loss"), _ends(context, found, "loss"),
    )  # fmt: skip


def _loss_column(rows: pl.DataFrame) -> str:
    return next(name for name in rows.columns if name.startswith(LOSS))


def _selection(context: Context, found: dict[str, pl.DataFrame]) -> list[Picture]:
    """The curve of the metric that the first run selects by; runs that select by another have it too, unmarked."""
    records = {m.label: m.run.record for m in context.models if m.run and m.label in found}
    metric = str(next(iter(records.values()))["selected_on"])
    shown = []
    for label, rows in found.items():
        if metric not in rows.columns:
            continue
        known = rows.drop_nulls(metric)
        epochs, selected = known["epoch"].to_list(), records[label]["selected_epoch"]
        mark = epochs.index(selected) if records[label]["selected_on"] == metric and selected in epochs else None
        shown.append(Curve(context.pens[label], epochs, known[metric].to_list(), mark))
    if not shown:
        return []
    title = f"{title_of(metric.partition('/')[2])} on validation"
    picture = context.studio.picture(
        "learning-validation", title, f"{title} by epoch; a ring marks the epoch that was selected.",
        curves(shown, "epoch", title_of(metric.partition("/")[2])), _ends(context, found, metric, records),
    )  # fmt: skip
    return [picture]


def _ends(
    context: Context, found: dict[str, pl.DataFrame], column: str, records: dict[str, dict[str, int]] | None = None
) -> Table:
    """First and last value of each curve, and the selected epoch."""
    rows = []
    for label, frame in found.items():
        name = _loss_column(frame) if column == "loss" else column
        if name in frame.columns:
            values = frame[name].drop_nulls().to_list()
            selected = [str(records[label]["selected_epoch"])] if records else []
            rows.append(
                Row(label, [str(frame.height), *selected, _plain(values[0]), _plain(values[-1])], context.color(label))
            )
    columns = ["run", "epochs", *(["selected"] if records else []), "first", "last"]
    return Table("First and last value", columns, rows)


def _plain(value: float) -> str:
    return f"{value:.4f}"

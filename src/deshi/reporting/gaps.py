"""The section about validation against test: what `deshi gap` found, or at least both figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deshi.artifacts import read_json
from deshi.reporting.blocks import Block, Missing, Picture, Pictures, Row, Section, Table, Text
from deshi.reporting.context import Context, evaluate_again, title_of
from deshi.reporting.drawing import Pen, plain
from deshi.reporting.figures import Span, rows_height, slopes, spans
from deshi.reporting.models import Model, baseline_figure, baseline_names

LEAD = (
    "A model is selected on validation and judged on test. Some difference is normal: the test targets are newer, and "
    "the newest event before them was not trained on. A large difference, or a test figure that is better, needs an "
    "explanation before any figure is believed."
)


def section(context: Context) -> Section:
    """The explanation of each run where there is one, and the two figures side by side."""
    blocks: list[Block] = []
    pairs = _pairs(context)
    if pairs:
        blocks.append(Pictures([_picture(context, pairs)]))
    lacking: list[Model] = []
    for model in context.models:
        found = _newest(context.runs, model)
        if found is not None:
            blocks += _explained(context, model, found)
        elif model.record["run"]:
            lacking.append(model)
    if lacking:
        commands = [f"deshi gap {model.name}" for model in lacking]
        blocks.append(Missing("Why the two figures differ is explained by:", commands))
    single = [model for model in context.models if model.label not in pairs]
    other = "validation" if context.part == "test" else "test"
    blocks += evaluate_again(f"{other} figures", single, "both")
    return Section("gap", "Validation against test", LEAD, blocks)


def _pairs(context: Context) -> dict[str, tuple[float, float]]:
    """Validation and test figure of every model that has both."""
    found: dict[str, tuple[float | None, float | None]] = {
        model.label: (model.figure("validation", context.metric), model.figure("test", context.metric))
        for model in context.models
    }
    for name in baseline_names(context.models):
        first, second = (baseline_figure(context.models, name, part, context.metric) for part in ("validation", "test"))
        found[name] = (first, second)
    return {label: (a, b) for label, (a, b) in found.items() if a is not None and b is not None}


def _picture(context: Context, pairs: dict[str, tuple[float, float]]) -> Picture:
    metric = title_of(context.metric)
    rows = [
        Row(label, [f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}", f"{b / a:.3f}" if a else ""], context.color(label))
        for label, (a, b) in pairs.items()
    ]
    return context.studio.picture(
        "gap", f"{metric}, validation and test", f"{metric} of every model on validation (left) and test (right).",
        slopes([(context.pens[label], *pair) for label, pair in pairs.items()], ("validation", "test"), metric),
        Table(f"{metric} on both parts", ["model", "validation", "test", "difference", "test / validation"], rows),
    )  # fmt: skip


def _newest(runs: Path, model: Model) -> Path | None:
    """The newest explanation of the model's run."""
    if not model.record["run"]:
        return None
    name = Path(model.record["run"]).name
    folders = sorted(path.parent for path in (runs / "gap").glob("*/gap.json"))
    mine = [f for f in folders if Path(str(read_json(f / "run.json").get("run"))).name == name]
    return mine[-1] if mine else None


def _explained(context: Context, model: Model, folder: Path) -> list[Block]:
    gap: dict[str, Any] = read_json(folder / "gap.json")
    low, high = gap["interval"]
    share = f"{100 * gap.get('confidence', 0.95):.4g} %"
    said = (
        f"{title_of(gap['metric'])} is {gap['validation']:.4f} on validation and {gap['test']:.4f} on test: "
        f"{gap['difference']:+.4f}, {share} interval {low:+.4f} to {high:+.4f}, ratio {gap['ratio']:.3f}."
    )
    blocks: list[Block] = [Text(f"{model.label}. {gap['sentence']}", "verdict"), Text(said)]
    if gap["contributions"]:
        blocks.append(Pictures([_contributions(context, model, gap)]))
    return blocks


def _contributions(context: Context, model: Model, gap: dict[str, Any]) -> Picture:
    base = context.pens[model.label]
    shown = [
        Span(Pen(each["name"], base.color, base.marker), each["value"], *each["interval"])
        for each in gap["contributions"]
    ]
    rows = [
        Row(
            each["name"],
            [f"{each['value']:+.4f}", f"{each['interval'][0]:+.4f} to {each['interval'][1]:+.4f}", each["note"]],
        )
        for each in gap["contributions"]
    ]
    title = f"What the difference of {model.label} is made of"
    return context.studio.picture(
        f"gap-contributions-{plain(model.label)}", title,
        f"Contributions to the difference between test and validation in {title_of(gap['metric'])}, with intervals.",
        spans(shown, f"contribution to the difference in {title_of(gap['metric'])}", zero_line=True),
        Table(title, ["property", "contribution", "interval", "note"], rows, numeric=False), rows_height(len(shown)),
    )  # fmt: skip

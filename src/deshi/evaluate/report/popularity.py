"""The section on popularity: do the models recommend what everybody knows, and how much of the catalogue is seen?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deshi.evaluate.reference.events import training_events
from deshi.evaluate.report.blocks import Block, Missing, Picture, Pictures, Row, Section, Table
from deshi.evaluate.report.context import Context, Data, evaluate_command, lists_of, title_of
from deshi.evaluate.report.drawing import COLORS, MUTED, Pen
from deshi.evaluate.report.figures import Curve, against_diagonal, rows_height, stacked_shares
from deshi.metrics.beyond import beyond_accuracy
from deshi.types import PAD

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SHARES = {"head": 0.5, "torso": 0.3, "tail": 0.2}
"""Shares of the training events: the most popular items that make up half of them are the head, and so on."""

LEAD = (
    "Items are grouped by how often they occur in the training events: the most popular ones, which make up half of "
    "all events, are the head; those of the next 30 % the torso; the rest the tail. A model whose bar has more head "
    "than the users' histories and the truth recommends what is popular rather than what fits."
)
POINTS = 200


def section(context: Context) -> Section:
    """Shares by popularity group, exposure of items, and the figures; or what is lacking."""
    blocks: list[Block] = []
    if context.data is None:
        blocks.append(Missing(context.data_problem))
        return Section("popularity", "Popularity", LEAD, blocks)
    lists = {m.label: found for m in context.models if (found := _lists(context, m.label)) is not None}
    counts = training_events(context.data.bundle, *context.data.split.train_ranges(context.data.bundle)).counts()
    blocks.append(Pictures([_groups(context, context.data, counts, lists), *_exposure(context, counts, lists)]))
    if lists:
        blocks.append(_table(context, context.data, counts, lists))
    for model in context.models:
        if model.label not in lists:
            command = evaluate_command(model, context.part)
            blocks.append(Missing(f"The evaluation of {model.label} kept no lists.", command))
    return Section("popularity", "Popularity", LEAD, blocks)


def _lists(context: Context, label: str) -> Ints | None:
    """``(C, K)`` the first K items of every case, ``PAD`` where a list is shorter."""
    model = next(model for model in context.models if model.label == label)
    frame = lists_of(model, context.part)
    if frame is None:
        return None
    found = np.full((frame.height, context.k), PAD, dtype=np.int64)
    for row, items in enumerate(frame["items"].list.head(context.k)):
        found[row, : len(items)] = items.to_numpy()
    return found


def groups_of(counts: Ints) -> Ints:
    """``(n_items,)`` the group of every item: 0 head, 1 torso, 2 tail; items of equal count by their index."""
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    edges = np.cumsum(list(SHARES.values()))[:-1] * counts.sum()
    groups = np.empty(len(counts), dtype=np.int64)
    groups[order] = np.searchsorted(edges, before, side="right")
    return groups


def _groups(context: Context, data: Data, counts: Ints, lists: dict[str, Ints]) -> Picture:
    groups, cases = groups_of(counts), data.cases
    inside = np.zeros(data.bundle.n_interactions + 1, dtype=np.int64)
    np.add.at(inside, cases.starts, 1)
    np.add.at(inside, cases.ends, -1)
    history = np.asarray(data.bundle.items)[np.cumsum(inside[:-1]) > 0]
    shown: dict[str, Ints] = {"histories": history, "truth": np.asarray(data.bundle.items)[cases.target_rows]}
    shown |= {label: found[found != PAD] for label, found in lists.items()}
    shares = np.array([np.bincount(groups[items], minlength=3) / max(len(items), 1) for items in shown.values()])
    sizes = np.bincount(groups, minlength=3)
    parts = [
        (f"{name} ({size:,} items)", color)
        for name, size, color in zip(SHARES, sizes, (COLORS[0], COLORS[2], COLORS[1]), strict=True)
    ]
    rows = [
        Row(label, [f"{share:.1%}" for share in row], context.color(label))
        for label, row in zip(shown, shares, strict=True)
    ]
    title = f"Popularity of what is recommended, first {context.k}"
    return context.studio.picture(
        "popularity-groups", title,
        "Shares of head, torso and tail items in the histories, among the true next items, and in each model's lists.",
        stacked_shares(list(shown), parts, shares), Table(title, ["items of", *SHARES], rows), rows_height(len(shown)),
    )  # fmt: skip


def _exposure(context: Context, counts: Ints, lists: dict[str, Ints]) -> list[Picture]:
    """Lorenz curves of how often items are recommended, beside that of the training events."""
    if not lists:
        return []
    shown = [
        _lorenz(context.pens[label], np.bincount(found[found != PAD], minlength=len(counts)))
        for label, found in lists.items()
    ]
    events = _lorenz(Pen("training events", MUTED, "", (0, (1, 1.5))), counts)
    picture = context.studio.picture(
        "popularity-exposure", "How recommendations are spread over the catalogue",
        "Lorenz curves: the share of all recommendations that the least recommended share of items gets. On the "
        "diagonal all items would be shown equally often; a curve at the bottom is a few items taking every place.",
        against_diagonal([*shown, events], "share of items, rarest first", "share of recommendations", above=False),
    )  # fmt: skip
    return [picture]


def _lorenz(pen: Pen, exposure: Ints) -> Curve:
    total = np.concatenate([[0.0], np.cumsum(np.sort(exposure))]) / max(exposure.sum(), 1)
    places = np.unique(np.linspace(0, len(exposure), POINTS).round().astype(np.int64))
    return Curve(pen, (places / len(exposure)).tolist(), total[places].tolist())


def _table(context: Context, data: Data, counts: Ints, lists: dict[str, Ints]) -> Table:
    """Computed here from the lists, so that evaluations made before these metrics existed have them too."""
    sums = np.concatenate([[0], np.cumsum(counts[np.asarray(data.bundle.items)])])
    cases, k = data.cases, context.k
    popularity = (sums[cases.ends] - sums[cases.starts]) / (cases.ends - cases.starts)
    found = {label: beyond_accuracy(items, [k], counts, popularity) for label, items in lists.items()}
    names = ("coverage", "gini", "novelty", "popularity_lift")
    rows = [
        Row(
            label,
            [f"{figures[f'{name}@{k}']:.3f}" if f"{name}@{k}" in figures else "" for name in names],
            context.color(label),
        )
        for label, figures in found.items()
    ]
    columns = ["run", *(title_of(f"{name}@{k}").replace("_", " ") for name in names)]
    return Table(
        f"Beyond accuracy on {context.part}: coverage is the share of items that anyone is shown, Gini 0 is equal "
        f"exposure, novelty is in bits, popularity lift 1 is as popular as the users' histories",
        columns, rows,
    )  # fmt: skip

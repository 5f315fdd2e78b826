"""Section on popularity: popularity groups of recommended items, and how they are spread over the catalogue."""

from __future__ import annotations

import numpy as np

from deshi.arrays import Ints
from deshi.baselines import training_events
from deshi.data.ranges import inside
from deshi.evaluation import history_popularity, popularity_groups
from deshi.metrics import beyond_accuracy, coverage, metric_title
from deshi.rendering import Paragraph, Table
from deshi.reporting._blocks import Block, Missing, Picture, Pictures, Section
from deshi.reporting._context import Context, Data, evaluate_again, lists_of
from deshi.reporting._drawing import COLORS, MUTED, LineStyle
from deshi.reporting._figures import Curve, against_diagonal, rows_height, stacked_shares
from deshi.reporting._runs import ReportedRun
from deshi.types import PAD

GROUPS = {"head": COLORS[0], "torso": COLORS[2], "tail": COLORS[1], "cold": MUTED}

LEAD = (
    "Items are grouped by how often they occur in the training events. The head is the fewest popular items that "
    "together make up 20% of the events, the tail the least popular that make up 20%, the torso what lies between; "
    "cold items have no training event. A model with more head than the users' histories and the truth recommends what "
    "is popular rather than what fits."
)
READING = (
    "Coverage: the share of items that anyone is shown. Gini: 0 if all items are shown equally often, towards 1 if few "
    "take every place. Novelty: mean self-information of the items in bits. Popularity lift: how many times as popular "
    "as the users' own histories."
)
POINTS = 200
"""Of a curve, at most."""


def section(context: Context) -> Section:
    """Shares by popularity group, exposure of items, and the figures; or what is lacking."""
    blocks: list[Block] = []
    if context.data is None:
        return Section("popularity", "Popularity", LEAD, [Missing(context.data_problem)])
    lists = {run.label: items for run in context.runs if (items := _lists(context, run)) is not None}
    counts = training_events(context.data.bundle, *context.data.split.train_ranges(context.data.bundle)).counts()
    blocks.append(Pictures([_groups(context, context.data, counts, lists), *_exposure(context, counts, lists)]))
    if lists:
        blocks += [_table(context, context.data, counts, lists), Paragraph(READING, "note")]
    blocks += evaluate_again("lists", [run for run in context.runs if run.label not in lists], context.part)
    return Section("popularity", "Popularity", LEAD, blocks)


def _lists(context: Context, run: ReportedRun) -> Ints | None:
    """``(C, K)`` the first K items of every example, ``PAD`` where a list is shorter."""
    frame = lists_of(run, context.part)
    if frame is None:
        return None
    lists = np.full((frame.height, context.k), PAD, dtype=np.int64)
    for row, items in enumerate(frame["items"].list.head(context.k)):
        lists[row, : len(items)] = items.to_numpy()
    return lists


def _groups(context: Context, data: Data, counts: Ints, lists: dict[str, Ints]) -> Picture:
    """Shares of the popularity groups among the items of histories, targets and lists."""
    group_of = popularity_groups(counts).tolist()
    names = [name for name in GROUPS if name in group_of]
    groups = np.array([names.index(name) for name in group_of])
    items_of = {"histories": _history_items(data), "truth": np.asarray(data.bundle.items)[data.examples.target_rows]}
    items_of |= {label: items[items != PAD] for label, items in lists.items()}
    shares = [np.bincount(groups[items], minlength=len(names)) / max(len(items), 1) for items in items_of.values()]
    parts = [(f"{name} ({group_of.count(name):,} items)", GROUPS[name]) for name in names]
    rows = [context.row(label, *(f"{share:.1%}" for share in row)) for label, row in zip(items_of, shares, strict=True)]
    title = f"Popularity of what is recommended, first {context.k}"
    return context.figures.picture(
        "popularity-groups", title,
        f"Shares of {', '.join(names)} items in the histories, among the true next items, and in the lists.",
        stacked_shares(list(items_of), parts, np.array(shares)), Table(title, ["items of", *names], rows),
        rows_height(len(items_of)),
    )  # fmt: skip


def _history_items(data: Data) -> Ints:
    """The items of all events that precede a target."""
    return np.asarray(data.bundle.items)[inside(data.examples.starts, data.examples.ends, data.bundle.n_interactions)]


def _exposure(context: Context, counts: Ints, lists: dict[str, Ints]) -> list[Picture]:
    """Lorenz curves of how often items are recommended, beside that of the training events."""
    if not lists:
        return []
    lines = [
        _lorenz(context.styles[label], np.bincount(items[items != PAD], minlength=len(counts)))
        for label, items in lists.items()
    ]
    events = _lorenz(LineStyle("training events", MUTED, "", (0, (1, 1.5))), counts)
    picture = context.figures.picture(
        "popularity-exposure", "How recommendations are spread over the catalogue",
        "Lorenz curves: the share of all recommendations that the least recommended share of items gets. On the "
        "diagonal all items would be shown equally often; a curve at the bottom is a few items taking every place.",
        against_diagonal([*lines, events], "share of items, rarest first", "share of recommendations"),
    )  # fmt: skip
    return [picture]


def _lorenz(style: LineStyle, exposure: Ints) -> Curve:
    # Cumulative share of the items in ascending order of exposure, at most at POINTS numbers of items.
    total = np.concatenate([[0.0], np.cumsum(np.sort(exposure))]) / max(exposure.sum(), 1)
    n_items = np.unique(np.linspace(0, len(exposure), POINTS).round().astype(np.int64))
    return Curve(style, (n_items / len(exposure)).tolist(), total[n_items].tolist())


def _table(context: Context, data: Data, counts: Ints, lists: dict[str, Ints]) -> Table:
    """Metrics beyond accuracy, from the lists."""
    k, popularity = context.k, history_popularity(data.bundle, data.examples, counts)
    names = [f"{name}@{k}" for name in ("coverage", "gini", "novelty", "popularity_lift")]
    rows = []
    for label, items in lists.items():
        figures = {**beyond_accuracy(items, [k], counts, popularity), f"coverage@{k}": coverage(items, k, len(counts))}
        rows.append(context.row(label, *(f"{figures[name]:.3f}" if name in figures else "" for name in names)))
    return Table(f"Beyond accuracy at {k}, {context.part}", ["run", *map(metric_title, names)], rows)

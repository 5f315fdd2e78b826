"""The section on popularity: do the models recommend what everybody knows, and how much of the catalogue is seen?"""

from __future__ import annotations

import numpy as np

from deshi.arrays import Ints
from deshi.baselines.events import training_events
from deshi.data.ranges import inside
from deshi.evaluation.measurement import history_popularity
from deshi.evaluation.slices import popularity_groups
from deshi.metrics.beyond import beyond_accuracy, coverage
from deshi.reporting.blocks import Block, Missing, Picture, Pictures, Row, Section, Table, Text
from deshi.reporting.context import Context, Data, evaluate_again, lists_of, title_of
from deshi.reporting.drawing import COLORS, MUTED, Pen
from deshi.reporting.figures import Curve, against_diagonal, rows_height, stacked_shares
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
        blocks += [_table(context, context.data, counts, lists), Text(READING, "note")]
    blocks += evaluate_again("lists", [m for m in context.models if m.label not in lists], context.part)
    return Section("popularity", "Popularity", LEAD, blocks)


def _lists(context: Context, label: str) -> Ints | None:
    """``(C, K)`` the first K items of every example, ``PAD`` where a list is shorter."""
    model = next(model for model in context.models if model.label == label)
    frame = lists_of(model, context.part)
    if frame is None:
        return None
    found = np.full((frame.height, context.k), PAD, dtype=np.int64)
    for row, items in enumerate(frame["items"].list.head(context.k)):
        found[row, : len(items)] = items.to_numpy()
    return found


def _groups(context: Context, data: Data, counts: Ints, lists: dict[str, Ints]) -> Picture:
    named = popularity_groups(counts).tolist()
    names = [name for name in GROUPS if name in named]
    groups = np.array([names.index(name) for name in named])
    shown = {"histories": _history_items(data), "truth": np.asarray(data.bundle.items)[data.examples.target_rows]}
    shown |= {label: found[found != PAD] for label, found in lists.items()}
    held = [np.bincount(groups[items], minlength=len(names)) / max(len(items), 1) for items in shown.values()]
    parts = [(f"{name} ({named.count(name):,} items)", GROUPS[name]) for name in names]
    rows = [
        Row(label, [f"{share:.1%}" for share in row], context.color(label))
        for label, row in zip(shown, held, strict=True)
    ]
    title = f"Popularity of what is recommended, first {context.k}"
    return context.studio.picture(
        "popularity-groups", title,
        f"Shares of {', '.join(names)} items in the histories, among the true next items, and in the lists.",
        stacked_shares(list(shown), parts, np.array(held)), Table(title, ["items of", *names], rows),
        rows_height(len(shown)),
    )  # fmt: skip


def _history_items(data: Data) -> Ints:
    """The items of all events that precede a target."""
    return np.asarray(data.bundle.items)[inside(data.examples.starts, data.examples.ends, data.bundle.n_interactions)]


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
        against_diagonal([*shown, events], "share of items, rarest first", "share of recommendations"),
    )  # fmt: skip
    return [picture]


def _lorenz(pen: Pen, exposure: Ints) -> Curve:
    total = np.concatenate([[0.0], np.cumsum(np.sort(exposure))]) / max(exposure.sum(), 1)
    places = np.unique(np.linspace(0, len(exposure), POINTS).round().astype(np.int64))
    return Curve(pen, (places / len(exposure)).tolist(), total[places].tolist())


def _table(context: Context, data: Data, counts: Ints, lists: dict[str, Ints]) -> Table:
    """Computed here from the lists, so that evaluations made before these metrics existed have them too."""
    k, popularity = context.k, history_popularity(data.bundle, data.examples, counts)
    found = {
        label: beyond_accuracy(items, [k], counts, popularity) | {f"coverage@{k}": coverage(items, k, len(counts))}
        for label, items in lists.items()
    }
    names = ("coverage", "gini", "novelty", "popularity_lift")
    rows = [
        Row(
            label,
            [f"{figures[f'{name}@{k}']:.3f}" if f"{name}@{k}" in figures else "" for name in names],
            context.color(label),
        )
        for label, figures in found.items()
    ]
    columns = ["run", *(title_of(f"{name}@{k}") for name in names)]
    return Table(f"Beyond accuracy at {k}, {context.part}", columns, rows)

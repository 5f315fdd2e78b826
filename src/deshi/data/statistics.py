"""Statistics of a data set: figures, a table, and a picture of its length and popularity distributions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deshi.arrays import count_codes, row_blocks

LENGTH_QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1.0}
DAY_MS = 86_400_000
MANY_TIES = 0.5
"""The share of ties with the previous event above which the order of histories is called arbitrary."""
MANY_ROWS = 0.5
"""The share of items with a row in the item table below which a warning says so."""
MANY_REPEATS = 0.05
"""Share of repeated last events from which leaving seen items out is a decision to take."""


def compute(
    offsets: np.ndarray,
    items: np.ndarray,
    timestamps: np.ndarray,
    n_items: int,
    time_unit: str,
    item_rows: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """The figures of a bundle's arrays.

    Args:
        offsets: ``(n_users + 1,)`` flat positions.
        items: ``(n,)`` item indices.
        timestamps: ``(n,)`` milliseconds or positions.
        n_items: size of the vocabulary.
        time_unit: ``ms`` or ``position``.
        item_rows: as of :func:`deshi.data._item_rows.count_item_rows`; None without an item table.

    Returns:
        JSON-able; ``repeated_pairs`` counts events whose user had the item before, ``repeated_last_events`` those that
        end a history of three events or more, leave-one-out's test targets; ``tied_timestamps_share`` is the share of
        events with the same timestamp as a neighbour in their history, ``tied_with_previous_share`` that of events with
        the same timestamp as the one before, among those that have one.
    """
    lengths = np.diff(offsets)
    popularity = count_codes(items, n_items)
    repeated = repeated_last = 0
    for users in row_blocks(offsets):  # a few users at a time: temporary arrays of all events would take gigabytes
        first, last = int(offsets[users.start]), int(offsets[users.stop])
        part = offsets[users.start : users.stop + 1] - first, items[first:last]
        repeated += _repeated_pairs(*part, n_items)
        repeated_last += _repeated_last_events(*part)
    n_long = int((lengths >= 3).sum())
    return {
        "users": len(lengths),
        "items": n_items,
        "interactions": len(items),
        "density": len(items) / (len(lengths) * n_items),
        "length_mean": float(lengths.mean()),
        "length": {name: float(np.quantile(lengths, share)) for name, share in LENGTH_QUANTILES.items()},
        "popularity_gini": gini(popularity),
        "repeated_pairs": repeated,
        "repeated_pairs_share": repeated / len(items),
        "repeated_last_events": repeated_last,
        "repeated_last_events_share": repeated_last / n_long if n_long else 0.0,
        "tied_timestamps_share": float(_tied(offsets, timestamps).mean()),
        "tied_with_previous_share": float(
            _same_as_previous(offsets, timestamps).sum() / max(len(items) - len(lengths), 1)
        ),
        "item_rows": item_rows,
        "time": _span(timestamps) if time_unit == "ms" else None,
    }


def gini(counts: np.ndarray) -> float:
    """The Gini coefficient of non-negative counts: 0 if all are equal, towards 1 if one has everything."""
    ordered, size = np.sort(counts).astype(np.float64), len(counts)
    ranks = np.arange(1, size + 1)
    return float((2 * ranks - size - 1) @ ordered / (size * ordered.sum()))


def rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures as labels and formatted values, for any kind of table."""
    lengths = figures["length"]
    time = figures["time"]
    item_rows = figures["item_rows"]
    matches = f"{item_rows['with_row']:,} of {figures['items']:,}" if item_rows else "there is no item table"
    if item_rows and item_rows["rows_without_events"]:
        matches += f"; {item_rows['rows_without_events']:,} rows of items without events were left out"
    return [
        ("users", f"{figures['users']:,}"),
        ("items", f"{figures['items']:,}"),
        ("interactions", f"{figures['interactions']:,}"),
        ("density", f"{figures['density']:.4%}"),
        ("length of a history, mean", f"{figures['length_mean']:.1f}"),
        (f"length, {' / '.join(lengths)}", " / ".join(f"{value:g}" for value in lengths.values())),
        ("popularity, Gini", f"{figures['popularity_gini']:.3f}"),
        ("repeated user-item pairs", f"{figures['repeated_pairs']:,} ({figures['repeated_pairs_share']:.2%})"),
        (
            "last events that repeat an item (test targets of leave-one-out)",
            f"{figures['repeated_last_events']:,} ({figures['repeated_last_events_share']:.2%})",
        ),
        ("events with a tied timestamp", f"{figures['tied_timestamps_share']:.2%}"),
        ("items with a row in the item table", matches),
        (
            "time",
            f"{time['first'][:10]} to {time['last'][:10]} ({time['days']:,.0f} days)" if time else "positions only",
        ),
    ]


def warnings(figures: dict[str, Any]) -> list[str]:
    """Sentences on what makes the data set doubtful."""
    sentences = []
    if figures["tied_with_previous_share"] > MANY_TIES:
        sentences.append(
            f"{figures['tied_with_previous_share']:.0%} of events have the same time as the user's previous "
            f"one. Their order is only that of the file, so the last event, which leave-one-out holds out, is arbitrary"
            f" among them. Use finer times, or a temporal split."
        )
    item_rows = figures["item_rows"]
    if item_rows and item_rows["with_row"] < MANY_ROWS * figures["items"]:
        sentences.append(
            f"Only {item_rows['with_row']:,} of {figures['items']:,} items have a row in the item table; the "
            f"others have no title and no text."
        )
    return sentences


def repeats_sentence(figures: dict[str, Any]) -> str | None:
    """What many repeated last events mean for training and evaluation; None if they are few."""
    share = figures["repeated_last_events_share"]
    if share < MANY_REPEATS:
        return None
    return (
        f"{share:.0%} of the last events are items that their user had before: a list without seen items can't hold "
        "them. Set eval.filter_seen=false in fit and evaluate to rank and serve seen items too, or "
        "data.filters.duplicates=first here to keep an item's first event only."
    )


def draw(path: Path, lengths: np.ndarray, popularity: np.ndarray, title: str) -> None:
    """Draw the distributions of history lengths and item popularity as a PNG; same input, same bytes."""
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.style.context("default"):
        figure = Figure(figsize=(10, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        shortest, longest = int(lengths.min()), int(lengths.max())
        edges = np.unique(np.geomspace(max(shortest, 1), longest + 1, 40).astype(np.int64))
        left.hist(lengths, bins=edges if len(edges) > 1 else 1, color="#33658a")
        left.set(xscale="log", xlabel="history length (events)", ylabel="users", title="History lengths")
        right.plot(np.arange(1, len(popularity) + 1), np.sort(popularity)[::-1], color="#f26419")
        right.set(xscale="log", yscale="log", xlabel="item's popularity rank", ylabel="interactions")
        right.set_title("Item popularity")
        figure.suptitle(title)
        FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})


def _repeated_pairs(offsets: np.ndarray, items: np.ndarray, n_items: int) -> int:
    pairs = np.repeat(np.arange(len(offsets) - 1, dtype=np.int64) * n_items, np.diff(offsets))
    pairs += items
    pairs.sort()
    return int((pairs[1:] == pairs[:-1]).sum())


def _same_as_previous(offsets: np.ndarray, timestamps: np.ndarray) -> np.ndarray:
    """``(n - 1,)`` whether each event but the first has the time of the one before, of the same user."""
    same: np.ndarray = timestamps[1:] == timestamps[:-1]
    same[offsets[1:-1] - 1] = False
    return same


def _repeated_last_events(offsets: np.ndarray, items: np.ndarray) -> int:
    """Number of histories of three events or more whose last item is among the earlier ones."""
    last = np.repeat(items[offsets[1:] - 1], np.diff(offsets))
    repeated = np.add.reduceat((items == last).astype(np.int64), offsets[:-1]) > 1
    return int(repeated[np.diff(offsets) >= 3].sum())


def _tied(offsets: np.ndarray, timestamps: np.ndarray) -> np.ndarray:
    same = _same_as_previous(offsets, timestamps)
    tied = np.zeros(len(timestamps), dtype=bool)
    tied[1:] |= same
    tied[:-1] |= same
    return tied


def _span(timestamps: np.ndarray) -> dict[str, Any]:
    first, last = int(timestamps.min()), int(timestamps.max())
    iso = [str(np.datetime64(moment, "ms").astype("datetime64[s]")) for moment in (first, last)]
    return {"first": iso[0], "last": iso[1], "days": (last - first) / DAY_MS}

"""Checks of interactions, targets and training data from files: order, repetition, leaks, cold items."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from deshi.arrays import Bools, Ints
from deshi.auditing._finding import Finding, count, finding
from deshi.auditing._pair_data import Pair, far_higher, sorted_events


def check_events(pair: Pair) -> Iterator[Finding]:
    """All findings about what happened, as opposed to what was predicted."""
    if pair.timed and not pair.held_out:
        yield from _order(pair)
        yield from _tied(pair)
    yield from _repeated(pair)
    yield from _cold(pair)
    if pair.train is not None:
        yield from _trained_on(pair, pair.train)


def _order(pair: Pair) -> Iterator[Finding]:
    """Histories that go back in time in the file, and whether the lists fit the file's order better."""
    by_file = pair.interactions.sort("user", maintain_order=True)
    back = by_file.filter(pl.col("time").diff().over("user") < 0)
    if back.is_empty():
        return
    newest_line = by_file.group_by("user", maintain_order=True).agg(pl.col("item").last())
    last = newest_line.filter(pl.col("user").is_in(pair.examples.users.tolist()))["item"].to_numpy()
    other = pair.lists.ranks_of(pair.examples.users, last)
    used = far_higher(other, pair.ranks)
    line_of = pair.tables["interactions"].location
    yield finding(
        "history-unsorted",
        f"{count(back['user'].n_unique(), pair.n_known_users, 'users')} have events that go back in time in the file"
        + ("; the lists were made for each user's last line, not for the newest event." if used else "."),
        (f"user {pair.user_id(user)}, {line_of(line)}" for user, line in back.select("user", "line").iter_rows()),
        f"{int((last != pair.targets).sum()):,} users' last line is not their newest event: {pair.figure(pair.ranks)} "
        f"against the newest event, {pair.figure(other)} against the last line.",
        "Sort each user's events by timestamp before the split."
        if used
        else "Nothing to fix if the other tool sorts by timestamp as the audit does.",
        "error" if used else "note",
    )


def _tied(pair: Pair) -> Iterator[Finding]:
    """Targets with the timestamp of the event before: which of them is the last is the sort's choice."""
    times, rows = pair.bundle.timestamps, pair.examples.target_rows
    tied = np.flatnonzero(times[rows] == times[rows - 1])
    if not len(tied):
        return
    yield finding(
        "order-of-targets-tied",
        f"{count(len(tied), len(rows), 'targets')} have the same timestamp as the event before; "
        "the audit takes the later line as the last event.",
        pair.targets_at(tied),
        f"{pair.figure(pair.ranks[tied])} on these targets, {pair.figure(np.delete(pair.ranks, tied))} on the others; "
        "another tie rule would ask for other items.",
        "Keep the original order of the rows on equal timestamps, and use the same tie rule in every tool; "
        "or give the targets: test=FILE.",
    )


def _repeated(pair: Pair) -> Iterator[Finding]:
    """The same event more than once: same user, item and time, or directly after itself where there are no times."""
    events = sorted_events(pair.interactions)
    if pair.timed:
        again = ~pl.struct("user", "item", "time").is_first_distinct()
    else:
        again = (pl.col("item") == pl.col("item").shift(1).over("user")).fill_null(False)
    is_target = pl.col("line").is_in([] if pair.held_out else pair.lines[pair.examples.target_rows].tolist())
    repeated = events.filter(again).with_columns(is_target.alias("is_target"))
    if repeated.is_empty():
        return
    doubled = repeated.filter("is_target")
    clean = ~np.isin(pair.target_users, doubled["user"].to_numpy())
    yield finding(
        "events-repeated",
        f"{count(repeated.height, events.height, 'interactions')} repeat another one (same user and item"
        f"{', same timestamp' if pair.timed else ', directly after it'}).",
        pair.rows_at("interactions", repeated.sort("is_target", descending=True, maintain_order=True)),
        f"{count(doubled.height, len(pair.targets), 'targets')} stand in their own history; "
        f"{pair.figure(pair.ranks)} with all users, {pair.figure(pair.ranks[clean])} without those.",
        "Drop repeated rows before the split; look for a file that was appended or joined twice.",
        "error" if doubled.height else None,
    )


def _cold(pair: Pair) -> Iterator[Finding]:
    items = pair.history[1] if pair.train is None else pair.train["item"].to_numpy()
    is_cold = ~np.isin(pair.targets, items)
    cold = np.flatnonzero(is_cold)
    if not len(cold):
        return
    where = "the histories of all users" if pair.train is None else "the training data"
    yield finding(
        "cold-targets",
        f"{count(len(cold), len(is_cold), 'targets')} are items that {where} don't have.",
        pair.targets_at(cold),
        f"A model that knows items by their ids can reach {pair.measure()} {1 - len(cold) / len(is_cold):.4f} at most; "
        f"on these targets {pair.figure(pair.ranks[is_cold])}, on the others {pair.figure(pair.ranks[~is_cold])}.",
        "Report them as a slice of their own, or leave rare items out before the split.",
        "warning" if len(cold) > max(5, 0.1 * len(is_cold)) else None,
    )


def _trained_on(pair: Pair, train: pl.DataFrame) -> Iterator[Finding]:
    """Targets among the training rows. Only events beyond those of the history count: items may be consumed again."""
    history = _keys(pair, *pair.history)
    leaked = _beyond_history(pair, train, pair.target_users, pair.targets, history)
    if leaked.any():
        others = pair.ranks[~leaked]
        yield finding(
            "test-target-trained-on",
            f"{count(int(leaked.sum()), len(leaked), 'targets')} are among the training events of their users.",
            pair.targets_at(np.flatnonzero(leaked)),
            f"{pair.figure(pair.ranks[leaked])} on these targets, "
            + (f"{pair.figure(others)} on the others." if len(others) else "and there are no others."),
            "Take the targets out of the training file and train again.",
        )
    if not pair.held_out:
        yield from _validation_trained_on(pair, train, history)
    users = pair.examples.users
    absent = np.setdiff1d(users, train["user"].to_numpy())
    if len(absent):
        inside = ~np.isin(pair.target_users, absent)
        yield finding(
            "users-not-trained",
            f"{count(len(absent), len(users), 'users')} with a target have no training events.",
            pair.users_named(absent),
            f"{pair.figure(pair.ranks[~inside])} for them, {pair.figure(pair.ranks[inside])} for the others.",
            "Nothing to fix if the model is meant for new users; else look for a filter or an id mapping.",
        )


def _validation_trained_on(pair: Pair, train: pl.DataFrame, history: Ints) -> Iterator[Finding]:
    """The event before the target among the training rows: harmless after a refit, a leak before selection."""
    users, (rows, items) = pair.examples.users, pair.before_target(1)
    # that event itself is part of the history, and doesn't explain its being trained on
    leaked = np.flatnonzero(_beyond_history(pair, train, users, items, history, spared=1))
    if not len(leaked):
        return
    where = pl.DataFrame({"user": users[leaked], "item": items[leaked], "line": pair.lines[rows[leaked]]})
    yield finding(
        "validation-target-trained-on",
        f"{count(len(leaked), len(users), 'events')} before the target are among the training events.",
        pair.rows_at("interactions", where),
        f"Validation figures of that model are of events that it has learned by heart, and selection by them means "
        f"nothing; the lists have {pair.figure(pair.lists.ranks_of(users, items))} for them, {pair.figure(pair.ranks)} "
        "for the targets.",
        "Train on all but the last two events until the model is selected. If this is the final model, retrained on "
        "training and validation for a number of epochs chosen before, all is well.",
        "warning",
    )


def _keys(pair: Pair, users: Ints, items: Ints) -> Ints:
    """One sorted number for each event's user and item."""
    return np.sort(users * pair.bundle.n_items + items)


def _beyond_history(pair: Pair, train: pl.DataFrame, users: Ints, items: Ints, history: Ints, spared: int = 0) -> Bools:
    """Whether ``train`` has a user's item more often than the history, of which ``spared`` events don't count."""
    trained = _keys(pair, train["user"].to_numpy(), train["item"].to_numpy())
    keys = users * pair.bundle.n_items + items
    times = [np.searchsorted(rows, keys, "right") - np.searchsorted(rows, keys, "left") for rows in (trained, history)]
    more: Bools = times[0] > times[1] - spared
    return more

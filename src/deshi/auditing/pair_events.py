"""Checks of an outsider's interactions, targets and training data: order, repetition, leaks, cold items."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deshi.arrays import Bools, Ints
from deshi.auditing.finding import Finding, count, finding
from deshi.auditing.pair_data import Events, Pair, far_higher


def check_events(pair: Pair) -> Iterator[Finding]:
    """All findings about what happened, as opposed to what was predicted."""
    yield from _order(pair)
    yield from _tied(pair)
    yield from _repeated(pair)
    yield from _cold(pair)
    if pair.train is not None:
        yield from _trained_on(pair, pair.train)


def _order(pair: Pair) -> Iterator[Finding]:
    """Histories that go back in time in the file, and whether the lists fit the file's order better."""
    events = pair.events
    if events.time is None or pair.held_out:
        return
    before = events.take(np.ones(len(events.user), dtype=bool))
    by_file = Events.of(before.user, before.item, before.line, before.time, len(pair.users), by_time=False)
    times = np.asarray(by_file.time, dtype=np.float64)
    back = np.flatnonzero((by_file.user[1:] == by_file.user[:-1]) & (times[1:] < times[:-1])) + 1
    if not len(back):
        return
    users, line_of = np.unique(by_file.user[back]), pair.places["interactions"]
    last = by_file.items_at(by_file.from_end(pair.example_user, 0))
    other = pair.lists.ranks_of(pair.example_user, last)
    used = far_higher(other, pair.ranks)
    changed = int((last != pair.target).sum())
    yield finding(
        "history-unsorted",
        f"{count(len(users), pair.users.known, 'users')} have events that go back in time in the file"
        + ("; the lists were made for each user's last line, not for the newest event." if used else "."),
        (f"user {pair.users.names[by_file.user[row]]}, {line_of(int(by_file.line[row]))}" for row in back),
        f"{changed:,} users' last line is not their newest event: {pair.figure(pair.ranks)} against the newest event, "
        f"{pair.figure(other)} against the last line.",
        "Sort each user's events by timestamp before the split."
        if used
        else "Nothing to fix if the other tool sorts by timestamp as the audit does.",
        "error" if used else "note",
    )  # fmt: skip


def _tied(pair: Pair) -> Iterator[Finding]:
    """Targets with the timestamp of the event before: which of them is the last is the sort's choice."""
    events = pair.events
    if events.time is None or pair.held_out:
        return
    last, previous = events.from_end(pair.example_user, 0), events.from_end(pair.example_user, 1)
    tied = np.flatnonzero(events.time[last] == events.time[previous])
    if not len(tied):
        return
    yield finding(
        "order-of-targets-tied",
        f"{count(len(tied), len(pair.example_user), 'targets')} have the same timestamp as the event before; "
        "the audit takes the later line as the last event.",
        pair.where(tied),
        f"{pair.figure(pair.ranks[tied])} on these targets, {pair.figure(np.delete(pair.ranks, tied))} on the others; "
        "another tie rule would ask for other items.",
        "Keep the original order of the rows on equal timestamps, and use the same tie rule in every tool; "
        "or give the targets: test=FILE.",
    )


def _repeated(pair: Pair) -> Iterator[Finding]:
    """The same event more than once: same user, item and time, or directly after itself where there are no times."""
    events = pair.events
    same = (events.user[1:] == events.user[:-1]) & (events.item[1:] == events.item[:-1])
    if events.time is not None:
        order = np.lexsort((events.item, events.time, events.user))
        time = np.asarray(events.time)[order]
        same = (events.user[order][1:] == events.user[order][:-1]) & (events.item[order][1:] == events.item[order][:-1])
        same &= time[1:] == time[:-1]
        rows = np.sort(order[1:][same])
    else:
        rows = np.flatnonzero(same) + 1
    if not len(rows):
        return
    doubled = np.isin(events.line[rows], pair.target_line) if not pair.held_out else np.zeros(len(rows), dtype=bool)
    targets = int(doubled.sum())
    clean = ~np.isin(pair.target_user, events.user[rows[doubled]])
    yield finding(
        "events-repeated",
        f"{count(len(rows), len(events.user), 'interactions')} repeat another one (same user and item"
        f"{', same timestamp' if events.time is not None else ', directly after it'}).",
        pair.where_event(rows[np.argsort(~doubled, kind="stable")]),
        f"{count(targets, len(pair.target), 'targets')} stand in their own history; "
        f"{pair.figure(pair.ranks)} with all users, {pair.figure(pair.ranks[clean])} without those.",
        "Drop repeated rows before the split; look for a file that was appended or joined twice.",
        "error" if targets else None,
    )


def _cold(pair: Pair) -> Iterator[Finding]:
    source = pair.history if pair.train is None else pair.train
    cold = np.flatnonzero(np.bincount(source.item, minlength=len(pair.items))[pair.target] == 0)
    if not len(cold):
        return
    where = "the histories of all users" if pair.train is None else "the training data"
    yield finding(
        "cold-targets",
        f"{count(len(cold), len(pair.target), 'targets')} are items that {where} don't have.",
        pair.where(cold),
        f"A model that knows items by their ids can reach a hit rate of at most "
        f"{1 - len(cold) / len(pair.target):.4f}; on these targets {pair.figure(pair.ranks[cold])}, on the others "
        f"{pair.figure(np.delete(pair.ranks, cold))}.",
        "Report them as a slice of their own, or leave rare items out before the split.",
        "warning" if len(cold) > max(5, 0.1 * len(pair.target)) else None,
    )


def _trained_on(pair: Pair, train: Events) -> Iterator[Finding]:
    """Targets among the training rows. Only events beyond those of the history count: items may be consumed again."""
    leaked = _beyond_history(pair, train, pair.target_user, pair.target, pair.history)
    rows = np.flatnonzero(leaked)
    if len(rows):
        rest = pair.ranks[~leaked]
        yield finding(
            "test-target-trained-on",
            f"{count(len(rows), len(pair.target), 'targets')} are among the training events of their users.",
            pair.where(rows),
            f"{pair.figure(pair.ranks[leaked])} on these targets, "
            + (f"{pair.figure(rest)} on the others." if len(rest) else "and there are no others."),
            "Take the targets out of the training file and train again.",
        )
    if not pair.held_out:
        yield from _validation_trained_on(pair, train)
    absent = np.setdiff1d(pair.example_user, train.user)
    if len(absent):
        inside = ~np.isin(pair.target_user, absent)
        yield finding(
            "users-not-trained",
            f"{count(len(absent), len(pair.example_user), 'users')} with a target have no training events.",
            pair.names(absent),
            f"{pair.figure(pair.ranks[~inside])} for them, {pair.figure(pair.ranks[inside])} for the others.",
            "Nothing to fix if the model is meant for new users; else look for a filter or an id mapping.",
            "note",
        )


def _validation_trained_on(pair: Pair, train: Events) -> Iterator[Finding]:
    """The event before the target among the training rows: harmless after a refit, a leak before selection."""
    history = pair.history
    rows = history.from_end(pair.example_user, 0)
    items = history.items_at(rows)
    keep = np.ones(len(history.user), dtype=bool)
    keep[rows] = False
    leaked = np.flatnonzero(_beyond_history(pair, train, pair.example_user, items, history.take(keep)))
    if not len(leaked):
        return
    ranks = pair.lists.ranks_of(pair.example_user, items)
    yield finding(
        "validation-target-trained-on",
        f"{count(len(leaked), len(pair.example_user), 'events')} before the target are among the training events.",
        (
            f"user {pair.users.names[pair.example_user[one]]}, item {pair.items.names[items[one]]}, "
            f"{pair.places['interactions'](int(history.line[rows[one]]))}"
            for one in leaked
        ),
        f"Validation figures of that model are of events that it has learned by heart, and selection by them means "
        f"nothing; the lists have {pair.figure(ranks)} for them, {pair.figure(pair.ranks)} for the targets.",
        "Train on all but the last two events until the model is selected. If this is the final model, retrained on "
        "training and validation for a number of epochs chosen before, all is well.",
        "warning",
    )


def _beyond_history(pair: Pair, train: Events, users: Ints, items: Ints, history: Events) -> Bools:
    """Whether ``train`` has a user's item more often than ``history`` has."""
    width = len(pair.items)
    wanted = users * width + items
    found: Bools = _times(train, width, wanted) > _times(history, width, wanted)
    return found


def _times(events: Events, width: int, wanted: Ints) -> Ints:
    keys = np.sort(events.user * width + events.item)
    times: Ints = np.searchsorted(keys, wanted, "right") - np.searchsorted(keys, wanted, "left")
    return times

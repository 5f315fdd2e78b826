"""Checks of an outsider's lists as such: who has one, what is in it, and whether its scores order it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deshi.arrays import Floats, Ints
from deshi.auditing.finding import Finding, count, finding
from deshi.auditing.pair_data import Pair

BATCHES = (2048, 1024, 1000, 512, 500, 256, 250, 200, 128, 100, 64, 50, 32, 16)
"""Usual batch sizes."""


def check_lists(pair: Pair) -> Iterator[Finding]:
    """All findings about the predictions that no target is needed for."""
    yield from _missing_users(pair)
    yield from _unknown(pair)
    yield from _repeated(pair)
    yield from _not_numbers(pair)
    yield from _ties(pair)
    yield from _rank_column(pair)
    yield from _same_for_all(pair)


def orders(names: list[str]) -> dict[str, Ints]:
    """Usual orders of ids, each as the numbers of the ids in that order."""
    found = {"order of first appearance": np.arange(len(names)), "alphabetical order": np.argsort(np.array(names))}
    numbers = numeric(names)
    if numbers is not None:
        found["order of their numbers"] = np.argsort(numbers, kind="stable")
    return found


def numeric(names: list[str]) -> Ints | None:
    """The ids as whole numbers, if they all are."""
    if not all(name.removeprefix("-").isdecimal() and len(name) < 18 for name in names):
        return None
    return np.array([int(name) for name in names], dtype=np.int64)


def _missing_users(pair: Pair) -> Iterator[Finding]:
    missing = pair.example_user[pair.lists.lengths[pair.example_user] == 0]
    if not len(missing):
        return
    listed = len(pair.example_user) - len(missing)
    inside = pair.lists.lengths[pair.target_user] > 0
    effect = (
        f"{pair.figure(pair.ranks)} when they count as misses, {pair.figure(pair.ranks[inside])} over the users with "
        "predictions."
    )
    for name, order in orders(pair.users.names).items():
        asked = order[np.isin(order, pair.example_user)]
        if set(asked[listed:]) != set(missing):
            continue
        sizes = [size for size in BATCHES if listed % size == 0 and len(missing) < size]
        if sizes:
            yield finding(
                "last-batch-dropped",
                f"{count(len(missing), len(pair.example_user), 'users')} have no predictions: the last ones in the "
                f"{name}, and the other {listed:,} fill batches of {' or '.join(map(str, sizes))}.",
                pair.names(asked[listed:]),
                effect,
                "Evaluate with drop_last=False.",
            )
            return
    yield finding(
        "user-not-evaluated",
        f"{count(len(missing), len(pair.example_user), 'users')} with a target have no predictions.",
        pair.names(missing),
        effect,
        "Export a list for every user with a target; a user without one is a miss, not an exception.",
        None if len(missing) > 0.01 * len(pair.example_user) else "warning",
    )


def _unknown(pair: Pair) -> Iterator[Finding]:
    predicted = pair.predicted
    strange = predicted.user >= pair.users.known
    if pair.held_out:
        strange &= ~np.isin(predicted.user, pair.example_user)
    users = np.unique(predicted.user[strange])
    if len(users):
        yield finding(
            "unknown-users",
            f"{count(len(users), len(np.unique(predicted.user)), 'users')} of the predictions are not in the "
            "interactions.",
            pair.where_predicted(np.flatnonzero(strange)),
            f"{int(strange.sum()):,} of {len(strange):,} rows are not used.",
            "Check that both files come from the same data set and write ids in the same way.",
        )
    strange = predicted.item >= pair.items.known
    if pair.held_out or pair.train is not None:
        known = pair.target if pair.train is None else np.concatenate([pair.target, pair.train.item])
        strange &= ~np.isin(predicted.item, known)
    items = np.unique(predicted.item[strange])
    if len(items):
        top = pair.lists.item[pair.lists.best <= pair.head]
        spoiled = float(np.isin(top, items).mean())
        yield finding(
            "unknown-items",
            f"{count(len(items), len(np.unique(predicted.item)), 'items')} of the predictions are not in the "
            "interactions.",
            pair.where_predicted(np.flatnonzero(strange)),
            f"{count(int(strange.sum()), len(strange), 'rows')} can't hit any target; they take "
            f"{100 * spoiled:.3g} % of the best {pair.head} places.",
            "Items that nobody has had yet are harmless. Else check that items are written as original ids, not as "
            "indices of the model, and that padding and mask tokens are left out.",
            None if spoiled > 0.02 else "note",
        )


def _repeated(pair: Pair) -> Iterator[Finding]:
    if not len(pair.repeated):
        return
    rows = np.flatnonzero(np.isin(pair.predicted.line, pair.repeated))
    extra = np.bincount(pair.predicted.user[rows], minlength=len(pair.users))
    twice = np.flatnonzero((extra > 0) & (extra >= pair.lists.lengths))
    what = f"{count(len(rows), len(pair.predicted.line), 'rows')} repeat an item that the user's list has already"
    raw = _ranks_with_repeats(pair)
    effect = f"{pair.figure(pair.ranks)} with each item once, {pair.figure(raw)} when repeats take places of their own."
    if len(twice):
        yield finding(
            "user-evaluated-twice",
            f"{what}; {count(len(twice), int((pair.lists.lengths > 0).sum()), 'users')} have their whole list twice.",
            pair.names(twice),
            effect,
            "A distributed sampler pads the last batch with users from the start: drop users that were seen already.",
        )
        return
    targets = np.isin(rows, _rows_of_targets(pair))
    yield finding(
        "predictions-repeated",
        f"{what}; {int(targets.sum()):,} of these are the user's target.",
        pair.where_predicted(rows[np.argsort(~targets, kind="stable")]),
        effect,
        "Keep each item once in a list; candidate sets must be drawn without replacement and without the target.",
    )


def _rows_of_targets(pair: Pair) -> Ints:
    width = len(pair.items)
    wanted = pair.target_user * width + pair.target
    return np.flatnonzero(np.isin(pair.predicted.user * width + pair.predicted.item, wanted))


def _ranks_with_repeats(pair: Pair) -> Floats:
    """The targets' ranks if repeated items took places of their own."""
    lists, repeated = pair.lists, np.isin(pair.predicted.line, pair.repeated)
    rows = lists.rows_of(pair.target_user, pair.target)
    score = np.where(rows >= 0, lists.score[np.maximum(rows, 0)], np.inf)
    own = np.full(len(pair.users), np.inf)
    np.minimum.at(own, pair.target_user, score)
    user, given = pair.predicted.user[repeated], pair.predicted.score[repeated]
    above = np.bincount(user[given > own[user]], minlength=len(pair.users))
    return pair.ranks + above[pair.target_user]


def _not_numbers(pair: Pair) -> Iterator[Finding]:
    score = pair.predicted.score
    empty = np.flatnonzero(np.isnan(score))
    if len(empty):
        users = np.unique(pair.predicted.user[empty])
        touched = np.isin(pair.target_user, users)
        yield finding(
            "nan-scores",
            f"{count(len(empty), len(score), 'scores')} are NaN or empty, in the lists of {len(users):,} users.",
            pair.where_predicted(empty),
            f"A sort may put NaN first or last; the audit puts it last: {pair.figure(pair.ranks[touched])} for the "
            f"users concerned, {pair.figure(pair.ranks[~touched])} for the others.",
            "Look for a diverged model or a division by zero; don't replace NaN by 0.",
        )
    infinite = np.flatnonzero(np.isinf(score))
    if len(infinite):
        above = int((score[infinite] > 0).sum())
        yield finding(
            "infinite-scores",
            f"{count(len(infinite), len(score), 'scores')} are infinite, {above:,} of them on the good side.",
            pair.where_predicted(infinite),
            "They tie with each other"
            + (f" at the top of {len(np.unique(pair.predicted.user[infinite])):,} lists." if above else " at the end."),
            "Leave masked items out of the export; a positive infinity is an overflow.",
            "warning" if above else "note",
        )


def _ties(pair: Pair) -> Iterator[Finding]:
    """Scores that don't tell items apart: whole lists, or around the target."""
    lists = pair.lists
    listed = np.flatnonzero(lists.lengths > 1)
    constant = listed[lists.worst[lists.offsets[listed]] == lists.lengths[listed]]
    luck = lists.ranks_of(pair.target_user, pair.target, lists.best)
    harm = lists.ranks_of(pair.target_user, pair.target, lists.worst)
    tied = np.flatnonzero(luck < harm)
    effect = (
        f"{pair.figure(luck)} with ties counted in favour of the target, {pair.figure(pair.ranks)} by mean rank, "
        f"{pair.figure(harm)} against it."
    )
    fix = "Export scores in full precision; where they are equal all the same, rank by the mean, never in favour."
    if len(constant) > 0.01 * len(listed):
        yield finding(
            "constant-scores",
            f"{count(len(constant), len(listed), 'lists')} give the same score to all of their items.",
            pair.names(constant),
            effect,
            fix,
        )
        return
    spread = pair.hits(luck) - pair.hits(harm)
    if len(tied):
        yield finding(
            "ties-around-target",
            f"{count(len(tied), len(pair.target), 'targets')} share their score with another item of the list.",
            pair.where(tied),
            effect,
            fix,
            "warning" if spread > max(0.02, 0.2 * pair.hits(pair.ranks)) else "note",
        )


def _rank_column(pair: Pair) -> Iterator[Finding]:
    predicted = pair.predicted
    if predicted.rank is None:
        return
    lowest = np.full(len(pair.users), np.inf)
    np.fmin.at(lowest, predicted.user, predicted.rank)
    listed = np.flatnonzero(np.isfinite(lowest))
    wrong = listed[lowest[listed] != 1]
    if len(wrong):
        values, times = np.unique(lowest[wrong], return_counts=True)
        yield finding(
            "ranks-not-from-one",
            f"{count(len(wrong), len(listed), 'lists')} have ranks that begin with {values[times.argmax()]:g}, not 1.",
            pair.names(wrong),
            f"The audit goes by the order alone: {pair.figure(pair.ranks)}. Taken as ranks from 1 it would be "
            f"{pair.figure(pair.ranks - 1 + values[times.argmax()])}.",
            "Count ranks from 1, or check which part of the lists is missing.",
        )
    if not predicted.scored:
        return
    order = np.lexsort((predicted.rank, predicted.user))
    user, score = predicted.user[order], predicted.score[order]
    rises = np.flatnonzero((user[1:] == user[:-1]) & (score[1:] > score[:-1])) + 1
    if len(rises):
        by_rank, _ = type(pair.lists).of(
            predicted.user, predicted.item, -predicted.rank, predicted.line, len(pair.users), len(pair.items)
        )
        other = by_rank.ranks_of(pair.target_user, pair.target)
        yield finding(
            "score-and-rank-disagree",
            f"{count(len(np.unique(user[rises])), len(listed), 'lists')} are ordered differently by score and by rank.",
            pair.where_predicted(order[rises]),
            f"{pair.figure(pair.ranks)} by score, which the audit goes by; {pair.figure(other)} by rank.",
            "Export one of them, or find out which one the other tool ranks by (lower scores better: "
            "columns.higher_is_better=false).",
        )


def _same_for_all(pair: Pair) -> Iterator[Finding]:
    """Neighbours in one list that never stand the other way round in another: one order for everybody."""
    lists = pair.lists
    if (lists.lengths > 0).sum() < 10:
        return
    place = np.arange(len(lists.user)) - lists.offsets[lists.user]
    near = np.flatnonzero((lists.user[1:] == lists.user[:-1]) & (place[1:] < 50))
    first, second = lists.item[near], lists.item[near + 1]
    apart = lists.best[near] < lists.best[near + 1]
    edges = first[apart] * lists.n_items + second[apart]
    if not len(edges) or len(edges) < 2 * len(np.unique(edges)):
        return
    if np.isin(second[apart] * lists.n_items + first[apart], edges).mean() > 0.005:
        return
    yield finding(
        "same-list-for-all",
        f"All {int((lists.lengths > 0).sum()):,} lists have their items in one order, that of "
        f"{', '.join(pair.items.names[item] for item in lists.item[:3])}, ... (without items that the user has).",
        pair.names(np.flatnonzero(lists.lengths > 0)),
        f"Nothing in the lists is personal: {pair.figure(pair.ranks)}.",
        "Nothing to fix for a popularity ranker; else the model ignores the user.",
    )

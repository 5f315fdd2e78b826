"""Do an outsider's lists answer the question? Shifted, permuted, reversed, too early, too good, or chance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deshi.arrays import Floats, Ints
from deshi.auditing.finding import Finding, count, finding
from deshi.auditing.pair_data import NOTHING, Catalogue, Pair, far_higher
from deshi.auditing.pair_lists import numeric, orders

SHIFTS = (-2, -1, 1, 2)


def check_alignment(pair: Pair) -> Iterator[Finding]:
    """Findings that compare the lists with the targets under another reading of ids, order or time."""
    found = [*_items(pair), *_users(pair), *_reversed(pair), *_earlier(pair)]
    yield from found
    if not found:
        yield from _too_good(pair)


def answers(pair: Pair, ranks: Floats, base: Floats) -> bool:
    """Whether ``ranks`` are far better than ``base`` and no worse than what a popularity or a random list gives.

    Where the base has no hits at all, chance hits of another reading would prove nothing.
    """
    lengths = pair.lists.lengths[pair.target_user]
    popular = popularity_ranks(pair)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, lengths.max() + 1))])
    random = float((harmonic[lengths] / pair.items.known).mean())
    bar = max(2 * random, 0.8 * float(np.where(popular <= lengths, 1 / popular, 0.0).mean()))
    return far_higher(ranks, base) and float((1 / ranks).mean()) > bar


def shifted(catalogue: Catalogue, by: int) -> Ints:
    """For every id the number of the id that is greater by ``by``; :data:`NOTHING` if there is none.

    Ids that aren't whole numbers are shifted along the order of their first appearance.
    """
    numbers = numeric(catalogue.names)
    if numbers is None:
        to = np.arange(len(catalogue)) + by
        return np.where((to >= 0) & (to < len(catalogue)), to, NOTHING)
    order = np.argsort(numbers)
    places = np.minimum(np.searchsorted(numbers[order], numbers + by), len(order) - 1)
    return np.where(numbers[order][places] == numbers + by, order[places], NOTHING)


def reorderings(catalogue: Catalogue) -> dict[str, Ints]:
    """For every id the id that stands in its place in another usual order, or its index written as an id."""
    known = catalogue.names[: catalogue.known]
    usual, found = orders(known), {}
    for name, order in usual.items():
        for other, second in usual.items():
            if name != other:
                found[f"the {name} taken for the {other}"] = _mapped(order, second, len(catalogue))
        for first in (0, 1):
            codes = [catalogue.code_of.get(str(place + first), NOTHING) for place in range(len(order))]
            found[f"indices from {first} in the {name} written as ids"] = _mapped(
                order, np.array(codes, dtype=np.int64), len(catalogue)
            )
    return found


def _mapped(order: Ints, labels: Ints, size: int) -> Ints:
    meant = np.full(size, NOTHING)
    meant[order] = labels
    return meant


def _items(pair: Pair) -> Iterator[Finding]:
    ranks = {by: _of_items(pair, shifted(pair.items, by)) for by in SHIFTS}
    best = max(ranks, key=lambda by: float((1 / ranks[by]).mean()))
    if answers(pair, ranks[best], pair.ranks):
        yield finding(
            "items-shifted",
            f"The predicted item ids are {abs(best)} too {'high' if best > 0 else 'low'}: the target's id "
            f"{'plus' if best > 0 else 'minus'} {abs(best)} is hit far more often than the target.",
            pair.where(np.flatnonzero(ranks[best] <= pair.head)),
            f"HR@{pair.head} by shift: " + _by_shift(pair, ranks) + ".",
            "Look for an embedding row or index that is reserved for padding, and add or subtract it once.",
        )
        return
    yield from _permuted(pair, "item")


def _users(pair: Pair) -> Iterator[Finding]:
    ranks = {by: _of_users(pair, shifted(pair.users, by)) for by in SHIFTS}
    best = max(ranks, key=lambda by: float((1 / ranks[by]).mean()))
    if answers(pair, ranks[best], pair.ranks) and far_higher(ranks[best], _of_strangers(pair)):
        yield finding(
            "users-shifted",
            f"The lists are stored under user ids that are {abs(best)} too {'high' if best > 0 else 'low'}.",
            pair.where(np.flatnonzero(ranks[best] <= pair.head)),
            f"HR@{pair.head} by shift: " + _by_shift(pair, ranks) + ".",
            "Look for a user index that starts at 0 in one place and at 1 in another, or for rows that moved by one.",
        )
        return
    yield from _permuted(pair, "user")


def _permuted(pair: Pair, kind: str) -> Iterator[Finding]:
    """Ids that mean others because one order of the vocabulary was taken for another."""
    try_one = _of_items if kind == "item" else _of_users
    ranks = {name: try_one(pair, meant) for name, meant in reorderings(getattr(pair, f"{kind}s")).items()}
    best = max(ranks, key=lambda name: float((1 / ranks[name]).mean()))
    strangers = pair.ranks if kind == "item" else _of_strangers(pair)
    if answers(pair, ranks[best], pair.ranks) and far_higher(ranks[best], strangers):
        yield finding(
            f"{kind}s-permuted",
            f"The {kind} ids of the predictions stand for others: {best}.",
            pair.where(np.flatnonzero(ranks[best] <= pair.head)),
            f"{pair.figure(pair.ranks)} as written, {pair.figure(ranks[best])} when they are put right.",
            "Export the original ids through the vocabulary that the model was trained with.",
        )


def _of_items(pair: Pair, meant: Ints) -> Floats:
    return pair.lists.ranks_of(pair.target_user, meant[pair.target])


def _of_users(pair: Pair, meant: Ints) -> Floats:
    return pair.lists.ranks_of(meant[pair.target_user], pair.target)


def _of_strangers(pair: Pair) -> Floats:
    """The targets' ranks in the lists of users far away: what anybody's list hits, as it holds popular items."""
    far = np.arange(len(pair.users))
    far[pair.example_user] = np.roll(pair.example_user, len(pair.example_user) // 2)
    return _of_users(pair, far)


def _by_shift(pair: Pair, ranks: dict[int, Floats]) -> str:
    figures = {by: pair.hits(values) for by, values in ranks.items()} | {0: pair.hits(pair.ranks)}
    return ", ".join(f"{by:+d} {figures[by]:.4f}" if by else f"0 {figures[by]:.4f}" for by in sorted(figures))


def _reversed(pair: Pair) -> Iterator[Finding]:
    ranks = pair.lists.ranks_of(pair.target_user, pair.target, pair.lists.reversed)
    if answers(pair, ranks, pair.ranks):
        by = "score" if pair.predicted.scored else "rank"
        yield finding(
            "scores-reversed",
            f"The targets stand at the end of the lists: lower {by}s seem to be "
            f"{'better' if pair.predicted.scored else 'worse'}.",
            pair.where(np.flatnonzero(ranks <= pair.head)),
            f"{pair.figure(pair.ranks)} as it is, {pair.figure(ranks)} the other way round.",
            "Set columns.higher_is_better=false if the scores are distances or losses; else turn the sort round."
            if pair.predicted.scored
            else "Count ranks from the best item.",
        )


def earlier_ranks(pair: Pair) -> list[Floats]:
    """``(C,)`` ranks of each user's last three events: the (best) target, the event before it, the one before that."""
    base = np.full(len(pair.example_user), np.inf)
    np.minimum.at(base, pair.example, pair.ranks)
    items = [pair.history.items_at(pair.history.from_end(pair.example_user, place)) for place in (0, 1)]
    return [base, *(pair.lists.ranks_of(pair.example_user, item) for item in items)]


def _earlier(pair: Pair) -> Iterator[Finding]:
    """Lists that fit one event before the target far better than the target and than the other one."""
    ranks = earlier_ranks(pair)
    for place, name in ((1, "second last"), (2, "third last")):
        others = [values for number, values in enumerate(ranks) if number != place]
        if not all(answers(pair, ranks[place], other) for other in others):
            continue
        items = pair.history.items_at(pair.history.from_end(pair.example_user, place - 1))
        users = np.flatnonzero((ranks[place] <= pair.head) & (ranks[0] > pair.head))
        yield finding(
            "predicts-earlier-event",
            f"The lists fit the {name} event of each user, not the target.",
            (
                f"user {pair.users.names[pair.example_user[one]]}, item {pair.items.names[items[one]]} at rank "
                f"{ranks[place][one]:g}, target at {ranks[0][one]:g}"
                for one in users
            ),
            f"{pair.figure(ranks[0])} for the last event, {pair.figure(ranks[1])} for the second last (validation), "
            f"{pair.figure(ranks[2])} for the third last.",
            "Feed the whole history before the target, and take the output at its last position. If the items that a "
            "user already has may be recommended, leave them out before you read this.",
        )


def _too_good(pair: Pair) -> Iterator[Finding]:
    top = pair.hits(pair.ranks, 1)
    if len(pair.target) < 20 or top < 0.9:
        return
    first = np.flatnonzero(pair.ranks <= 1)
    yield finding(
        "too-good",
        f"{count(len(first), len(pair.target), 'targets')} stand at the top of their list.",
        pair.where(first),
        f"HR@1 {top:.4f}, {pair.figure(pair.ranks)}; a popularity ranker has "
        f"{pair.figure(popularity_ranks(pair))}. No honest recommender is known to come near 0.9 at 1.",
        "Look for the target in the input (a history that ends one event too late, a missing causal mask) or in the "
        "features.",
    )


def popularity_ranks(pair: Pair) -> Floats:
    """``(T,)``: the targets' ranks by their number of events in the histories, among items the user doesn't have."""
    times = np.bincount(pair.history.item, minlength=len(pair.items)).astype(float)
    ordered = np.sort(times[: pair.items.known])
    own = times[pair.target]
    above = len(ordered) - np.searchsorted(ordered, own, "right")
    equal = np.searchsorted(ordered, own, "right") - np.searchsorted(ordered, own, "left") - 1
    pairs = np.unique(pair.history.user * len(pair.items) + pair.history.item)
    # how many of the user's own items are more popular: their keys lie between the target's and the next user's
    width = float(times.max(initial=0)) + 1
    keys = np.sort(pairs // len(pair.items) * width + times[pairs % len(pair.items)])
    last = np.searchsorted(keys, (pair.target_user + 1) * width, "left")
    seen_above = last - np.searchsorted(keys, pair.target_user * width + own, "right")
    ranks: Floats = 1 + above - seen_above + np.maximum(equal, 0) / 2
    return np.maximum(ranks, 1.0)

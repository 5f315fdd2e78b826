"""Checks of ranked lists from files against the targets: shifted, permuted, reversed, too early, too good."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from deshi.arrays import Floats, Ints
from deshi.auditing._finding import Finding, count, finding
from deshi.auditing._pair_data import Pair, far_higher
from deshi.auditing._pair_lists import numeric, orders
from deshi.auditing._ranked_lists import NOTHING
from deshi.types import ITEM, USER

SHIFTS = (-2, -1, 1, 2)


def check_alignment(pair: Pair) -> Iterator[Finding]:
    """Findings that compare the lists with the targets under another reading of ids, order or time."""
    readings = [*_items(pair), *_users(pair), *_reversed(pair), *_earlier(pair)]
    yield from readings
    if not readings:
        yield from _too_good(pair)


def _fits_targets(pair: Pair, ranks: Floats, base: Floats) -> bool:
    """Whether ``ranks`` are far better than ``base`` and no worse than what a popularity or a random list gives.

    Where the base has no hits at all, chance hits of another reading would prove nothing.
    """
    lengths = pair.lists.lengths[pair.target_users]
    popular = popularity_ranks(pair)
    # a random list of length L among n items has the mean reciprocal rank (1 + 1/2 + ... + 1/L) / n
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, lengths.max() + 1))])
    random = float((harmonic[lengths] / pair.n_known_items).mean())
    bar = max(2 * random, 0.8 * float(np.where(popular <= lengths, 1 / popular, 0.0).mean()))
    return far_higher(ranks, base) and float((1 / ranks).mean()) > bar


def _shifted(names: list[str], by: int) -> Ints:
    """For every id the number of the id that is greater by ``by``; :data:`NOTHING` if there is none.

    Ids that aren't whole numbers are shifted along the order of their first appearance.
    """
    numbers = numeric(names)
    if numbers is None:
        numbers = np.arange(len(names))
    order = np.argsort(numbers)
    positions = np.minimum(np.searchsorted(numbers[order], numbers + by), len(order) - 1)
    return np.where(numbers[order][positions] == numbers + by, order[positions], NOTHING)


def _reorderings(names: list[str], n_known: int) -> dict[str, Ints]:
    """For every id the id that stands in its place in another usual order, or its index written as an id."""
    usual, mappings = orders(names[:n_known]), {}
    number_of = {name: number for number, name in enumerate(names)}
    for name, order in usual.items():
        for other, second in usual.items():
            if name != other:
                mappings[f"the {name} taken for the {other}"] = _mapped(order, second, len(names))
        for first in (0, 1):
            codes = np.array([number_of.get(str(index + first), NOTHING) for index in range(len(order))], np.int64)
            mappings[f"indices from {first} in the {name} written as ids"] = _mapped(order, codes, len(names))
    return mappings


def _mapped(order: Ints, labels: Ints, size: int) -> Ints:
    meant = np.full(size, NOTHING)
    meant[order] = labels
    return meant


def _items(pair: Pair) -> Iterator[Finding]:
    names = pair.bundle.vocabulary[ITEM].to_list()
    yield from _renamed(pair, "item", names, pair.n_known_items, partial(_of_items, pair), pair.ranks)


def _users(pair: Pair) -> Iterator[Finding]:
    names = pair.bundle.users[USER].to_list()
    # the targets' ranks in the lists of users far away: what anybody's list hits, as it holds popular items
    far, users = np.arange(len(names)), pair.examples.users
    far[users] = np.roll(users, len(users) // 2)
    strangers = _of_users(pair, far)
    yield from _renamed(pair, "user", names, pair.n_known_users, partial(_of_users, pair), strangers)


def _renamed(
    pair: Pair, kind: str, names: list[str], n_known: int, ranks_of: Callable[[Ints], Floats], strangers: Floats
) -> Iterator[Finding]:
    """Ids that mean their neighbours by number, or those in their place in another order of the vocabulary.

    Args:
        pair: the files.
        kind: ``item`` or ``user``.
        names: the ids of that kind.
        n_known: how many of them the interactions hold.
        ranks_of: the targets' ranks if every id means another one.
        strangers: the targets' ranks that any renaming must beat.
    """
    by_shift = {by: ranks_of(_shifted(names, by)) for by in SHIFTS}
    shift, ranks = max(by_shift.items(), key=lambda item: float((1 / item[1]).mean()))
    high, sign = ("high", "plus") if shift > 0 else ("low", "minus")
    message, fix = {
        "item": (
            f"The predicted item ids are {abs(shift)} too {high}: the target's id {sign} {abs(shift)} is hit far more "
            "often than the target.",
            "Look for an embedding row or index that is reserved for padding, and add or subtract it once.",
        ),
        "user": (
            f"The lists are stored under user ids that are {abs(shift)} too {high}.",
            "Look for a user index that starts at 0 in one place and at 1 in another, or for rows that moved by one.",
        ),
    }[kind]
    if _fits_targets(pair, ranks, pair.ranks) and far_higher(ranks, strangers):
        where = pair.targets_at(np.flatnonzero(ranks <= pair.head))
        yield finding(f"{kind}s-shifted", message, where, _by_shift(pair, by_shift), fix)
        return
    by_order = {name: ranks_of(meant) for name, meant in _reorderings(names, n_known).items()}
    order, ranks = max(by_order.items(), key=lambda item: float((1 / item[1]).mean()))
    if _fits_targets(pair, ranks, pair.ranks) and far_higher(ranks, strangers):
        yield finding(
            f"{kind}s-permuted",
            f"The {kind} ids of the predictions stand for others: {order}.",
            pair.targets_at(np.flatnonzero(ranks <= pair.head)),
            f"{pair.figure(pair.ranks)} as written, {pair.figure(ranks)} when they are put right.",
            "Export the original ids through the vocabulary that the model was trained with.",
        )


def _of_items(pair: Pair, meant: Ints) -> Floats:
    return pair.lists.ranks_of(pair.target_users, meant[pair.targets])


def _of_users(pair: Pair, meant: Ints) -> Floats:
    return pair.lists.ranks_of(meant[pair.target_users], pair.targets)


def _by_shift(pair: Pair, ranks: dict[int, Floats]) -> str:
    figures = {by: pair.hits(values) for by, values in ranks.items()} | {0: pair.hits(pair.ranks)}
    shown = (f"{by:+d} {figures[by]:.4f}" if by else f"0 {figures[by]:.4f}" for by in sorted(figures))
    return f"{pair.measure()} by shift: " + ", ".join(shown) + "."


def _reversed(pair: Pair) -> Iterator[Finding]:
    ranks = pair.lists.ranks_of(pair.target_users, pair.targets, pair.lists.reversed)
    if _fits_targets(pair, ranks, pair.ranks):
        by, better = ("score", "better") if pair.scored else ("rank", "worse")
        yield finding(
            "scores-reversed",
            f"The targets stand at the end of the lists: lower {by}s seem to be {better}.",
            pair.targets_at(np.flatnonzero(ranks <= pair.head)),
            f"{pair.figure(pair.ranks)} as it is, {pair.figure(ranks)} the other way round.",
            "Set columns.higher_is_better=false if the scores are distances or losses; else turn the sort round."
            if pair.scored
            else "Count ranks from the best item.",
        )


def earlier_ranks(pair: Pair) -> list[Floats]:
    """``(C,)`` ranks of each user's last three events: the (best) target, the event before it, the one before that."""
    base = np.full(len(pair.examples), np.inf)
    np.minimum.at(base, pair.examples.owners, pair.ranks)
    return [base, *(pair.lists.ranks_of(pair.examples.users, pair.before_target(distance)[1]) for distance in (1, 2))]


def _earlier(pair: Pair) -> Iterator[Finding]:
    """Lists that fit one event before the target far better than the target and than the other one."""
    ranks = earlier_ranks(pair)
    for distance, name in ((1, "second last"), (2, "third last")):
        others = [values for number, values in enumerate(ranks) if number != distance]
        if not all(_fits_targets(pair, ranks[distance], other) for other in others):
            continue
        items = pair.before_target(distance)[1]
        examples = np.flatnonzero((ranks[distance] <= pair.head) & (ranks[0] > pair.head))
        yield finding(
            "predicts-earlier-event",
            f"The lists fit the {name} event of each user, not the target.",
            (
                f"user {pair.user_id(pair.examples.users[example])}, item {pair.item_id(items[example])} at rank "
                f"{ranks[distance][example]:g}, target at {ranks[0][example]:g}"
                for example in examples
            ),
            f"{pair.user_figure(ranks[0])} for the last event, {pair.user_figure(ranks[1])} for the second last "
            f"(validation), {pair.user_figure(ranks[2])} for the third last.",
            "Feed the whole history before the target, and take the output at its last position. If the items that a "
            "user already has may be recommended, leave them out before you read this.",
        )


def _too_good(pair: Pair) -> Iterator[Finding]:
    top = pair.hits(pair.ranks, 1)
    if len(pair.targets) < 20 or top < 0.9:
        return
    first = np.flatnonzero(pair.ranks <= 1)
    yield finding(
        "too-good",
        f"{count(len(first), len(pair.targets), 'targets')} stand at the top of their list.",
        pair.targets_at(first),
        f"{pair.measure(1)} {top:.4f}, {pair.figure(pair.ranks)}; a popularity ranker has "
        f"{pair.figure(popularity_ranks(pair))}. No honest recommender is known to come near 0.9 at 1.",
        "Look for the target in the input (a history that ends one event too late, a missing causal mask) or in the "
        "features.",
    )


def popularity_ranks(pair: Pair) -> Floats:
    """``(T,)``: the targets' ranks by their number of events in the histories, among items the user doesn't have."""
    users, items = pair.history
    n_items = pair.bundle.n_items
    times = np.bincount(items, minlength=n_items).astype(float)
    # the rank among all items: those with more events, and half of the others with as many
    ordered, of_target = np.sort(times[: pair.n_known_items]), times[pair.targets]
    above = len(ordered) - np.searchsorted(ordered, of_target, "right")
    equal = np.searchsorted(ordered, of_target, "right") - np.searchsorted(ordered, of_target, "left") - 1
    # without the user's own items that are more popular: their keys lie between the target's and the next user's
    pairs = np.unique(users * n_items + items)
    width = float(times.max(initial=0)) + 1
    keys = np.sort(pairs // n_items * width + times[pairs % n_items])
    last = np.searchsorted(keys, (pair.target_users + 1) * width, "left")
    seen_above = last - np.searchsorted(keys, pair.target_users * width + of_target, "right")
    ranks: Floats = 1 + above - seen_above + np.maximum(equal, 0) / 2
    return np.maximum(ranks, 1.0)

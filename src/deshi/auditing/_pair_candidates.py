"""Checks of the items that lists from files could hold: candidate sets, seen items, missing targets, chance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deshi.arrays import Floats, offsets_of
from deshi.auditing._finding import Finding, count, finding
from deshi.auditing._pair_alignment import popularity_ranks
from deshi.auditing._pair_data import Pair

MANY = 25
"""Lists from which on their common properties are no chance."""

ENOUGH = 20.0
"""Hits that random lists must be expected to have before a lack of hits says anything."""


def check_candidates(pair: Pair, aligned: bool) -> Iterator[Finding]:
    """Findings about candidates; comparisons with chance only where the lists are ``aligned`` with the targets."""
    sampled = _sampled(pair)
    yield from _candidate_sets(pair) if sampled else ()
    left_out = list(_left_out(pair, sampled)) if aligned else []
    yield from left_out
    yield from _seen(pair)
    if aligned and not left_out and not sampled:
        yield from _against_chance(pair)


def _sampled(pair: Pair) -> bool:
    """Whether the lists are small sets into which the target was put: one length, and nearly all hold the target.

    Sets that often lack it are known by negatives drawn evenly, which no ranker's best items are.
    """
    lengths = pair.lists.lengths[pair.examples.users]
    lengths = lengths[lengths > 0]
    usual = float(np.median(lengths))
    if len(lengths) < MANY or usual > 0.9 * pair.n_known_items or (np.abs(lengths - usual) > 2).mean() > 0.05:
        return False
    ranks = pair.ranks[pair.lists.lengths[pair.target_users] > 0]
    share_hit = float(np.isfinite(ranks).mean())
    # a model's short list holds nearly all targets only if it puts them on top
    short = usual <= 0.25 * pair.n_known_items
    certain = short and share_hit >= 0.995 and pair.hits(ranks, 1) < 0.9
    return certain or (share_hit >= 0.4 and len(lengths) >= 2 * MANY and _evenly_drawn(pair))


def _evenly_drawn(pair: Pair) -> bool:
    """Whether items other than the targets are in about the same number of lists, as chance would have it."""
    rows = np.ones(len(pair.lists.user), dtype=bool)
    hit = pair.lists.rows_of(pair.target_users, pair.targets)
    rows[hit[hit >= 0]] = False
    # evenly drawn items have counts of a Poisson distribution, whose variance is its mean
    times = np.bincount(pair.lists.item[rows], minlength=pair.n_known_items)[: pair.n_known_items]
    return bool(times.mean() >= 2 and times.var() < 1.5 * times.mean())


def _candidate_sets(pair: Pair) -> Iterator[Finding]:
    usual = int(np.median(pair.lists.lengths[pair.examples.users]))
    missing = np.flatnonzero(~np.isfinite(pair.ranks) & (pair.lists.lengths[pair.target_users] > 0))
    yield finding(
        "sampled-candidates",
        f"The lists are candidate sets of {usual} items with the target put in: "
        f"{count(len(pair.targets) - len(missing), len(pair.targets), 'targets')} are in theirs, of "
        f"{pair.n_known_items:,} items.",
        pair.users_named(pair.examples.users),
        f"A random order of {usual} candidates has {pair.measure()} {min(1.0, pair.head / usual):.4f}, of all items "
        f"{min(1.0, pair.head / pair.n_known_items):.4f}; found: {pair.figure(pair.ranks)}.",
        "Compare only with figures on the same candidate sets, or rank all items.",
    )
    if len(missing):
        hits = pair.ranks[np.isfinite(pair.ranks)]
        yield finding(
            "candidates-without-target",
            f"{count(len(missing), len(pair.targets), 'candidate sets')} lack their target.",
            pair.targets_at(missing),
            f"{pair.figure(pair.ranks)} when these count as misses, {pair.figure(hits)} without them.",
            "Put the target into every candidate set, once.",
        )


def _left_out(pair: Pair, sampled: bool) -> Iterator[Finding]:
    """Targets that could not be in the list: the filter of seen items took them out."""
    lengths = pair.lists.lengths[pair.target_users]
    missed, filtered = (lengths > 0) & ~np.isfinite(pair.ranks), not pair.seen.any()
    # targets that the user had before, where no list holds any seen item
    again = missed & pair.in_history & filtered
    # other targets that are missing although list and history together are the whole catalogue
    whole = (lengths + pair.distinct[pair.target_users] >= 0.98 * pair.n_known_items) & (
        lengths >= 0.5 * pair.n_known_items
    )
    absent = missed & ~pair.in_history & whole & (pair.targets < pair.n_known_items)
    lost = np.flatnonzero(again | absent)
    if not len(lost) and not sampled and filtered and _no_hit_at_all(pair):
        lost = np.flatnonzero(lengths > 0)
    if not len(lost):
        return
    remaining = np.delete(pair.ranks, lost)
    yield finding(
        "target-filtered-out",
        f"{count(len(lost), len(pair.targets), 'targets')} can't be hit: the lists leave out everything that the "
        "user has, and the target with it"
        + (f" ({int(again.sum()):,} were consumed before)." if int(again.sum()) else "."),
        pair.targets_at(lost),
        f"{pair.measure()} can reach {1 - len(lost) / len(pair.targets):.4f} at most: {pair.figure(pair.ranks)} with "
        "them" + (f", {pair.figure(remaining)} without." if len(remaining) else "."),
        "Filter by the history before the target and never the target itself; with repeat consumption don't filter.",
        "warning" if len(lost) == int(again.sum()) and len(lost) < 0.05 * len(pair.targets) else None,
    )


def _no_hit_at_all(pair: Pair) -> bool:
    """Whether no list holds its target, though popular items alone would have hit often."""
    lengths = pair.lists.lengths[pair.target_users]
    return not np.isfinite(pair.ranks).any() and float((popularity_ranks(pair) <= lengths).sum()) >= ENOUGH


def _seen(pair: Pair) -> Iterator[Finding]:
    lists = pair.lists
    top = np.flatnonzero(lists.mean <= pair.head)
    rows = top[pair.seen_only[top]]
    if not len(rows) or pair.in_history.mean() > 0.01:
        return
    without = without_seen(pair)
    gain = pair.hits(without) - pair.hits(pair.ranks)
    yield finding(
        "seen-items-recommended",
        f"{count(len(rows), len(top), f'places of the best {pair.head}')} hold items that the user already has, "
        "though hardly any target is one.",
        pair.rows_at("predictions", lists.rows[rows]),
        f"{pair.figure(pair.ranks)} as it is, {pair.figure(without)} without them.",
        "Leave out the items of the history before the target, or say that you don't.",
        None if gain > 0.05 * pair.hits(pair.ranks) else "note",
    )


def without_seen(pair: Pair) -> Floats:
    """The targets' ranks when items of the user's history are left out of the lists."""
    rows = pair.lists.rows_of(pair.target_users, pair.targets)
    # how many seen items stand above the target: a cumulative count, minus that at the list's begin
    before = offsets_of(pair.seen_only)
    above = before[np.maximum(rows, 0)] - before[pair.lists.offsets[pair.target_users]]
    return np.where(rows >= 0, np.maximum(pair.ranks - above, 1.0), np.inf)


def _against_chance(pair: Pair) -> Iterator[Finding]:
    """The number of hits against that of random lists: of the whole list or, if that is long, of its head."""
    lengths = pair.lists.lengths[pair.target_users].astype(float)
    whole = lengths.mean() < 0.8 * pair.n_known_items
    size = lengths if whole else np.minimum(lengths, pair.head)
    pool = pair.n_known_items - (0 if pair.seen.any() else pair.distinct[pair.target_users])
    expected = float(np.minimum(size / np.maximum(pool, 1), 1.0).sum())
    hits = int((pair.ranks <= size).sum())
    if expected < ENOUGH:
        return
    popular = int((popularity_ranks(pair) <= size).sum())
    counted = f"{hits:,} of {len(pair.targets):,} targets are among the best {size.mean():.4g} of their list"
    effect = f"Random lists would hit {expected:.0f}, the most popular items {popular:,}; found {hits:,}."
    # The hits of random lists are a sum of coins, with a variance of at most its mean.
    if hits < expected - 5 * np.sqrt(expected):
        yield finding(
            "worse-than-chance",
            f"{counted}, far fewer than chance would give.",
            pair.targets_at(np.flatnonzero(~np.isfinite(pair.ranks) if whole else pair.ranks > pair.head)),
            effect,
            "Look for a sort the wrong way round before the lists were cut, or a filter that takes targets out.",
        )
    elif hits < expected + 3 * np.sqrt(expected):
        yield finding(
            "no-better-than-chance",
            f"{counted}, as chance would have it.",
            pair.targets_at(np.flatnonzero(pair.ranks > size)),
            effect,
            "Check that item and user ids mean the same in both files, and that the weights were loaded.",
        )

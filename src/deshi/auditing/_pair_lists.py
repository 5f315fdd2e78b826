"""Checks of ranked lists from files: which users have one, what it holds, and whether its scores order it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from deshi.arrays import Floats, Ints
from deshi.auditing._finding import Finding, count, finding
from deshi.auditing._pair_data import Pair
from deshi.auditing._ranked_lists import RankedLists
from deshi.types import USER

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
    usual = {"order of first appearance": np.arange(len(names)), "alphabetical order": np.argsort(np.array(names))}
    numbers = numeric(names)
    if numbers is not None:
        usual["order of their numbers"] = np.argsort(numbers, kind="stable")
    return usual


def numeric(names: list[str]) -> Ints | None:
    """The ids as whole numbers, if they all are."""
    if not all(name.removeprefix("-").isdecimal() and len(name) < 18 for name in names):
        return None
    return np.array([int(name) for name in names], dtype=np.int64)


def _missing_users(pair: Pair) -> Iterator[Finding]:
    users = pair.examples.users
    missing = users[pair.lists.lengths[users] == 0]
    if not len(missing):
        return
    n_listed = len(users) - len(missing)
    inside = pair.lists.lengths[pair.target_users] > 0
    share = f"{count(len(missing), len(users), 'users')}"
    effect = (
        f"{pair.figure(pair.ranks)} when they count as misses, {pair.figure(pair.ranks[inside])} over the users with "
        "predictions."
    )
    sizes = [size for size in BATCHES if n_listed % size == 0 and len(missing) < size]
    for name, order in orders(pair.bundle.users[USER].to_list()).items() if sizes else ():
        last = order[np.isin(order, users)][n_listed:]
        if set(last) == set(missing):
            yield finding(
                "last-batch-dropped",
                f"{share} have no predictions: the last ones in the {name}, and the other {n_listed:,} fill batches of "
                f"{' or '.join(map(str, sizes))}.",
                pair.users_named(last),
                effect,
                "Evaluate with drop_last=False.",
            )
            return
    yield finding(
        "user-not-evaluated",
        f"{share} with a target have no predictions.",
        pair.users_named(missing),
        effect,
        "Export a list for every user with a target; a user without one is a miss, not an exception.",
        None if len(missing) > 0.01 * len(users) else "warning",
    )


def _unknown(pair: Pair) -> Iterator[Finding]:
    """Users and items that no other file has."""
    predictions, n_rows = pair.predictions, pair.predictions.height
    elsewhere = pair.examples.users.tolist() if pair.held_out else []
    rows = predictions.filter((pl.col("user") >= pair.n_known_users) & ~pl.col("user").is_in(elsewhere))
    if rows.height:
        yield finding(
            "unknown-users",
            f"{count(rows['user'].n_unique(), predictions['user'].n_unique(), 'users')} of the predictions are not in "
            "the interactions.",
            pair.rows_at("predictions", rows),
            f"{rows.height:,} of {n_rows:,} rows are not used.",
            "Check that both files come from the same data set and write ids in the same way.",
        )
    elsewhere = pair.targets.tolist() if pair.held_out or pair.train is not None else []
    elsewhere += [] if pair.train is None else pair.train["item"].to_list()
    rows = predictions.filter((pl.col("item") >= pair.n_known_items) & ~pl.col("item").is_in(elsewhere))
    if rows.height:
        items = rows["item"].unique()
        spoiled = float(np.isin(pair.lists.item[pair.lists.best <= pair.head], items).mean())
        yield finding(
            "unknown-items",
            f"{count(len(items), predictions['item'].n_unique(), 'items')} of the predictions are not in the "
            "interactions.",
            pair.rows_at("predictions", rows),
            f"{count(rows.height, n_rows, 'rows')} can't hit any target; they take "
            f"{100 * spoiled:.3g} % of the best {pair.head} places.",
            "Items that nobody has had yet are harmless. Else check that items are written as original ids, not as "
            "indices of the model, and that padding and mask tokens are left out.",
            None if spoiled > 0.02 else "note",
        )


def _repeated(pair: Pair) -> Iterator[Finding]:
    rows = pair.predictions.filter(pl.col("line").is_in(pair.lists.repeated.tolist()))
    if rows.is_empty():
        return
    extra = np.bincount(rows["user"].to_numpy(), minlength=pair.bundle.n_users)
    twice = np.flatnonzero((extra > 0) & (extra >= pair.lists.lengths))
    message = f"{count(rows.height, pair.predictions.height, 'rows')} repeat an item that the user's list has already"
    effect = (
        f"{pair.figure(pair.ranks)} with each item once, {pair.figure(_ranks_with_repeats(pair, rows))} when repeats "
        "take places of their own."
    )
    if len(twice):
        yield finding(
            "user-evaluated-twice",
            f"{message}; {count(len(twice), int((pair.lists.lengths > 0).sum()), 'users')} have the whole list twice.",
            pair.users_named(twice),
            effect,
            "A distributed sampler pads the last batch with users from the start: drop users that were seen already.",
        )
        return
    targets = pl.DataFrame({"user": pair.target_users, "item": pair.targets}).with_columns(is_target=True)
    rows = rows.join(targets, on=["user", "item"], how="left", maintain_order="left")
    yield finding(
        "predictions-repeated",
        f"{message}; {rows['is_target'].count():,} of these are the user's target.",
        pair.rows_at("predictions", rows.sort("is_target", nulls_last=True, maintain_order=True)),
        effect,
        "Keep each item once in a list; candidate sets must be drawn without replacement and without the target.",
    )


def _ranks_with_repeats(pair: Pair, repeats: pl.DataFrame) -> Floats:
    """The targets' ranks if repeated items took places of their own."""
    rows = pair.lists.rows_of(pair.target_users, pair.targets)
    # the lowest score of a user's listed targets: repeats above it take places
    lowest = np.full(pair.bundle.n_users, np.inf)
    np.minimum.at(lowest, pair.target_users, np.append(pair.lists.rows["score"].to_numpy(), np.inf)[rows])
    users, scores = repeats["user"].to_numpy(), repeats["score"].to_numpy()
    above = np.bincount(users[scores > lowest[users]], minlength=pair.bundle.n_users)
    return pair.ranks + above[pair.target_users]


def _not_numbers(pair: Pair) -> Iterator[Finding]:
    predictions = pair.predictions
    empty = predictions.filter(pl.col("score").is_nan())
    if empty.height:
        touched = np.isin(pair.target_users, empty["user"].to_numpy())
        yield finding(
            "nan-scores",
            f"{count(empty.height, predictions.height, 'scores')} are NaN or empty, in the lists of "
            f"{empty['user'].n_unique():,} users.",
            pair.rows_at("predictions", empty),
            f"A sort may put NaN first or last; the audit puts it last: {pair.figure(pair.ranks[touched])} for the "
            f"users concerned, {pair.figure(pair.ranks[~touched])} for the others.",
            "Look for a diverged model or a division by zero; don't replace NaN by 0.",
        )
    infinite = predictions.filter(pl.col("score").is_infinite())
    if infinite.height:
        above = int((infinite["score"] > 0).sum())
        yield finding(
            "infinite-scores",
            f"{count(infinite.height, predictions.height, 'scores')} are infinite, {above:,} of them on the good side.",
            pair.rows_at("predictions", infinite),
            "They tie with each other"
            + (f" at the top of {infinite['user'].n_unique():,} lists." if above else " at the end."),
            "Leave masked items out of the export; a positive infinity is an overflow.",
            "warning" if above else "note",
        )


def _ties(pair: Pair) -> Iterator[Finding]:
    """Scores that don't tell items apart: whole lists, or around the target."""
    lists = pair.lists
    listed = np.flatnonzero(lists.lengths > 1)
    constant = listed[lists.worst[lists.offsets[listed]] == lists.lengths[listed]]
    luck = lists.ranks_of(pair.target_users, pair.targets, lists.best)
    harm = lists.ranks_of(pair.target_users, pair.targets, lists.worst)
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
            pair.users_named(constant),
            effect,
            fix,
        )
        return
    spread = pair.hits(luck) - pair.hits(harm)
    if len(tied):
        yield finding(
            "ties-around-target",
            f"{count(len(tied), len(pair.targets), 'targets')} share their score with another item of the list.",
            pair.targets_at(tied),
            effect,
            fix,
            "warning" if spread > max(0.02, 0.2 * pair.hits(pair.ranks)) else "note",
        )


def _rank_column(pair: Pair) -> Iterator[Finding]:
    predictions, lists = pair.predictions, pair.lists
    if "rank" not in predictions.columns:
        return
    lowest = predictions.group_by("user").agg(pl.col("rank").fill_nan(None).min().alias("lowest")).drop_nulls()
    wrong = lowest.filter(pl.col("lowest") != 1).sort("user")
    if wrong.height:
        usual = float(wrong["lowest"].mode().sort()[0])
        yield finding(
            "ranks-not-from-one",
            f"{count(wrong.height, lowest.height, 'lists')} have ranks that begin with {usual:g}, not 1.",
            pair.users_named(wrong["user"].to_numpy()),
            f"The audit goes by the order alone: {pair.figure(pair.ranks)}. Taken as ranks from 1 it would be "
            f"{pair.figure(pair.ranks - 1 + usual)}.",
            "Count ranks from 1, or check which part of the lists is missing.",
        )
    if not pair.scored:
        return
    by_rank, score = predictions.sort("user", "rank", maintain_order=True), pl.col("score").fill_nan(None)
    rises = by_rank.filter(score > score.shift(1).over("user"))
    if rises.height:
        ranked = RankedLists.of(
            predictions.with_columns(-pl.col("rank").alias("score")), len(lists.lengths), lists.n_items
        )
        other = ranked.ranks_of(pair.target_users, pair.targets)
        yield finding(
            "score-and-rank-disagree",
            f"{count(rises['user'].n_unique(), lowest.height, 'lists')} are ordered differently by score and by rank.",
            pair.rows_at("predictions", rises),
            f"{pair.figure(pair.ranks)} by score, which the audit goes by; {pair.figure(other)} by rank.",
            "Export one of them, or find out which one the other tool ranks by (lower scores better: "
            "columns.higher_is_better=false).",
        )


def _same_for_all(pair: Pair) -> Iterator[Finding]:
    """Neighbours in one list that never stand the other way round in another: one order for everybody."""
    lists = pair.lists
    listed = np.flatnonzero(lists.lengths > 0)
    if len(listed) < 10:
        return
    # pairs of neighbours with different scores among the first 50 of each list
    position = np.arange(len(lists.user)) - lists.offsets[lists.user]
    near = np.flatnonzero((lists.user[1:] == lists.user[:-1]) & (position[1:] < 50))
    near = near[lists.best[near] < lists.best[near + 1]]
    first, second = lists.item[near], lists.item[near + 1]
    edges = first * lists.n_items + second
    # each pair must be in two lists on average, and hardly any may be reversed
    if not len(edges) or len(edges) < 2 * len(np.unique(edges)):
        return
    if np.isin(second * lists.n_items + first, edges).mean() > 0.005:
        return
    yield finding(
        "same-list-for-all",
        f"All {len(listed):,} lists have their items in one order, that of "
        f"{', '.join(pair.item_id(item) for item in lists.item[:3])}, ... (without items that the user has).",
        pair.users_named(listed),
        f"Nothing in the lists is personal: {pair.figure(pair.ranks)}.",
        "Nothing to fix for a popularity ranker; else the model ignores the user.",
    )

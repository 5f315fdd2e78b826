"""Checks of stored ranks: of the split's targets, each once, possible, by the stated rule of ties, reproduced."""

from __future__ import annotations

import numpy as np
import polars as pl

from deshi.arrays import range_rows
from deshi.auditing._bundle import Flat
from deshi.auditing._finding import Finding, count, finding, location
from deshi.auditing._probe import AT, ndcg_of
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples, Split
from deshi.types import ITEM, USER

RULES = "Rank by 1 + (candidates that score higher) + half of those that score the same (deshi.metrics)."


def audit_ranks(
    ranks: pl.DataFrame,
    bundle: Bundle,
    split: Split,
    part: str,
    filter_seen: bool = True,
    recomputed: pl.DataFrame | None = None,
    full: bool = True,
) -> list[Finding]:
    """Check one part's ranks against the split, and against ranks computed again from the same model.

    Args:
        ranks: a row a target: ``user``, ``target``, ``rank``, ``n_candidates`` (see ``docs/metrics.md``).
        bundle: the data.
        split: whose targets were ranked.
        part: validation or test.
        filter_seen: of the evaluation.
        recomputed: of :func:`deshi.auditing.reranking.recompute`, where the model is at hand.
        full: whether the whole catalogue was ranked, and not a set of candidates for each example.
    """
    flat, examples = Flat(bundle), split.examples(bundle, part)
    expected = _expected(flat, examples, filter_seen)
    keys = ["user", "target"]
    stored = ranks.select(*(pl.col(key).cast(pl.Int64) for key in keys), "rank", "n_candidates")
    joined = stored.join(expected, on=keys, how="inner")
    if not full:
        joined = joined.with_columns(pl.col("n_candidates").alias("candidates"))
    findings = _nan(flat, stored) + _wrong_targets(flat, stored, expected, part)
    findings += _once(flat, examples, joined, part)
    if recomputed is not None:
        fair = pl.col("rank").alias("fair")
        again = recomputed.select(*(pl.col(key).cast(pl.Int64) for key in keys), fair, "optimistic")
        joined = joined.join(again.unique(keys), on=keys, how="left")
    findings += _seen_but_ranked(flat, joined)
    joined = joined.filter(~pl.col("repeated"))  # a target that is no candidate has an infinite rank by every rule
    findings += _constant(flat, joined)
    by_model = [] if recomputed is None else _not_mean_ranks(flat, joined) or _not_reproduced(flat, joined)
    without_model = _all_first(flat, joined) if recomputed is None else []
    return findings + by_model + without_model + _impossible(flat, joined)


def _expected(flat: Flat, examples: Examples, filter_seen: bool) -> pl.DataFrame:
    """A row a target: example, whether the filter takes it out, and how many candidates there must be."""
    owner, n_items = examples.owners, flat.bundle.n_items
    targets = flat.items[examples.target_rows].astype(np.int64)
    # one number for each example and different item of its history
    history = range_rows(examples.starts, examples.ends)
    readers = np.repeat(np.arange(len(examples)), examples.ends - examples.starts)
    seen = np.unique(readers * n_items + flat.items[history])
    left = n_items - np.bincount(seen // n_items, minlength=len(examples))
    candidates = left[owner] if filter_seen else np.full(len(owner), n_items)
    return pl.DataFrame(
        {
            "example": owner,
            "user": examples.users[owner].astype(np.int64),
            "target": targets,
            "repeated": examples.seen_targets(flat.items) & filter_seen,
            "candidates": candidates,
        }
    )


def _examples(flat: Flat, frame: pl.DataFrame) -> list[str]:
    users, items = flat.bundle.users[USER], flat.bundle.vocabulary[ITEM]
    columns = [name for name in ("rank", "fair", "optimistic", "n_candidates") if name in frame.columns]
    return [
        location(
            user=users[row["user"]],
            item=items[row["target"]] if 0 <= row["target"] < len(items) else row["target"],
            **{name: row[name] for name in columns},
        )
        for row in frame.head(5).iter_rows(named=True)
    ]


def _ndcg(frame: pl.DataFrame, column: str = "rank") -> float:
    """The mean NDCG of a column of ranks; NaN without rows."""
    return float(ndcg_of(frame[column].to_numpy()).mean()) if frame.height else float("nan")


def _nan(flat: Flat, stored: pl.DataFrame) -> list[Finding]:
    lost = stored.filter(pl.col("rank").is_null() | pl.col("rank").is_nan())
    if not lost.height:
        return []
    kept = _ndcg(stored.filter(pl.col("rank").is_not_null() & pl.col("rank").is_not_nan()))
    message = f"{count(lost.height, stored.height, 'ranks')} are NaN or missing."
    effect = f"NDCG@{AT} is {kept:.4f} when they are left out of the mean and "
    effect += f"{_ndcg(stored.with_columns(pl.col('rank').fill_null(np.nan))):.4f} when they count as misses."
    fix = "A NaN score has no rank: find where the model diverged, and never average over what is left."
    return [finding("nan-scores", message, _examples(flat, lost), effect, fix)]


def _wrong_targets(flat: Flat, stored: pl.DataFrame, expected: pl.DataFrame, part: str) -> list[Finding]:
    other = stored.join(expected.select("user", "target"), on=["user", "target"], how="anti")
    if not other.height:
        return []
    right = stored.join(other, on=["user", "target"], how="anti")
    message = f"{count(other.height, stored.height, 'ranks')} are of targets that the split does not have in {part}."
    effect = f"NDCG@{AT} is {_ndcg(other):.4f} on them"
    effect += (
        f" and {_ndcg(right):.4f} on the split's targets." if right.height else "; none is of the split's targets."
    )
    fix = "Rank the split's targets (Split.examples), with ids from the bundle's vocabulary."
    return [finding("wrong-target", message, _examples(flat, other), effect, fix)]


def _once(flat: Flat, examples: Examples, joined: pl.DataFrame, part: str) -> list[Finding]:
    """Every example once: a distributed sampler repeats some, a dropped last batch leaves some out."""
    answered = np.bincount(joined["example"].to_numpy(), minlength=len(examples))
    sizes = np.diff(examples.target_offsets)
    times = np.where(answered > sizes, -(-answered // sizes), (answered >= sizes).astype(np.int64))
    values = np.full(len(examples), np.nan)
    mean = joined.group_by("example").agg(pl.col("rank").min())
    values[mean["example"].to_numpy()] = ndcg_of(mean["rank"].to_numpy())
    ranked = ~np.isnan(values)
    once = f"{values[ranked].mean():.4f}" if ranked.any() else "nowhere"
    effect = f"The ranker has NDCG@{AT} {once} over {int(ranked.sum()):,} examples once"
    if times[ranked].sum():
        effect += f", {(values * times)[ranked].sum() / times[ranked].sum():.4f} counted as here"
    problems = []
    for name, wrong, message, fix in (
        ("user-evaluated-twice", times > 1, "are counted more than once",
         "Evaluate on one process, or gather by example number and drop what a distributed sampler has repeated."),
        ("user-not-evaluated", times == 0, "are missing",
         "Keep the last, smaller batch (drop_last=False) and gather the ranks of all processes before averaging."),
    ):  # fmt: skip
        if wrong.any():
            where = (location(user=flat.bundle.users[USER][int(examples.users[n])], example=n, times=int(times[n]))
                     for n in np.flatnonzero(wrong).tolist())  # fmt: skip
            share = count(int(wrong.sum()), len(examples), f"{part} examples")
            problems.append(finding(name, f"{share} {message}.", where, effect + ".", fix))
    return problems


def _seen_but_ranked(flat: Flat, joined: pl.DataFrame) -> list[Finding]:
    """Targets that the user had before, ranked as candidates though the filter takes seen items out of every list."""
    repeated = joined.filter("repeated")
    ranked = repeated.filter(pl.col("rank").is_finite() | (pl.col("n_candidates") != pl.col("candidates")))
    if not ranked.height:
        return []
    message = f"{count(ranked.height, joined.height, 'targets')} were seen before and are ranked all the same, though "
    message += "lists leave seen items out."
    as_served = joined.with_columns(pl.when("repeated").then(np.inf).otherwise("rank").alias("rank"))
    effect = f"NDCG@{AT} is {_ndcg(joined):.4f} as stored and {_ndcg(as_served):.4f} in lists as they are served."
    fix = (
        "Count targets among the seen items as misses, or keep seen items in figures and lists: eval.filter_seen=false."
    )
    return [finding("seen-target-ranked", message, _examples(flat, ranked), effect, fix)]


def _all_first(flat: Flat, joined: pl.DataFrame) -> list[Finding]:
    """Every target at rank 1: without the model, only this extreme of ties in favour of the target shows."""
    if joined.height < 20 or not (joined["rank"] == 1).all() or (joined["candidates"] < 20).any():
        return []
    middle = joined.with_columns((pl.col("candidates") + 1) / 2)
    message = f"All {joined.height:,} targets have rank 1: as if every score were the same and ties counted as hits."
    effect = f"NDCG@{AT} is {_ndcg(joined):.4f}; a scorer of ties has {_ndcg(middle, 'candidates'):.4f} by mean rank."
    return [finding("ties-counted-as-hits", message, _examples(flat, joined), effect, RULES)]


def _not_mean_ranks(flat: Flat, joined: pl.DataFrame) -> list[Finding]:
    """Ranks that count equal scores in favour of the target."""
    tied = joined.filter(pl.col("fair") - pl.col("optimistic") >= 0.5)
    lucky = tied.filter((pl.col("rank") - pl.col("optimistic")).abs() < 0.25)
    if not lucky.height or lucky.height < 0.5 * tied.height:
        return []
    message = (
        f"{count(lucky.height, joined.height, 'targets')} share their score with others and are ranked before them."
    )
    effect = f"NDCG@{AT} is {_ndcg(joined):.4f} as stored and {_ndcg(joined, 'fair'):.4f} by the mean rank of ties."
    return [finding("ties-counted-as-hits", message, _examples(flat, lucky), effect, RULES)]


def _constant(flat: Flat, joined: pl.DataFrame) -> list[Finding]:
    """Every target in the very middle of its list: one score for everything."""
    middle = joined.filter(pl.col("rank") == (pl.col("n_candidates") + 1) / 2)
    if joined.height < 20 or middle.height < joined.height or (joined["n_candidates"] < 20).any():
        return []
    message = f"All {joined.height:,} targets stand in the very middle of their lists: every item has the same score."
    effect = f"NDCG@{AT} is {_ndcg(joined):.4f}; where ties count for the target it is 1."
    fix = "Look for a head of zeros, weights that were never loaded, or a loss that was never applied."
    return [finding("constant-scores", message, _examples(flat, middle), effect, fix)]


def _not_reproduced(flat: Flat, joined: pl.DataFrame) -> list[Finding]:
    """Ranks that the model does not give. Rounding moves a few by a little: a fiftieth may differ by a twentieth."""
    gap = (pl.col("rank") - pl.col("fair")).abs()
    other = joined.filter((gap > 2) & (gap > 0.05 * pl.col("fair")))
    if other.height <= 0.02 * joined.height:
        return []
    message = f"{count(other.height, joined.height, 'ranks')} are not those that the run's weights give."
    effect = f"NDCG@{AT} is {_ndcg(joined):.4f} as stored and {_ndcg(joined, 'fair'):.4f} computed again."
    fix = "Run deshi evaluate again on this run; weights, data or filter_seen have changed since these ranks."
    return [finding("rank-not-reproduced", message, _examples(flat, other), effect, fix)]


def _impossible(flat: Flat, joined: pl.DataFrame) -> list[Finding]:
    bad = joined.filter(
        (pl.col("rank") < 1)
        | (pl.col("rank") > pl.col("n_candidates"))
        | (pl.col("n_candidates") != pl.col("candidates"))
    )
    if not bad.height:
        return []
    counts = int((bad["n_candidates"] != bad["candidates"]).sum())
    message = (
        f"{count(bad.height, joined.height, 'ranks')} do not fit their lists; {counts:,} lists are of another length "
    )
    message += "than the catalogue without the seen items."
    effect = f"NDCG@{AT} is {_ndcg(bad):.4f} on them, {_ndcg(joined):.4f} on all."
    fix = "Rank among all items that the history does not hold, from 1 (filter_seen says whether seen items count)."
    return [finding("rank-impossible", message, _examples(flat, bad), effect, fix)]

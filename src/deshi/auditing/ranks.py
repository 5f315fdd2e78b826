"""Are the stored ranks those of the split's questions, each once, and do they follow the stated rules?"""

from __future__ import annotations

import numpy as np
import polars as pl

from deshi.arrays import range_rows
from deshi.auditing.bundle import Flat
from deshi.auditing.finding import Finding, count, finding, location
from deshi.auditing.probe import AT, ndcg_of
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples, Split
from deshi.types import ITEM, USER

RULES = "Rank by 1 + (candidates that score higher) + half of those that score the same (deshi.metrics.ranks)."


def audit_ranks(
    ranks: pl.DataFrame,
    bundle: Bundle,
    split: Split,
    part: str,
    filter_seen: bool = True,
    honest: pl.DataFrame | None = None,
    full: bool = True,
) -> list[Finding]:
    """Check one part's ranks against the split, and against ranks computed again from the same model.

    Args:
        ranks: a row a target: ``user``, ``target``, ``rank``, ``n_candidates`` (see ``docs/metrics.md``).
        bundle: the data.
        split: whose questions were asked.
        part: validation or test.
        filter_seen: of the evaluation.
        honest: of :func:`deshi.auditing.reranking.recompute`, where the model is at hand.
        full: whether the whole catalogue was ranked, and not a set of candidates for each example.
    """
    flat, examples = Flat.of(bundle), split.examples(bundle, part)
    expected = _expected(flat, examples, filter_seen)
    keys = ["user", "target"]
    stored = ranks.select(*(pl.col(key).cast(pl.Int64) for key in keys), "rank", "n_candidates")
    joined = stored.join(expected, on=keys, how="inner")
    if not full:
        joined = joined.with_columns(pl.col("n_candidates").alias("candidates"))
    found = _nan(flat, stored, expected) + _wrong_targets(flat, stored, expected, part)
    found += _once(flat, examples, joined, part)
    if honest is not None:
        again = honest.select(*(pl.col(key).cast(pl.Int64) for key in keys), pl.col("rank").alias("fair"), "optimistic")
        joined = joined.join(again.unique(keys), on=keys, how="left")
    removed = _removed(flat, joined)
    found += _constant(flat, joined)
    rules = removed or _ties(flat, joined, honest is not None) or _not_reproduced(flat, joined, honest is not None)
    return found + rules + ([] if removed else _impossible(flat, joined))


def _expected(flat: Flat, examples: Examples, filter_seen: bool) -> pl.DataFrame:
    """A row a target: example, whether the history holds it, and how many candidates there must be."""
    owner = examples.owners
    targets = flat.items[examples.target_rows].astype(np.int64)
    n_items = flat.bundle.n_items
    lengths = examples.ends - examples.starts
    rows = range_rows(examples.starts, examples.ends)
    seen = np.unique(np.repeat(np.arange(len(examples)), lengths) * n_items + flat.items[rows])
    repeated = np.isin(owner * n_items + targets, seen)
    left = n_items - np.bincount(seen // n_items, minlength=len(examples))
    left += np.bincount(owner[repeated], minlength=len(examples))
    candidates = left[owner] if filter_seen else np.full(len(owner), n_items)
    return pl.DataFrame(
        {"expected_case": owner, "user": examples.users[owner].astype(np.int64), "target": targets,
         "row": examples.target_rows, "repeated": repeated & filter_seen, "candidates": candidates}
    )  # fmt: skip


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


def _nan(flat: Flat, stored: pl.DataFrame, expected: pl.DataFrame) -> list[Finding]:
    lost = stored.filter(pl.col("rank").is_null() | pl.col("rank").is_nan())
    if not lost.height:
        return []
    rest = ndcg_of(stored["rank"].fill_null(np.nan).fill_nan(None).drop_nulls().to_numpy())
    kept, total = (rest.mean() if len(rest) else float("nan")), (rest.sum() / stored.height)
    what = f"{count(lost.height, stored.height, 'ranks')} are NaN or missing."
    effect = f"NDCG@{AT} is {kept:.4f} when they are left out of the mean and {total:.4f} when they count as misses."
    fix = "A NaN score has no rank: find where the model diverged, and never average over what is left."
    return [finding("nan-scores", what, _examples(flat, lost), effect, fix)]


def _wrong_targets(flat: Flat, stored: pl.DataFrame, expected: pl.DataFrame, part: str) -> list[Finding]:
    other = stored.join(expected.select("user", "target"), on=["user", "target"], how="anti")
    if not other.height:
        return []
    right = ndcg_of(stored.join(other, on=["user", "target"], how="anti")["rank"].to_numpy())
    wrong = ndcg_of(other["rank"].to_numpy())
    what = f"{count(other.height, stored.height, 'ranks')} are of targets that the split does not ask for in {part}."
    effect = f"NDCG@{AT} is {wrong.mean():.4f} on them"
    effect += f" and {right.mean():.4f} on the split's own." if len(right) else "; none of the split's own is there."
    fix = "Rank the split's targets (Split.examples), with ids from the bundle's vocabulary."
    return [finding("wrong-target", what, _examples(flat, other), effect, fix)]


def _once(flat: Flat, examples: Examples, joined: pl.DataFrame, part: str) -> list[Finding]:
    """Every example once: a distributed sampler repeats some, a dropped last batch leaves some out."""
    answered = np.bincount(joined["expected_case"].to_numpy(), minlength=len(examples))
    sizes = np.diff(examples.target_offsets)
    times = np.where(answered > sizes, -(-answered // sizes), (answered >= sizes).astype(np.int64))
    values = np.full(len(examples), np.nan)
    mean = joined.group_by("expected_case").agg(pl.col("rank").min())
    values[mean["expected_case"].to_numpy()] = ndcg_of(mean["rank"].to_numpy())
    ranked = ~np.isnan(values)
    once = f"{values[ranked].mean():.4f}" if ranked.any() else "nowhere"
    effect = f"The ranker has NDCG@{AT} {once} over {int(ranked.sum()):,} examples once"
    if times[ranked].sum():
        effect += f", {(values * times)[ranked].sum() / times[ranked].sum():.4f} counted as here"
    problems = []
    for name, wrong, what, fix in (
        ("user-evaluated-twice", times > 1, "are counted more than once",
         "Evaluate on one process, or gather by example number and drop what a distributed sampler has repeated."),
        ("user-not-evaluated", times == 0, "are missing",
         "Keep the last, smaller batch (drop_last=False) and gather the ranks of all processes before averaging."),
    ):  # fmt: skip
        if wrong.any():
            where = (location(user=flat.bundle.users[USER][int(examples.users[n])], example=n, times=int(times[n]))
                     for n in np.flatnonzero(wrong).tolist())  # fmt: skip
            share = count(int(wrong.sum()), len(examples), f"{part} examples")
            problems.append(finding(name, f"{share} {what}.", where, effect + ".", fix))
    return problems


def _removed(flat: Flat, joined: pl.DataFrame) -> list[Finding]:
    """Targets that the user had before: the seen-item filter must leave them among the candidates."""
    repeated = joined.filter("repeated")
    gone = repeated.filter(
        (pl.col("n_candidates") < pl.col("candidates"))
        | (pl.col("rank") > pl.col("candidates"))
        | pl.col("rank").is_infinite()
    )
    if not gone.height:
        return []
    rest = joined.join(gone.select("user", "target"), on=["user", "target"], how="anti")
    parts = [float(ndcg_of(part["rank"].to_numpy()).mean()) if part.height else float("nan") for part in (gone, rest)]
    what = f"{count(gone.height, joined.height, 'targets')} were taken out of their candidates by the seen-item filter."
    effect = f"NDCG@{AT} is {parts[0]:.4f} on them and {parts[1]:.4f} on the others"
    if "fair" in gone.columns:
        effect += f"; ranked as candidates they have {float(ndcg_of(gone['fair'].to_numpy()).mean()):.4f}"
    fix = (
        "Filter what was seen, but never an example's own targets; or drop repeats with data.filters.duplicates=first."
    )
    return [finding("target-filtered-out", what, _examples(flat, gone), effect + ".", fix)]


def _ties(flat: Flat, joined: pl.DataFrame, measured: bool) -> list[Finding]:
    """Ranks that count equal scores for the target; without the model only the extreme shows: all ranks 1."""
    if not measured:
        if joined.height < 20 or not (joined["rank"] == 1).all() or (joined["candidates"] < 20).any():
            return []
        middle = ((joined["candidates"] + 1) / 2).to_numpy()
        what = f"All {joined.height:,} targets have rank 1: as if every score were the same and ties counted as hits."
        effect = f"NDCG@{AT} is {ndcg_of(joined['rank'].to_numpy()).mean():.4f}; a scorer of ties has "
        effect += f"{ndcg_of(middle).mean():.4f} by mean rank."
        return [finding("ties-counted-as-hits", what, _examples(flat, joined), effect, RULES)]
    tied = joined.filter(pl.col("fair") - pl.col("optimistic") >= 0.5)
    lucky = tied.filter((pl.col("rank") - pl.col("optimistic")).abs() < 0.25)
    if not lucky.height or lucky.height < 0.5 * tied.height:
        return []
    parts = [float(ndcg_of(joined[name].to_numpy()).mean()) for name in ("rank", "fair")]
    what = f"{count(lucky.height, joined.height, 'targets')} share their score with others and are ranked before them."
    effect = f"NDCG@{AT} is {parts[0]:.4f} as stored and {parts[1]:.4f} by the mean rank of ties."
    return [finding("ties-counted-as-hits", what, _examples(flat, lucky), effect, RULES)]


def _constant(flat: Flat, joined: pl.DataFrame) -> list[Finding]:
    """Every target in the very middle of its list: one score for everything."""
    middle = joined.filter(pl.col("rank") == (pl.col("n_candidates") + 1) / 2)
    if joined.height < 20 or middle.height < joined.height or (joined["n_candidates"] < 20).any():
        return []
    what = f"All {joined.height:,} targets stand in the very middle of their lists: every item has the same score."
    effect = f"NDCG@{AT} is {ndcg_of(joined['rank'].to_numpy()).mean():.4f}; where ties count for the target it is 1."
    fix = "Look for a head of zeros, weights that were never loaded, or a loss that was never applied."
    return [finding("constant-scores", what, _examples(flat, middle), effect, fix)]


def _not_reproduced(flat: Flat, joined: pl.DataFrame, measured: bool) -> list[Finding]:
    """Ranks that the model does not give. Rounding moves a few by a little: a fiftieth may differ by a twentieth."""
    if not measured or not joined.height:
        return []
    gap = (pl.col("rank") - pl.col("fair")).abs()
    other = joined.filter((gap > 2) & (gap > 0.05 * pl.col("fair")))
    if other.height <= 0.02 * joined.height:
        return []
    parts = [float(ndcg_of(joined[name].to_numpy()).mean()) for name in ("rank", "fair")]
    what = f"{count(other.height, joined.height, 'ranks')} are not those that the run's weights give."
    effect = f"NDCG@{AT} is {parts[0]:.4f} as stored and {parts[1]:.4f} computed again."
    fix = "Run deshi evaluate again on this run; weights, data or filter_seen have changed since these ranks."
    return [finding("rank-not-reproduced", what, _examples(flat, other), effect, fix)]


def _impossible(flat: Flat, joined: pl.DataFrame) -> list[Finding]:
    bad = joined.filter(
        (pl.col("rank") < 1)
        | (pl.col("rank") > pl.col("n_candidates"))
        | (pl.col("n_candidates") != pl.col("candidates"))
    )
    if not bad.height:
        return []
    counts = int((bad["n_candidates"] != bad["candidates"]).sum())
    what = (
        f"{count(bad.height, joined.height, 'ranks')} do not fit their lists; {counts:,} lists are of another length "
    )
    what += "than the catalogue without the seen items."
    parts = [float(ndcg_of(frame["rank"].to_numpy()).mean()) for frame in (bad, joined)]
    effect = f"NDCG@{AT} is {parts[0]:.4f} on them, {parts[1]:.4f} on all."
    fix = "Rank among all items that the history does not hold, from 1 (filter_seen says whether seen items count)."
    return [finding("rank-impossible", what, _examples(flat, bad), effect, fix)]

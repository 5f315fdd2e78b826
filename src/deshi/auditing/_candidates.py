"""Checks of candidate sets: each must hold its target once, and nothing twice."""

from __future__ import annotations

import polars as pl

from deshi.auditing._finding import Finding, count, finding, location
from deshi.auditing._probe import ndcg_of
from deshi.types import ITEM, USER


def audit_candidates(candidates: pl.DataFrame, ranks: pl.DataFrame | None = None) -> list[Finding]:
    """Check candidate sets.

    Args:
        candidates: a row an example: ``example``, ``user_id``, ``item_id`` (the target), ``candidates`` (a list of item
            ids).
        ranks: of the same part, with ``example`` and ``rank``, to measure effects on.
    """
    rows = candidates.with_columns(
        pl.col("candidates").list.contains(pl.col(ITEM)).alias("has_target"),
        pl.col("candidates").list.len().alias("size"),
        pl.col("candidates").list.n_unique().alias("distinct"),
        _times(candidates),
    )
    without = rows.filter(~pl.col("has_target"))
    double = rows.filter(pl.col("distinct") < pl.col("size"))
    findings = []
    if without.height:
        message = f"{count(without.height, rows.height, 'candidate sets')} do not hold their target."
        effect = f"Nobody can hit there: the hit rate is at most {1 - without.height / rows.height:.4f}" + _on(
            ranks, without
        )
        fix = "Put the target into the set, then draw the others from the rest of the catalogue."
        where = (
            location(example=row["example"], user=row[USER], item=row[ITEM])
            for row in without.head(5).iter_rows(named=True)
        )
        findings.append(finding("candidates-without-target", message, where, effect, fix))
    if double.height:
        target = int((double["times"] > 1).sum())
        message = (
            f"{count(double.height, rows.height, 'candidate sets')} hold an item more than once, {target:,} of them "
        )
        message += "the target."
        chance = [
            float((rows / double["size"]).to_numpy().mean()) for rows in (double["times"], double["times"] * 0 + 1)
        ]
        effect = f"A random pick hits with {chance[0]:.4f} instead of {chance[1]:.4f}"
        effect += _on(ranks, double)
        fix = "Draw without replacement, from the catalogue without the target and what the user has seen."
        where = (
            location(example=row["example"], user=row[USER], item=row[ITEM], distinct=row["distinct"], of=row["size"])
            for row in double.head(5).iter_rows(named=True)
        )
        findings.append(finding("candidates-with-duplicates", message, where, effect, fix))
    return findings


def _times(candidates: pl.DataFrame) -> pl.Series:
    """How often each set holds its target."""
    sets = candidates.select(pl.int_range(pl.len()).alias("row"), ITEM, "candidates").explode("candidates")
    counted = sets.group_by("row", maintain_order=True).agg((pl.col("candidates") == pl.col(ITEM)).sum().alias("times"))
    return counted["times"]


def _on(ranks: pl.DataFrame | None, affected: pl.DataFrame) -> str:
    """The end of an effect's sentence: the ranker's figures on the affected examples and on the others."""
    if ranks is None:
        return "."
    inside = ranks.filter(pl.col("example").is_in(affected["example"].implode()))["rank"].to_numpy()
    outside = ranks.filter(~pl.col("example").is_in(affected["example"].implode()))["rank"].to_numpy()
    figures = [f"{ndcg_of(part).mean():.4f}" if len(part) else "none" for part in (inside, outside)]
    return f"; NDCG@10 is {figures[0]} on these examples and {figures[1]} on the others."

"""The audit of an outsider's pair of files: interactions and predictions from any tool, no deshi run needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deshi.auditing.finding import Finding, in_order
from deshi.auditing.pair_alignment import check_alignment
from deshi.auditing.pair_building import Files, build, malformed, same_ids, same_units
from deshi.auditing.pair_candidates import check_candidates
from deshi.auditing.pair_claims import check_claims, read_claims
from deshi.auditing.pair_data import Pair
from deshi.auditing.pair_events import check_events
from deshi.auditing.pair_lists import check_lists
from deshi.auditing.pair_reading import Names, Table, check_named, read_events, read_predictions
from deshi.metrics.ranking import example_ranks, metrics_per_example
from deshi.metrics.significance import Interval, bootstrap_means, percentile_bounds
from deshi.types import DeshiError

REPORTED = ("ndcg", "hr", "mrr", "recall", "map")


@dataclass(frozen=True)
class PairAudit:
    """What the audit of a pair of files says.

    Attributes:
        findings: the worst first.
        metrics: recomputed, such as ``ndcg@10``, each with its 95 % bootstrap interval over users; recall and MAP
            only where users have several targets, as they are HR and MRR otherwise.
        notes: what was assumed and counted, a sentence each.
    """

    findings: tuple[Finding, ...]
    metrics: dict[str, Interval]
    notes: tuple[str, ...]


def audit_pair(
    interactions: Path,
    predictions: Path,
    test: Path | None = None,
    train: Path | None = None,
    names: Names | None = None,
    claimed: str | None = None,
    ks: Sequence[int] = (1, 5, 10, 20, 50),
    max_bad_rows: int = 100,
) -> PairAudit:
    """Recompute the metrics of ranked lists and look for everything that makes them doubtful.

    Args:
        interactions: csv, tsv or parquet with users, items and, if there are, timestamps.
        predictions: the same with users, items and a score or a rank.
        test: the held-out targets; without it each user's last event is the target (leave-one-out).
        train: what the model was trained on, to look for leaks.
        names: of the columns.
        claimed: figures that another tool printed, such as ``ndcg@10=0.117``; differences are explained.
        ks: list lengths; those longer than the longest list are left out.
        max_bad_rows: malformed rows of a file that are left out before it is an error.

    Raises:
        DeshiError: for files that can't be read or don't belong together, and for wrong arguments.
    """
    if not ks or min(ks) < 1:
        raise DeshiError(f"ks is {list(ks)}, expected numbers from 1.")
    claims = read_claims(claimed) if claimed is not None else []
    columns = names or Names()
    given = {"interactions": interactions, "predictions": predictions, "test": test, "train": train}
    check_named({key: path for key, path in given.items() if path is not None}, columns)
    files = Files(
        read_events(interactions, "interactions", columns, max_bad_rows),
        read_predictions(predictions, columns, max_bad_rows),
        None if test is None else read_events(test, "test", columns, max_bad_rows),
        None if train is None else read_events(train, "train", columns, max_bad_rows),
    )
    frames, ids = same_ids({key: table.frame for key, table in files.tables.items()})
    frames, units = same_units(frames)
    pair = build(files, frames, columns.higher_is_better, tuple(sorted(set(ks))))
    aligned = list(check_alignment(pair))
    findings = [*malformed(files), *ids, *units, *check_events(pair), *check_lists(pair), *aligned]
    findings += check_candidates(pair, aligned=not aligned)
    findings += check_claims(pair, claims)
    return PairAudit(tuple(in_order(findings)), recomputed(pair), tuple(_notes(files, pair, columns)))


def recomputed(pair: Pair) -> dict[str, Interval]:
    """Every metric at every K over all examples, with its bootstrap interval."""
    grouped = example_ranks(pair.ranks, pair.example, len(pair.example_user))
    values = metrics_per_example(grouped, pair.ks)
    several = len(pair.example) > len(pair.example_user)
    wanted = [f"{name}@{k}" for name in (REPORTED if several else REPORTED[:3]) for k in pair.ks]
    table = np.stack([values[name] for name in wanted], axis=1)
    low, high = percentile_bounds(bootstrap_means(table))
    means = table.mean(axis=0)
    return {
        name: Interval(float(means[place]), float(low[place]), float(high[place])) for place, name in enumerate(wanted)
    }


def _notes(files: Files, pair: Pair, names: Names) -> list[str]:
    """What was assumed."""
    lengths = pair.lists.lengths[pair.example_user]
    order = "timestamps, equal ones in the order of the lines" if pair.events.time is not None else "order of the lines"
    target = (
        f"the targets are those of {_name(files.test)}; a history is all else in {_name(files.interactions)}"
        if pair.held_out
        else f"leave-one-out is assumed: the target is each user's last event by the {order}, the one before it is "
        "validation"
    )
    by = "score, higher is better" if names.higher_is_better else "score, lower is better"
    return [
        f"{len(pair.events.user):,} interactions of {pair.users.known:,} users with {pair.items.known:,} items; "
        f"{len(pair.predicted.line):,} predictions of {int((pair.lists.lengths > 0).sum()):,} users, "
        f"{int(lengths.min()):,} to {int(lengths.max()):,} items a list.",
        f"Protocol: {target}. {len(pair.example_user):,} users with {len(pair.target):,} targets.",
        f"Ranked by {by if pair.predicted.scored else 'rank'}; ties take their mean rank; a target that is not in the "
        "user's list is a miss; intervals are 95 % by bootstrap over users.",
    ]


def _name(table: Table | None) -> str:
    return table.path.name if table is not None else ""

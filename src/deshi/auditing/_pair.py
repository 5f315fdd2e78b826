"""The audit of a pair of files from any tool, interactions and predictions, without a run of deshi."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deshi.auditing._finding import Finding, in_order
from deshi.auditing._pair_alignment import check_alignment
from deshi.auditing._pair_building import build_pair
from deshi.auditing._pair_candidates import check_candidates
from deshi.auditing._pair_claims import check_claims, read_claims
from deshi.auditing._pair_data import Pair
from deshi.auditing._pair_events import check_events
from deshi.auditing._pair_files import Names, check_named, read_events, read_predictions
from deshi.auditing._pair_ids import malformed_rows, same_ids, same_units
from deshi.auditing._pair_lists import check_lists
from deshi.metrics import Interval, bootstrap_means, example_ranks, metrics_per_example, percentile_bounds
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
    paths = {"interactions": interactions, "predictions": predictions, "test": test, "train": train}
    files = {key: path for key, path in paths.items() if path is not None}
    check_named(files, columns)
    tables = {
        key: read_predictions(path, columns, max_bad_rows)
        if key == "predictions"
        else read_events(path, key, columns, max_bad_rows)
        for key, path in files.items()
    }
    frames, ids = same_ids({key: table.frame for key, table in tables.items()})
    frames, units = same_units(frames)
    pair = build_pair(tables, frames, columns.higher_is_better, tuple(sorted(set(ks))))
    aligned = list(check_alignment(pair))
    findings = [*malformed_rows(tables), *ids, *units, *check_events(pair), *check_lists(pair), *aligned]
    findings += check_candidates(pair, aligned=not aligned)
    findings += check_claims(pair, claims)
    return PairAudit(tuple(in_order(findings)), _metrics(pair), tuple(_notes(pair, columns)))


def _metrics(pair: Pair) -> dict[str, Interval]:
    """Every metric at every K over all examples, with its bootstrap interval."""
    grouped = example_ranks(pair.ranks, pair.examples.owners, len(pair.examples))
    values = metrics_per_example(grouped, pair.ks)
    names = [f"{name}@{k}" for name in (REPORTED if pair.several else REPORTED[:3]) for k in pair.ks]
    table = np.stack([values[name] for name in names], axis=1)
    figures = np.stack([table.mean(axis=0), *percentile_bounds(bootstrap_means(table))], axis=1)
    return {name: Interval(*row) for name, row in zip(names, figures.tolist(), strict=True)}


def _notes(pair: Pair, names: Names) -> list[str]:
    """What was assumed."""
    lengths = pair.lists.lengths[pair.examples.users]
    order = "timestamps, equal ones in the order of the lines" if pair.timed else "order of the lines"
    target = (
        f"the targets are those of {pair.tables['test'].path.name}; a history is all else in "
        f"{pair.tables['interactions'].path.name}"
        if pair.held_out
        else f"leave-one-out is assumed: the target is each user's last event by the {order}, the one before it is "
        "validation"
    )
    by = "score, higher is better" if names.higher_is_better else "score, lower is better"
    return [
        f"{pair.interactions.height:,} interactions of {pair.n_known_users:,} users with {pair.n_known_items:,} items; "
        f"{pair.predictions.height:,} predictions of {int((pair.lists.lengths > 0).sum()):,} users, "
        f"{int(lengths.min()):,} to {int(lengths.max()):,} items a list.",
        f"Protocol: {target}. {len(pair.examples):,} users with {len(pair.targets):,} targets.",
        f"Ranked by {by if pair.scored else 'rank'}; ties take their mean rank; a target that is not in the "
        "user's list is a miss; intervals are 95 % by bootstrap over users.",
    ]

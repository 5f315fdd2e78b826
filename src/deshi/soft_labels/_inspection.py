"""Inspection of a store: coverage, ranks of targets, the memorisation gap, sharpness, popularity, examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.arrays import Floats, Ints
from deshi.data.bundle import Bundle
from deshi.data.splits import Split
from deshi.metrics import Interval, bootstrap_means, coverage, gini, novelty, percentile_bounds
from deshi.models.scorers import Scorer
from deshi.soft_labels._agreement import jaccard, rbo
from deshi.soft_labels._histories import Histories
from deshi.soft_labels._inspection_result import (
    Example,
    Inspection,
    ListStatistics,
    Overlap,
    PartStatistics,
    memorisation_gap,
)
from deshi.soft_labels._labeller import Labeller
from deshi.soft_labels._store import SoftLabels
from deshi.soft_labels._targets import LATEST, TRAIN, Targets, row_targets
from deshi.types import ITEM, PAD, TITLE, USER, DeshiError, ScoreKind

_BLOCK = 1 << 15
_SHOWN = 10
"""List length of overlap and popularity."""

HISTORY, LISTED = 4, 5
"""How much an example shows: the latest items of the history, the first items of the list."""


def inspect_soft_labels(
    soft_labels: SoftLabels,
    bundle: Bundle,
    split: Split,
    other: SoftLabels | Scorer | None = None,
    other_name: str = "the other",
    sample: int = 2000,
    examples: int = 4,
    samples: int = 1000,
    seed: int = 0,
    device: str = "cpu",
) -> Inspection:
    """Look into a store.

    Args:
        soft_labels: the store.
        bundle: its data.
        split: which rows are training rows, and which held out.
        other: lists to compare with: another store of the same data, or a student, which labels the same rows.
        other_name: its name in the result.
        sample: rows that are drawn for the overlap and the popularity of what is listed.
        examples: rows shown with titles.
        samples: resamples of the bootstrap intervals (over users).
        seed: of everything that is drawn.
        device: where a student computes.

    Raises:
        DeshiError: if the store or the student doesn't belong to the data, or no row is covered.
    """
    histories = soft_labels.histories(bundle)
    if histories.data_fingerprint != bundle.fingerprint or soft_labels.n_rows != histories.n_interactions:
        raise DeshiError(
            f"{soft_labels.path} isn't about {bundle.name} as it is. Open it with SoftLabels.load(path, bundle)."
        )
    if not soft_labels.covered.any():
        raise DeshiError(f"{soft_labels.path} covers no row: there is nothing to inspect.")
    targets = row_targets(histories, bundle, split)
    covered = [part.at(soft_labels.covered[part.rows]) for part in targets]
    counts = _training_events(bundle, split)
    measured = [_Measured.of(soft_labels, part, counts) for part in covered]
    cutoffs = sorted({min(k, soft_labels.k) for k in (1, _SHOWN, soft_labels.k)})
    intervals, gaps = _intervals(measured, cutoffs, samples, seed)
    parts = [
        part.statistics(len(every.rows), intervals.get(part.targets.name, {}))
        for part, every in zip(measured, targets, strict=True)
    ]
    generator = np.random.Generator(np.random.SFC64([seed, 31]))
    rows = _draw(np.flatnonzero(soft_labels.covered), sample, generator)
    overlap = None if other is None else _overlap(soft_labels, histories, rows, other, other_name, device)
    drawn = _examples(soft_labels, histories, bundle, covered, examples, generator)
    headline = f"hr@{min(_SHOWN, soft_labels.k)}"
    return Inspection(
        soft_labels.path, soft_labels.manifest, int(soft_labels.covered.sum()), parts,
        memorisation_gap(headline, parts, gaps), _list_statistics(soft_labels, rows, counts), overlap, drawn,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Measured:
    """Covered rows of one kind, with statistics of each."""

    targets: Targets
    ranks: Ints  # of the target, from 1; 0 if the list doesn't hold it
    entropy: Floats  # NaN where the scores are no logits or probabilities
    mass: Floats  # of the list, NaN where the scores don't say it
    listed_events: Floats
    target_events: Floats

    @classmethod
    def of(cls, soft_labels: SoftLabels, targets: Targets, counts: Ints) -> _Measured:
        size, kind = len(targets.rows), soft_labels.score_kind
        ranks = np.zeros(size, dtype=np.int64)
        entropy, mass, events = (np.full(size, np.nan) for _ in range(3))
        for part in (slice(begin, begin + _BLOCK) for begin in range(0, size, _BLOCK)):
            items, scores = soft_labels.rows(targets.rows[part])
            hit = items == targets.items[part, None]
            ranks[part] = np.where(hit.any(1), hit.argmax(1) + 1, 0)
            entropy[part], mass[part] = sharpness(items, scores, kind)
            events[part] = _mean_events(items[:, :_SHOWN], counts)
        return cls(targets, ranks, entropy, mass, events, counts[targets.items].astype(np.float64))

    def values(self, cutoffs: Sequence[int]) -> dict[str, Floats]:
        """``(M,)`` of each metric."""
        hits = {f"hr@{k}": ((self.ranks > 0) & (self.ranks <= k)).astype(np.float64) for k in cutoffs}
        return hits | {f"mrr@{cutoffs[-1]}": np.where(self.ranks > 0, 1 / np.maximum(self.ranks, 1), 0.0)}

    def statistics(self, positions: int, intervals: dict[str, Interval]) -> PartStatistics:
        means = (_mean(self.entropy), _mean(self.mass), _mean(self.listed_events), _mean(self.target_events))
        return PartStatistics(self.targets.name, len(self.ranks), positions, intervals, *means)


def sharpness(items: Ints, scores: NDArray[np.float32], kind: ScoreKind) -> tuple[Floats, Floats]:
    """Entropy of lists, and the share of the teacher's probability that they hold.

    Args:
        items: ``(B, K)``, ``PAD`` after a list's end.
        scores: ``(B, K)``.
        kind: of the scores.

    Returns:
        the entropy ``(B,)`` in nats of the softmax over the listed items (of probabilities: of them, normalised), and
        the listed items' total probability ``(B,)``; NaN where the kind of score doesn't give it, or a list is empty.
    """
    real, unknown = items != PAD, np.full(len(items), np.nan)
    if not kind.is_calibrated:
        return unknown, unknown
    values = scores.astype(np.float64)
    with np.errstate(divide="ignore"):
        values = np.log(values) if kind is ScoreKind.PROBABILITY else values
    values = np.where(real, values, -np.inf)
    # softmax over the listed items, less the best value so that nothing overflows; an empty list has no best value
    best = values.max(1, keepdims=True, initial=-np.inf)
    weights = np.exp(values - np.where(np.isfinite(best), best, 0.0))
    total = weights.sum(1, keepdims=True)
    shares = weights / np.where(total > 0, total, 1.0)
    # x log x is 0 at x = 0
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(1)
    # logits are known up to a constant only, so that their probability among all items isn't
    mass = unknown if kind is ScoreKind.LOGIT else np.exp(values).sum(1)
    empty = total[:, 0] <= 0
    return np.where(empty, np.nan, entropy), np.where(empty, np.nan, mass)


def _intervals(
    measured: Sequence[_Measured], cutoffs: Sequence[int], samples: int, seed: int
) -> tuple[dict[str, dict[str, Interval]], dict[tuple[str, str, str], Interval]]:
    """The metrics of each kind of rows, and the differences of training rows to held-out rows.

    Users are resampled with all of their rows, so that the differences are paired ones. A metric is a mean over rows.
    """
    covered = [part for part in measured if len(part.ranks)]
    if not covered:
        return {}, {}
    # one column a part and metric: each user's sum over rows; the metric "" counts the user's rows
    users = np.unique(np.concatenate([part.targets.users for part in covered]))
    columns, names = list[Floats](), list[tuple[str, str]]()
    for part in covered:
        index = np.searchsorted(users, part.targets.users)
        for metric, values in {"": np.ones(len(index)), **part.values(cutoffs)}.items():
            columns.append(np.bincount(index, values, len(users)).astype(np.float64))
            names.append((part.targets.name, metric))
    sums = np.stack(columns, axis=1)
    # the first row is the data's own mean over users, the others are resamples; all columns share the drawn users.
    # A mean over rows is the ratio of two means over users: sums over counts.
    means = np.concatenate([sums.mean(0, keepdims=True), bootstrap_means(sums, samples, seed)])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = {
            name: means[:, column] / means[:, names.index((name[0], ""))]
            for column, name in enumerate(names)
            if name[1]
        }
    intervals: dict[str, dict[str, Interval]] = {}
    for (name, metric), values in ratios.items():
        intervals.setdefault(name, {})[metric] = _interval(values)
    gaps = {
        (train, held, metric): _interval(values - ratios[held, metric])
        for (train, metric), values in ratios.items()
        for held in ("validation", "test")
        if train in (TRAIN, LATEST) and (held, metric) in ratios
    }
    return intervals, gaps


def _interval(values: Floats) -> Interval:
    """The interval of a statistic: its value, then its resampled values; resamples without such a row are NaN."""
    low, high = percentile_bounds(values[1:][np.isfinite(values[1:])])
    return Interval(float(values[0]), float(low), float(high))


def _overlap(
    soft_labels: SoftLabels, histories: Histories, rows: Ints, other: SoftLabels | Scorer, name: str, device: str
) -> Overlap:
    length = min(_SHOWN, soft_labels.k)
    if isinstance(other, SoftLabels):
        if other.augmented != soft_labels.augmented or other.n_rows != soft_labels.n_rows:
            raise DeshiError(
                f"{other.path} and {soft_labels.path} are about other histories: their rows can't be compared."
            )
        length = min(length, other.k)
        rows = rows[other.covered[rows]]
        others = other.rows(rows)[0][:, :length]
    else:
        others = np.full((len(rows), length), PAD, dtype=np.int64)
        labeller = Labeller(other, histories, length, bool(soft_labels.manifest["filter_seen"]), device=device)
        for numbers, items, _ in labeller.label(rows):
            others[np.searchsorted(rows, numbers)] = items
    lists = soft_labels.rows(rows)[0][:, :length]
    first = _mean((lists[:, 0] == others[:, 0]).astype(np.float64))
    return Overlap(name, len(rows), length, _mean(jaccard(lists, others)), _mean(rbo(lists, others)), first)


def _list_statistics(soft_labels: SoftLabels, rows: Ints, counts: Ints) -> ListStatistics:
    k, lists = min(_SHOWN, soft_labels.k), soft_labels.rows(rows)[0]
    events = _mean(_mean_events(lists[:, :k], counts))
    shares = (coverage(lists, k, len(counts)), gini(lists, k, len(counts)), _mean(novelty(lists, k, counts)))
    return ListStatistics(len(rows), k, events, float(counts.mean()), *shares)


def _examples(
    soft_labels: SoftLabels,
    histories: Histories,
    bundle: Bundle,
    covered: Sequence[Targets],
    count: int,
    generator: np.random.Generator,
) -> list[Example]:
    """Rows drawn at random, half of them training rows, half held out, as far as there are."""
    table = bundle.item_table()
    titles = table.select(pl.coalesce(pl.when(pl.col(TITLE) != "").then(pl.col(TITLE)), ITEM)).to_series().to_list()
    # the latest training rows are training rows too: they'd be drawn twice
    parts = [part for part in covered if part.name != LATEST and len(part.rows)]
    drawn = []
    for number in range(count if parts else 0):
        # one part after the other, a random row of each
        part = parts[number % len(parts)]
        index = int(generator.integers(len(part.rows)))
        row, target = int(part.rows[index]), int(part.items[index])
        # the row's event is the history's last
        start = int(histories.offsets[histories.owners(np.array([row]))[0]])
        history = np.asarray(histories.items[max(start, row + 1 - HISTORY) : row + 1]).tolist()
        items = [item for item in soft_labels.rows([row])[0][0].tolist() if item != PAD]
        rank = items.index(target) + 1 if target in items else None
        user = str(bundle.users[USER][int(part.users[index])])
        names = [titles[item] for item in history], titles[target], [titles[item] for item in items[:LISTED]]
        drawn.append(Example(part.name, row, user, *names, rank))
    return drawn


def _training_events(bundle: Bundle, split: Split) -> Ints:
    """``(n_items,)`` how often each item was trained on."""
    inside = np.arange(bundle.n_interactions) < np.repeat(split.train_end, np.diff(bundle.offsets))
    return np.bincount(np.asarray(bundle.items)[inside], minlength=bundle.n_items).astype(np.int64)


def _mean_events(lists: Ints, counts: Ints) -> Floats:
    """``(B,)`` mean training events of each list's items, NaN for an empty one."""
    real = lists != PAD
    sums = np.where(real, counts[lists], 0).sum(1)
    return np.where(real.any(1), sums / np.maximum(real.sum(1), 1), np.nan)


def _draw(rows: Ints, count: int, generator: np.random.Generator) -> Ints:
    return rows if len(rows) <= count else np.sort(generator.choice(rows, count, replace=False))


def _mean(values: Floats) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")

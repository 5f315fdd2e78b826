"""Figures that another tool printed, compared with those that its files give, and the reasons for differences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from deshi.arrays import Bools, Floats
from deshi.auditing._finding import Finding, finding
from deshi.auditing._pair_alignment import earlier_ranks
from deshi.auditing._pair_candidates import without_seen
from deshi.auditing._pair_data import Pair
from deshi.auditing._pair_lists import BATCHES
from deshi.metrics import METRICS, example_ranks, read_metric
from deshi.types import DeshiError

OTHER_KS = (1, 3, 5, 10, 20, 50, 100)
NAMES = {"hit": "hr", "hits": "hr", "hitrate": "hr", "hit_rate": "hr", "hitratio": "hr"}


@dataclass(frozen=True)
class Claim:
    """A printed figure.

    Attributes:
        metric: ndcg, recall, hr, mrr or map.
        k: the list length.
        value: the figure.
        tolerance: half a unit of its last digit.
    """

    metric: str
    k: int
    value: float
    tolerance: float

    def __str__(self) -> str:
        return f"{self.metric}@{self.k}"

    def fits(self, value: float) -> bool:
        """Whether ``value`` is printed as the claim is."""
        return abs(value - self.value) <= self.tolerance * 1.001 + 1e-9


def read_claims(text: str) -> list[Claim]:
    """Read printed figures such as ``ndcg@10=0.117, hr@10=0.2``.

    Raises:
        DeshiError: for a text of another form, or an unknown metric.
    """
    claims = []
    for part in filter(None, (piece.strip() for piece in re.split(r"[,;]\s*|\s+", text))):
        match = re.fullmatch(r"([A-Za-z_]+)@(\d+)[=:]([0-9]*\.?[0-9]+)", part)
        if match is None:
            raise DeshiError(f"claimed={text!r}: {part!r} is no METRIC@K=VALUE such as ndcg@10=0.117.")
        name, k, value = match[1].lower(), match[2], float(match[3])
        metric = read_metric(f"{NAMES.get(name, name)}@{k}", f"claimed={text!r}: the metric is")
        if value > 1:
            raise DeshiError(f"claimed={text!r}: {part!r} is above 1; give a share, e.g. 0.117 for 11.7 %.")
        claims.append(Claim(*metric, value, 0.5 * 10.0 ** -len(match[3].partition(".")[2])))
    if not claims:
        raise DeshiError("claimed is empty, expected figures such as claimed='ndcg@10=0.117'.")
    return claims


class Reading(NamedTuple):
    """A way to come to a figure: the finding's name if it is this one, a phrase, and the figure."""

    check: str
    how: str
    value: float


def check_claims(pair: Pair, claims: list[Claim]) -> Iterator[Finding]:
    """A finding for every claim that the files don't give, with the readings that do."""
    for claim in claims:
        recomputed = _mean(pair, claim.metric, claim.k, pair.ranks)
        if claim.fits(recomputed):
            continue
        readings = list(_readings(pair, claim))
        fitting = [reading for reading in readings if claim.fits(reading.value)]
        near = min(readings, key=lambda reading: abs(reading.value - claim.value))
        check = fitting[0].check if fitting else "claim-not-reproduced"
        # with few digits or many readings a fit can be chance, so all of them are reported
        if fitting:
            fits = ", or ".join(f"{reading.how} ({reading.value:.5f})" for reading in fitting[:4])
            explained = f"It is what one gets {fits}"
        elif abs(near.value - claim.value) < 0.9 * abs(recomputed - claim.value):
            explained = f"No usual reading gives it; the nearest is {near.value:.5f} {near.how}"
        else:
            explained = "No usual reading comes nearer"
        yield finding(
            check,
            f"The claimed {claim} {claim.value:g} does not follow from the files, which give {recomputed:.5f}. "
            f"{explained}.",
            [f"{claim}: claimed {claim.value:g}, recomputed {recomputed:.5f}"],
            f"{claim.value - recomputed:+.5f}, which is {100 * (claim.value / recomputed - 1):+.1f} %."
            if recomputed
            else "From 0.",
            "Report the mean over all users with a target, ties by mean rank, and say K, candidates and filter.",
        )


def _readings(pair: Pair, claim: Claim) -> Iterator[Reading]:
    """Usual other ways to a figure, the likeliest first."""
    lists, user, target, other = pair.lists, pair.target_users, pair.targets, "claim-not-reproduced"

    def mean(ranks: Floats, keep: Bools | None = None) -> float:
        return _mean(pair, claim.metric, claim.k, ranks, keep)

    yield from _batches(pair, claim)
    for name, ranks in (("in favour of", lists.best), ("against", lists.worst)):
        value = mean(lists.ranks_of(user, target, ranks))
        yield Reading("ties-counted-as-hits", f"with ties counted {name} the target", value)
    listed = lists.lengths[user] > 0
    yield Reading("user-not-evaluated", "over the users with predictions only", mean(pair.ranks, listed))
    yield Reading(other, "over the users whose list holds the target", mean(pair.ranks, np.isfinite(pair.ranks)))
    for ranks, name in zip(earlier_ranks(pair)[1:], ("second last (validation)", "third last"), strict=True):
        value = float(METRICS[claim.metric](example_ranks(ranks), claim.k).mean())
        yield Reading(other, f"for the {name} event instead of the target", value)
    yield Reading(other, "with the lists the other way round", mean(lists.ranks_of(user, target, lists.reversed)))
    yield Reading(other, "without the items that users already have", mean(without_seen(pair)))
    yield from _other_definitions(pair, claim)


def _batches(pair: Pair, claim: Claim) -> Iterator[Reading]:
    """Means of batch means, and without the last batch, with the users in the order in which the lists name them."""
    grouped = example_ranks(pair.ranks, pair.examples.owners, len(pair.examples))
    first_line = np.full(pair.bundle.n_users, np.iinfo(np.int64).max)
    np.minimum.at(first_line, pair.predictions["user"].to_numpy(), pair.predictions["line"].to_numpy())
    order = np.argsort(first_line[pair.examples.users], kind="stable")
    values = METRICS[claim.metric](grouped, claim.k)[order]
    for size in BATCHES:
        if size >= len(values) or len(values) % size == 0:
            continue
        mean = float(np.mean([values[start : start + size].mean() for start in range(0, len(values), size)]))
        yield Reading("averaged-by-batch", f"as the mean of the means of batches of {size}", mean)
        kept = values[: len(values) // size * size]
        yield Reading("last-batch-dropped", f"without the last batch of {size}", float(kept.mean()))


def _other_definitions(pair: Pair, claim: Claim) -> Iterator[Reading]:
    check = "claim-not-reproduced"
    # with one target an example, recall is HR and MAP is MRR: no other reading
    single = {"recall": "hr", "map": "mrr"} if not pair.several else {}
    for name in METRICS:
        if name not in single and name != single.get(claim.metric, claim.metric):
            yield Reading(check, f"as {name}@{claim.k}", _mean(pair, name, claim.k, pair.ranks))
    for k in sorted({*OTHER_KS, claim.k - 1, claim.k + 1} - {claim.k, 0}):
        yield Reading(check, f"at K={k}", _mean(pair, claim.metric, k, pair.ranks))
    if claim.metric == "recall":
        hits = np.bincount(pair.examples.owners[pair.ranks <= claim.k], minlength=len(pair.examples))
        sizes = np.minimum(np.diff(pair.examples.target_offsets), claim.k)
        yield Reading(check, "with hits divided by min(K, number of targets)", float((hits / sizes).mean()))
    if claim.metric == "mrr":
        yield Reading(check, "without a cut at K", _mean(pair, "mrr", 10**9, pair.ranks))
    if claim.metric == "ndcg":
        gains = np.where(pair.ranks <= claim.k, 1 / np.log(1 + pair.ranks), 0.0)
        yield Reading(check, "with natural logarithms and no division by the ideal", float(gains.mean()))


def _mean(pair: Pair, metric: str, k: int, ranks: Floats, keep: Bools | None = None) -> float:
    """A metric of other ranks: the mean over examples, or over those whose targets ``keep`` marks."""
    chosen = np.ones(len(ranks), dtype=bool) if keep is None else keep
    if not chosen.any():
        return 0.0
    grouped = example_ranks(ranks[chosen], pair.examples.owners[chosen], len(pair.examples))
    return float(METRICS[metric](grouped, k)[grouped.sizes > 0].mean())

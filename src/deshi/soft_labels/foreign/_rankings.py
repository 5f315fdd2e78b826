"""Checks of ranked lists: ids or positions, distances or scores, ids in range. Each refusal has the counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from deshi.arrays import Ints
from deshi.types import DeshiError

ScoreMeaning = Literal["distance", "score"]
AGREEMENT = 0.99
"""The share of rows that must rise or fall as the stated direction says."""

FULL = 2_000
"""In so many rows at most, entries are compared with their distances: sorting all takes long and adds nothing."""


@dataclass(frozen=True)
class RankEvidence:
    """Whether a matrix holds item ids, best first, or each item's position.

    Attributes:
        holds: ``ids``, ``positions`` or ``unclear``.
        why: the observation behind it, with counts.
    """

    holds: Literal["ids", "positions", "unclear"]
    why: str


def rank_evidence(
    ranks: Ints, n_items: int, next_items: Ints | None = None, distances: np.ndarray | None = None
) -> RankEvidence:
    """Tell lists of item ids from lists of positions.

    BIGRec's ``rank`` is ``dist.argsort().argsort()``: entry ``j`` is the position of item ``j``. DLLM2Rec's
    ``myrank_train.txt`` wants ``dist.argsort()``: entry ``j`` is the item at position ``j``. Both look alike.

    Args:
        ranks: ``(M, K)``.
        n_items: number of items ``N``; a full ranking has ``K = N``.
        next_items: ``(M,)`` the true next items, or None.
        distances: ``(M, K)``, what belongs to each entry, smaller is better, or None.
    """
    rows, width = ranks.shape
    if not rows or width < 2:
        return RankEvidence("unclear", f"{rows} rows of {width} entries are too few to tell")
    if width < n_items and (np.sort(ranks, axis=1) == np.arange(width)).all():
        return RankEvidence("positions", f"every one of {rows} rows is a permutation of 0 to {width - 1}")
    if distances is not None and distances.shape == ranks.shape:
        evidence = _by_distance(ranks, distances)
        if evidence is not None:
            return evidence
    if next_items is None:
        return RankEvidence("unclear", "neither sorted distances nor true next items are known")
    return _by_truth(ranks, next_items) if width == n_items else _by_columns(ranks, n_items, next_items)


def _by_distance(ranks: Ints, distances: np.ndarray) -> RankEvidence | None:
    """Positions lie in the order of their own distances; ids, best first, have rising distances."""
    rising = (np.diff(distances, axis=1) >= 0).all(axis=1).mean()
    if rising >= AGREEMENT:
        return RankEvidence("ids", f"{rising:.1%} of {len(ranks)} rows have rising distances")
    # sorted by their distances, positions are 0, 1, 2, ...
    order = distances[:FULL].argsort(axis=1, kind="stable")
    same = (np.diff(np.take_along_axis(ranks[:FULL], order, axis=1), axis=1) > 0).all(axis=1).mean()
    if same >= AGREEMENT:
        return RankEvidence("positions", f"in {same:.1%} of the rows the entries rise with their unsorted distances")
    return None


def _by_truth(ranks: Ints, next_items: Ints) -> RankEvidence:
    """In a full ranking, the true item's position under both readings: a teacher beats chance in the right one."""
    rows = np.arange(len(ranks))
    as_positions = 1.0 / (1 + ranks[rows, next_items])
    as_ids = 1.0 / (1 + (ranks == next_items[:, None]).argmax(axis=1))
    chance = float(np.mean(1.0 / np.arange(1, ranks.shape[1] + 1)))
    margin = 4 * float(np.std(as_positions - as_ids)) / np.sqrt(len(rows))
    difference = float(as_positions.mean() - as_ids.mean())
    why = (
        f"the true next item has a mean reciprocal rank of {as_ids.mean():.4f} if the entries are ids and "
        f"{as_positions.mean():.4f} if they are positions ({chance:.4f} by chance, {len(rows)} rows)"
    )
    if len(rows) < 5 or abs(difference) <= margin:
        return RankEvidence("unclear", why)
    return RankEvidence("positions" if difference > 0 else "ids", why)


def _by_columns(ranks: Ints, n_items: int, next_items: Ints) -> RankEvidence:
    """In cut lists of positions, column ``j`` is item ``j``: it is small where ``j`` is the true next item.

    Besides, each column gathers around a value of its own. Lists of ids can do that too (everybody's best is the most
    popular item), but then they find the truth more often than by chance.
    """
    rows, width = ranks.shape
    hits, chance = float((ranks == next_items[:, None]).any(axis=1).mean()), width / n_items
    if hits > chance + 4 * np.sqrt(chance / rows):
        return RankEvidence("ids", f"the true next item is in {hits:.2%} of {rows} lists ({chance:.2%} by chance)")
    # rows whose true next item has a column: is the reciprocal of its entry above the row's mean?
    inside = np.flatnonzero(next_items < width)
    value = 1.0 / (1 + ranks[inside])
    true = value[np.arange(len(inside)), next_items[inside]] - value.mean(axis=1)
    error = float(true.std()) / np.sqrt(max(len(inside), 1))
    # the share of the variance that lies between columns
    total = float(ranks.var())
    share = float(ranks.mean(axis=0).var()) / total if total else 0.0
    why = (
        f"the true next item is in {hits:.2%} of {rows} lists ({chance:.2%} by chance); the entry in its column is "
        f"smaller than others with {true.mean() / error if error else 0:.1f} standard errors ({len(inside)} rows); the "
        f"mean entry differs between columns by {share:.0%} of the variance"
    )
    positions = (len(inside) >= 10 and true.mean() > 4 * error) or (share > 0.2 and rows >= 20)
    return RankEvidence("positions" if positions else "unclear", why)


def check_ranks(ranks: np.ndarray, n_items: int, id_base: int, source: str) -> Ints:
    """Whole numbers, in range, each item once a row.

    Returns:
        the ids as int64, still in the foreign numbering.

    Raises:
        DeshiError: with the counts got and expected.
    """
    if ranks.ndim != 2:
        raise DeshiError(f"{source} has {ranks.ndim} dimensions, expected 2: rows and the items of each list.")
    whole = np.isfinite(ranks) & (ranks == np.floor(ranks))
    if not whole.all():
        raise DeshiError(f"{source} holds {(~whole).sum()} entries that are no whole numbers, expected item ids only.")
    ids = ranks.astype(np.int64)
    wrong = (ids < id_base) | (ids >= id_base + n_items)
    if wrong.any():
        raise DeshiError(
            f"{source} holds ids {ids.min()} to {ids.max()}, {wrong.sum()} of {ids.size} out of range, expected "
            f"{id_base} to {id_base + n_items - 1} for {n_items} items. Check id_base (0 or 1) and the number of items."
        )
    repeated = (np.diff(np.sort(ids, axis=1), axis=1) == 0).any(axis=1)
    if repeated.any():
        raise DeshiError(f"{source}: {repeated.sum()} of {len(ids)} rows hold an item twice, expected each item once.")
    return ids


def check_direction(values: np.ndarray, meaning: ScoreMeaning, source: str) -> None:
    """Refuse scores that don't get worse along the lists in the stated direction.

    Raises:
        DeshiError: with the shares of rising and falling rows.
    """
    if not np.isfinite(values).all():
        raise DeshiError(f"{source} holds {(~np.isfinite(values)).sum()} entries of NaN or infinity, expected numbers.")
    steps = np.diff(values, axis=1)
    rising, falling = (steps >= 0).all(axis=1).mean(), (steps <= 0).all(axis=1).mean()
    good, other = (rising, falling) if meaning == "distance" else (falling, rising)
    if len(values) and good < AGREEMENT:
        hint = "score" if meaning == "distance" else "distance"
        advice = f"Pass confidence={hint}." if other >= AGREEMENT else "The lists and the scores don't belong together."
        raise DeshiError(
            f"{source}: {good:.1%} of {len(values)} rows get worse along the list if the values are of the kind "
            f"{meaning!r} ({'smaller' if meaning == 'distance' else 'larger'} is better), expected {AGREEMENT:.0%}; "
            f"{other:.1%} do if they are of the kind {hint!r}. {advice}"
        )

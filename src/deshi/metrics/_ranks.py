"""Exact ranks of targets among all candidates, ties by mean rank.

The rank of a target is ``1 + (candidates that score higher) + (other candidates that score the same) / 2``.
So a scorer that gives every item the same score ranks every target in the middle of the list, at chance
level, never at the top. A row's candidates are all items except the seen ones. A target among the seen
items is no candidate, as in the list that is served: its rank is infinite, a miss for every metric at every K.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deshi.types import PAD, DeshiError, check_shape

_ROWS = 256
"""Rows ranked at a time: the working copy of the scores stays small and close to the cache."""


class ScoreError(DeshiError, ValueError):
    """Scores that can't be ranked, or item ids outside of the catalogue."""


@torch.no_grad()
def exact_ranks(scores: Tensor, targets: Tensor, seen: Tensor | None = None) -> Tensor:
    """The rank of each row's target among the row's candidates.

    Args:
        scores: ``(B, N)`` floating, the score of every item, higher is better; infinities are allowed.
        targets: ``(B,)`` int64 item indices.
        seen: ``(B, S)`` int64 item indices that aren't candidates, padded with :data:`~deshi.types.PAD`;
            repeats are allowed.

    Returns:
        ``(B,)`` float64 ranks, from 1; infinite where the target is among ``seen``.

    Raises:
        ShapeError: if the shapes don't fit.
        ScoreError: for NaN scores, and for item indices outside of ``0 .. N - 1``.
    """
    check_shape("scores", scores, ("B", "N"))
    check_shape("targets", targets, (len(scores),))
    check_ids("targets", targets, scores.shape[1], lowest=0)
    return rank_rows(scores, targets[:, None], seen)[0].squeeze(1)


@torch.no_grad()
def rank_rows(
    scores: Tensor, targets: Tensor, seen: Tensor | None = None, top_k: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Ranks of several targets a row, the number of candidates, and the best candidates.

    Args:
        scores: ``(B, N)`` as in :func:`exact_ranks`.
        targets: ``(B, T)`` int64, ``PAD`` where a row has fewer targets.
        seen: ``(B, S)`` as in :func:`exact_ranks`.
        top_k: how many of the best candidates to return.

    Returns:
        Ranks ``(B, T)`` float64, NaN where the target is ``PAD``, infinite where it is seen; candidates ``(B,)``
        int64; best candidates ``(B, top_k)`` int64, best first, ``PAD`` where fewer candidates score above minus
        infinity (the order of equal scores among them is unspecified).

    Raises:
        ShapeError, ScoreError: as :func:`exact_ranks`.
    """
    _check(scores, targets, seen)
    size, n_items = scores.shape
    ranks = torch.empty(targets.shape, dtype=torch.float64, device=scores.device)
    counts = torch.full((size,), n_items, dtype=torch.int64, device=scores.device)
    best = torch.full((size, top_k), PAD, dtype=torch.int64, device=scores.device)
    for rows in row_slices(size):
        block = scores[rows]
        refuse_nan(block)
        if seen is not None and seen.shape[1]:
            block = candidate_scores(block, seen[rows])
            counts[rows] -= block.isnan().sum(1)
        ranks[rows] = _ranks_among(block, targets[rows])
        if top_k:
            top_items = _top_items(block, min(top_k, n_items))
            best[rows, : top_items.shape[1]] = top_items
    return ranks, counts, best


def candidate_scores(scores: Tensor, seen: Tensor, fill: float = torch.nan) -> Tensor:
    """A copy of ``scores`` with ``fill`` at every item that isn't a candidate; NaN wins and ties no comparison.

    Args:
        scores: ``(B, N)`` as in :func:`rank_rows`.
        seen: ``(B, S)`` as in :func:`rank_rows`.
        fill: of what isn't a candidate.
    """
    wide = torch.nn.functional.pad(scores, (0, 1))  # a spare last column takes the padding
    wide.scatter_(1, torch.where(seen == PAD, scores.shape[1], seen), fill)
    return wide[:, :-1]


def _ranks_among(masked: Tensor, targets: Tensor) -> Tensor:
    ranks = torch.full(targets.shape, torch.nan, dtype=torch.float64, device=masked.device)
    for column in range(targets.shape[1]):
        real = (targets[:, column] != PAD).nonzero().squeeze(1)
        rows = masked if len(real) == len(masked) else masked[real]
        target_scores = rows.gather(1, targets[real, column, None])
        higher, not_lower = (rows > target_scores).sum(1), (rows >= target_scores).sum(1)
        # 1 + higher + (not_lower - higher - 1) / 2: the target ties with itself, which is no other candidate
        tied_ranks = (higher + not_lower + 1).double() / 2
        ranks[real, column] = tied_ranks.masked_fill(target_scores.squeeze(1).isnan(), torch.inf)
    return ranks


def _top_items(masked: Tensor, k: int) -> Tensor:
    best = torch.topk(torch.where(masked.isnan(), -torch.inf, masked), k)
    return best.indices.masked_fill(best.values == -torch.inf, PAD)


def row_slices(size: int) -> list[slice]:
    """The rows ``0 .. size - 1`` in blocks that are worked on at a time."""
    return [slice(start, start + _ROWS) for start in range(0, size, _ROWS)]


def _check(scores: Tensor, targets: Tensor, seen: Tensor | None) -> None:
    check_shape("scores", scores, ("B", "N"))
    if not scores.is_floating_point():
        raise ScoreError(f"scores have type {scores.dtype}, expected a floating type: convert them with .float().")
    size, n_items = scores.shape
    check_shape("targets", targets, (size, "T"))
    check_ids("targets", targets, n_items)
    if seen is not None:
        check_shape("seen", seen, (size, "S"))
        check_ids("seen", seen, n_items)


def check_ids(name: str, ids: Tensor, n_items: int, lowest: int = PAD) -> None:
    """Refuse item indices outside of ``lowest .. n_items - 1``.

    Raises:
        ScoreError: with an example of them.
    """
    wrong = (ids < lowest) | (ids >= n_items)
    if bool(wrong.any()):
        raise ScoreError(
            f"{name} holds {int(wrong.sum())} ids outside of the catalogue, for example {int(ids[wrong][0])}; "
            f"expected 0 .. {n_items - 1}{f', or {PAD} for padding' if lowest == PAD else ''}. "
            f"Check that the ids and the scores come from the same data bundle."
        )


def refuse_nan(scores: Tensor) -> None:
    """Refuse scores with a NaN among them.

    Raises:
        ScoreError: with their number.
    """
    if scores.numel() and bool(scores.amax().isnan()):  # a maximum carries NaN along and is one cheap pass
        raise ScoreError(
            f"{int(scores.isnan().sum())} of {scores.numel()} scores are NaN; a NaN has no rank. Expected finite "
            f"scores or infinities: look for a diverged model or for a division by zero in the scorer."
        )

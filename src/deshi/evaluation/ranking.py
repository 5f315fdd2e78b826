"""The ranking pass: from a scorer and the examples of a split to one exact rank a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.arrays import Ints
from deshi.data.bundle import Bundle
from deshi.data.datamodule import ExampleBatches
from deshi.data.splits import Examples
from deshi.metrics.beyond import coverage
from deshi.metrics.calibration import softmax_of_rows
from deshi.metrics.ranking import metrics_from_ranks
from deshi.metrics.ranks import rank_rows
from deshi.models.scorers import Scorer
from deshi.types import ITEM, PAD, USER, DeshiError


@dataclass(frozen=True, eq=False)
class Ranking:
    """The outcome of :func:`evaluate_ranks`.

    Attributes:
        ranks: a row a target, in the order of examples: ``example``, ``user``, ``user_id``, ``target``, ``item_id``,
            ``rank`` (float64, from 1) and ``n_candidates``.
        top_items: ``(C, K)`` int64, each example's best candidates, ``PAD`` where there are fewer.
        softmax: ``(C, 3)`` of :func:`~deshi.metrics.calibration.softmax_of_rows`, if it was asked for.
    """

    ranks: pl.DataFrame
    top_items: Ints
    softmax: NDArray[np.float64] | None = None


def evaluate_ranks(
    scorer: Scorer,
    bundle: Bundle,
    examples: Examples,
    filter_seen: bool = True,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    top_k: int = 50,
    candidates: Ints | None = None,
    calibrate: bool = False,
) -> Ranking:
    """Rank every target of every example among the whole catalogue, or among candidates.

    Args:
        scorer: what is evaluated. It gets whole histories.
        bundle: the data.
        examples: the questions; all of them are asked.
        filter_seen: take the items of the whole history out of the candidates (never an example's targets).
        batch_size: examples scored at a time; the ranks don't depend on it.
        device: where the scorer computes.
        top_k: length of ``top_items``.
        candidates: ``(C, W)`` item indices, the targets among them, ``PAD`` on the right of smaller sets: rank only
            among these, seen or not. None is the whole catalogue.
        calibrate: keep the probabilities too; for examples with one target.

    Raises:
        DeshiError: if the scorer's catalogue isn't the bundle's, or its scores can't be ranked.
    """
    if scorer.n_items != bundle.n_items:
        raise DeshiError(
            f"The scorer knows {scorer.n_items} items, the bundle {bundle.name} has {bundle.n_items}. "
            f"Evaluate it on the bundle that it was trained on."
        )
    ranks = np.full(len(examples.target_rows), np.nan)
    n_candidates = np.zeros(len(examples), dtype=np.int64)
    top_items = np.full((len(examples), top_k), PAD, dtype=np.int64)
    softmax = np.full((len(examples), 3), np.nan) if calibrate else None
    for asked, batch, targets, seen in ExampleBatches(bundle, examples, bundle.n_interactions, batch_size, filter_seen):
        numbers = asked.numpy()
        row, column = (targets != PAD).nonzero(as_tuple=True)
        scores, targets, seen = scorer.scores(batch.to(device)), targets.to(device), seen.to(device)
        own = None
        if candidates is not None:
            own = torch.from_numpy(candidates[numbers]).to(device)
            scores, targets, seen = narrow(scores, targets, own)
        found, counts, best = rank_rows(scores, targets, seen, top_k)
        if own is not None:
            best = torch.where(best == PAD, PAD, own.gather(1, best.clamp(min=0)))
        if softmax is not None:
            softmax[numbers] = softmax_of_rows(scores, targets.squeeze(1), seen).cpu().numpy()
        ranks[examples.target_offsets[numbers[row.numpy()]] + column.numpy()] = found.cpu()[row, column].numpy()
        n_candidates[numbers] = counts.cpu().numpy()
        top_items[numbers] = best.cpu().numpy()
    return Ranking(_frame(bundle, examples, ranks, n_candidates), top_items, softmax)


def narrow(scores: Tensor, targets: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A ranking among candidates as one among the whole of a catalogue that is only as wide as the sets.

    Args:
        scores: ``(B, N)`` of all items.
        targets: ``(B, T)`` item indices, ``PAD`` where a row has fewer; each is among its row's candidates.
        candidates: ``(B, W)`` item indices, ``PAD`` on the right.

    Returns:
        scores ``(B, W)``, targets ``(B, T)`` as columns of them, and the padded columns as "seen" ``(B, W)``, all as
        :func:`~deshi.metrics.ranks.rank_rows` takes them.
    """
    columns = torch.arange(candidates.shape[1], device=candidates.device)
    places = (candidates[:, None, :] == targets[:, :, None]).int().argmax(2)
    return (
        scores.gather(1, candidates.clamp(min=0)),
        torch.where(targets == PAD, PAD, places),
        torch.where(candidates == PAD, columns, PAD),
    )


def summarise(ranks: pl.DataFrame, top_items: Ints, ks: Sequence[int], n_items: int | None) -> dict[str, float | int]:
    """Every metric at every K over all examples, such as ``ndcg@10`` and ``coverage@10``, and ``n_examples``.

    Args:
        ranks: of :class:`Ranking`.
        top_items: of :class:`Ranking`, at least ``max(ks)`` long.
        ks: the list lengths.
        n_items: the size of the catalogue; None leaves the coverage out.
    """
    figures: dict[str, float | int] = {"n_examples": len(top_items)}
    figures.update(metrics_from_ranks(ranks["rank"].to_numpy(), ks, ranks["example"].to_numpy(), len(top_items)))
    if n_items is not None:
        figures.update({f"coverage@{k}": coverage(top_items, k, n_items) for k in ks})
    return figures


def lists_frame(examples: Examples, top_items: Ints) -> pl.DataFrame:
    """What is shown, a row an example: ``example``, ``user`` and ``items`` (List[Int64], best first, no padding)."""
    example = np.repeat(np.arange(len(examples)), top_items.shape[1])
    items = pl.Series(top_items.reshape(-1)).replace(PAD, None)
    long = pl.DataFrame({"example": example, "items": items})
    lists = long.group_by("example", maintain_order=True).agg(pl.col("items").drop_nulls())
    return lists.select("example", pl.Series("user", examples.users), "items")


def _frame(bundle: Bundle, examples: Examples, ranks: NDArray[np.float64], n_candidates: Ints) -> pl.DataFrame:
    example = examples.owners
    user, target = examples.users[example], bundle.items[examples.target_rows].astype(np.int64)
    return pl.DataFrame(
        {
            "example": example,
            "user": user,
            USER: bundle.users[USER].gather(user),
            "target": target,
            ITEM: bundle.vocabulary[ITEM].gather(target),
            "rank": ranks,
            "n_candidates": n_candidates[example],
        }
    )

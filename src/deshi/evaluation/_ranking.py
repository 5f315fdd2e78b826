"""Exact ranks of a scorer on the examples of a split, as a frame of a row a target, with lists and means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from deshi.arrays import Floats, Ints
from deshi.data.bundle import Bundle
from deshi.data.example_batches import ExampleBatch, ExampleBatches
from deshi.data.splits import Examples
from deshi.evaluation._rank_collector import RankCollector
from deshi.metrics import coverage, metrics_from_ranks, softmax_of_blocks, softmax_of_rows
from deshi.models.scorers import ListScorer, Scorer
from deshi.types import ITEM, PAD, USER, DeshiError

MOST_SCORES = 1 << 28
"""Scores held at a time at most, by a scorer that gives them whole: 1 GiB. Larger catalogues get smaller batches."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """The outcome of :func:`evaluate_ranks`.

    Attributes:
        ranks: a row a target, in the order of examples: ``example``, ``user``, ``user_id``, ``target``, ``item_id``,
            ``rank`` (float64, from 1; infinite where the target is no candidate) and ``n_candidates``.
        top_items: ``(C, K)`` int64, each example's best candidates, ``PAD`` where there are fewer.
        softmax: ``(C, 3)`` of :func:`~deshi.metrics.softmax_of_rows`; None without ``calibrate``.
    """

    ranks: pl.DataFrame
    top_items: Ints
    softmax: Floats | None = None


@torch.no_grad()
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
    seen_ends: Ints | None = None,
) -> Ranking:
    """Rank every target of every example among the whole catalogue, or among candidates.

    Args:
        scorer: what is evaluated. It gets whole histories.
        bundle: the data.
        examples: of one part of a split.
        filter_seen: take the items of the whole history out of the candidates; a target among them is a miss.
        batch_size: examples scored at a time; the ranks don't depend on it.
        device: where the scorer computes.
        top_k: length of ``top_items``.
        candidates: ``(C, W)`` item indices, the targets among them, ``PAD`` on the right of smaller sets: rank only
            among these, seen or not. None is the whole catalogue.
        calibrate: keep the softmax too; for examples with one target.
        seen_ends: ``(C,)`` one past the last event of each example that is left out of the candidates, where that is
            not the end of the history that the scorer reads.

    Raises:
        DeshiError: if the scorer's catalogue isn't the bundle's, or its scores can't be ranked.
    """
    if scorer.n_items != bundle.n_items:
        raise DeshiError(
            f"The scorer knows {scorer.n_items} items, the bundle {bundle.name} has {bundle.n_items}. "
            f"Evaluate it on the bundle that it was trained on."
        )
    collector = RankCollector(top_k)
    softmax = np.full((len(examples), 3), np.nan) if calibrate else None
    batch_size = max(1, min(batch_size, MOST_SCORES // bundle.n_items))
    for batch in ExampleBatches(bundle, examples, bundle.n_interactions, batch_size, filter_seen, seen_ends):
        numbers, batch = batch.numbers.numpy(), batch.to(device)
        blocks = scorer.score_blocks(batch.histories) if candidates is None else None
        if blocks is not None:
            if softmax is not None:
                softmax[numbers] = softmax_of_blocks(blocks, batch.targets.squeeze(1), batch.seen).cpu().numpy()
            collector.add(batch, [blocks])
            continue
        scores = scorer.scores(batch.histories)
        if candidates is not None:
            scores, batch = narrow(scores, batch, torch.from_numpy(candidates[numbers]).to(device))
        if softmax is not None:
            softmax[numbers] = softmax_of_rows(scores, batch.targets.squeeze(1), batch.seen).cpu().numpy()
        collector.add(batch, [scores])
    collected = collector.collected()
    top_items = collected.top_items[0].numpy()
    if candidates is not None:  # from columns of the candidate sets back to items
        items = np.take_along_axis(candidates, np.maximum(top_items, 0), axis=1)
        top_items = np.where(top_items == PAD, PAD, items)
    ranks = _frame(bundle, examples, collected.ranks[0].numpy(), collected.n_candidates.numpy())
    return Ranking(ranks, top_items, softmax)


@torch.no_grad()
def evaluate_lists(
    scorer: ListScorer, bundle: Bundle, examples: Examples, filter_seen: bool, batch_size: int, top_k: int
) -> Ranking:
    """Rank every target by its place in the list that a model answers with; a target outside of it is a miss.

    Ties inside a list have mean ranks. Of a target that isn't on the list only that it is below is known: its rank is
    infinite, so that metrics are right up to K = ``top_k``.

    Args:
        scorer: what is evaluated.
        bundle: the data.
        examples: of one part of a split.
        filter_seen: whether items of the history are left out of the lists.
        batch_size: examples at a time.
        top_k: length of the lists.
    """
    ranks, owners = list[Tensor](), list[Tensor]()
    n_candidates = np.full(len(examples), bundle.n_items, dtype=np.int64)
    top_items = np.full((len(examples), top_k), PAD, dtype=np.int64)
    for batch in ExampleBatches(bundle, examples, bundle.n_interactions, batch_size, filter_seen):
        items, scores = scorer.lists(batch.histories, top_k, filter_seen)
        real = batch.targets != PAD
        hits = (items[:, None, :] == batch.targets[:, :, None]) & real[:, :, None]
        level = scores[:, None, :].masked_fill(~hits, -torch.inf).amax(2, keepdim=True)
        listed = (items != PAD)[:, None, :]
        higher, tied = ((scores[:, None, :] > level) & listed).sum(2), ((scores[:, None, :] == level) & listed).sum(2)
        batch_ranks = (2 * higher + tied + 1).double() / 2
        ranks.append(batch_ranks.masked_fill(~hits.any(2), torch.inf)[real])
        owners.append(batch.numbers[:, None].expand_as(batch.targets)[real])
        numbers = batch.numbers.numpy()
        top_items[numbers] = items.numpy()
        n_candidates[numbers] -= [len(row[row != PAD].unique()) for row in batch.seen]
    order = torch.cat(owners).argsort(stable=True)
    return Ranking(_frame(bundle, examples, torch.cat(ranks)[order].numpy(), n_candidates), top_items)


def narrow(scores: Tensor, batch: ExampleBatch, candidates: Tensor) -> tuple[Tensor, ExampleBatch]:
    """A ranking among candidates as one among the whole of a catalogue that is only as wide as the sets.

    Args:
        scores: ``(B, N)`` of all items.
        batch: whose targets are among their rows' candidates.
        candidates: ``(B, W)`` item indices, ``PAD`` on the right.

    Returns:
        scores ``(B, W)``, and the batch with targets as columns of them and the padded columns as "seen" ``(B, W)``.
    """
    columns = torch.arange(candidates.shape[1], device=candidates.device)
    target_columns = (candidates[:, None, :] == batch.targets[:, :, None]).int().argmax(2)
    return scores.gather(1, candidates.clamp(min=0)), batch._replace(
        targets=torch.where(batch.targets == PAD, PAD, target_columns),
        seen=torch.where(candidates == PAD, columns, PAD),
    )


def summarise(ranks: pl.DataFrame, top_items: Ints, ks: Sequence[int], n_items: int | None) -> dict[str, float | int]:
    """Every metric at every K over all examples, such as ``ndcg@10`` and ``coverage@10``, and ``n_examples``.

    Args:
        ranks: of :class:`Ranking`.
        top_items: of :class:`Ranking`, at least ``max(ks)`` long.
        ks: the list lengths.
        n_items: the size of the catalogue; None leaves the coverage out.
    """
    metrics: dict[str, float | int] = {"n_examples": len(top_items)}
    metrics.update(metrics_from_ranks(ranks["rank"].to_numpy(), ks, ranks["example"].to_numpy(), len(top_items)))
    if n_items is not None:
        metrics.update({f"coverage@{k}": coverage(top_items, k, n_items) for k in ks})
    return metrics


def lists_frame(examples: Examples, top_items: Ints) -> pl.DataFrame:
    """The lists, a row an example: ``example``, ``user`` and ``items`` (List[Int64], best first, no padding)."""
    example = np.repeat(np.arange(len(examples)), top_items.shape[1])
    items = pl.Series(top_items.reshape(-1)).replace(PAD, None)
    long = pl.DataFrame({"example": example, "items": items})
    lists = long.group_by("example", maintain_order=True).agg(pl.col("items").drop_nulls())
    return lists.select("example", pl.Series("user", examples.users), "items")


def _frame(bundle: Bundle, examples: Examples, ranks: Floats, n_candidates: Ints) -> pl.DataFrame:
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

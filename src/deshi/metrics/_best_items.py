"""The best items of each row of scores, with one rule for ties on every device."""

from __future__ import annotations

import torch
from torch import Tensor

from deshi.metrics._ranks import candidate_scores
from deshi.types import PAD


@torch.no_grad()
def best_items(scores: Tensor, seen: Tensor | None, k: int, normalise: bool = False) -> tuple[Tensor, Tensor]:
    """The best ``k`` candidates of each row, equal scores by smaller item index.

    Args:
        scores: ``(B, N)`` floating, higher is better; minus infinity is no candidate.
        seen: ``(B, S)`` items that are no candidates, padded with ``PAD``; None for none.
        k: length of the lists.
        normalise: give log-probabilities, the softmax being over all candidates of the row.

    Returns:
        items ``(B, k)`` int64, ``PAD`` where there are fewer candidates, and their scores ``(B, k)``, 0 there.
    """
    if seen is not None:
        scores = candidate_scores(scores, seen, -torch.inf)
    length = min(k, scores.shape[1])
    values, items = _top(scores, length)
    if normalise:
        values = values - scores.logsumexp(1, keepdim=True)
    none = scores.gather(1, items) == -torch.inf
    room = (0, k - length)
    items = torch.nn.functional.pad(items.masked_fill(none, PAD), room, value=PAD)
    return items, torch.nn.functional.pad(values.masked_fill(none, 0.0), room)


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As ``torch.topk``, but with a rule for ties that holds on every device."""
    values, items = scores.topk(k)
    # Sorted by index first, then stably by score: equal scores are left in the order of their index.
    items, order = items.sort(dim=1)
    values, order = values.gather(1, order).sort(stable=True, dim=1, descending=True)
    items = items.gather(1, order)
    # Where more than k scores reach the last one, topk's choice among the tied differs from device to device: those
    # rows are sorted as a whole.
    last = values[:, -1:]
    tied = ((scores >= last).sum(1) > k) & (last.squeeze(1) > -torch.inf)
    if bool(tied.any()):
        whole, columns = scores[tied].sort(stable=True, dim=1, descending=True)
        values[tied], items[tied] = whole[:, :k], columns[:, :k]
    return values, items

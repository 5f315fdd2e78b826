"""The latest items of histories with weights that fall with their age."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from deshi.arrays import Floats, Ints, offsets_of
from deshi.types import Batch


def latest_items(batch: Batch, rows: Tensor, last: Tensor, weights: Floats) -> tuple[Ints, Ints, Floats]:
    """The items that are read at positions ``last`` ``(P,)`` of histories ``rows`` ``(P,)``.

    Args:
        batch: the histories.
        rows: of the batch.
        last: the position of each history's latest item.
        weights: ``(D,)`` of the latest item, of the one before it, and so on; older items are not read.

    Returns:
        offsets ``(P + 1,)``, items, and their weights, which sum to 1 at each position, its latest item first.
    """
    columns = last.cpu().numpy()[:, None] - np.arange(len(weights))
    inside = columns >= 0
    items = batch.items.cpu().numpy()[rows.cpu().numpy()[:, None], columns.clip(min=0)]
    shares = np.where(inside, weights, 0.0)
    shares /= shares.sum(1, keepdims=True)
    return offsets_of(inside.sum(1)), items[inside], shares[inside]

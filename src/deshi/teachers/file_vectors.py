"""The teacher from a file of item embeddings: a history is the mean of its latest items' vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from deshi.data.bundle import Bundle
from deshi.data.vocabulary import indices_of
from deshi.teachers._file_readers import need_file, read_vectors
from deshi.teachers.base import Resources
from deshi.teachers.files import FromFiles, check_items, rows_of
from deshi.types import ITEM, PAD, Batch, DeshiError


class ItemVectors(FromFiles):
    """Item embeddings from elsewhere: a history is the weighted mean of its latest items' vectors.

    The score of an item is the similarity of its vector with that mean. It answers after any history. Items
    without a vector score minus infinity and are passed over in histories; a history without any vector lets all tie.

    Args:
        n_items: number of items in the vocabulary.
        resources: the data, and the device that the vectors lie on.
        path: .parquet with a column of ids and one of lists, or .npy or .safetensors ``(items, D)`` beside ``ids``.
        ids: file of the rows' item ids: .txt with one a line, .npy, or a table; null for .parquet.
        item: column of item ids in a table.
        vectors: column of the .parquet or tensor of the .safetensors; null if there is but one to choose.
        last: number of latest items that count.
        decay: weight of an item against the one after it, in (0, 1]; 1 is the plain mean.
        similarity: ``cosine``: vectors and mean at length 1; ``dot``: as they are.
        missing_items: items without a vector: ``error``, or ``last``.

    Raises:
        DeshiError: for files that can't be read or don't fit each other, NaN, zero vectors with ``cosine``, repeated
            or wholly unknown ids, and missing items.
    """

    def __init__(
        self,
        n_items: int,
        resources: Resources,
        path: str,
        ids: str | None = None,
        item: str = ITEM,
        vectors: str | None = None,
        last: int = 10,
        decay: float = 1.0,
        similarity: Literal["cosine", "dot"] = "cosine",
        missing_items: Literal["error", "last"] = "error",
    ) -> None:
        if last < 1 or not 0.0 < decay <= 1.0:
            raise DeshiError(f"last={last} and decay={decay}: expected a positive number and a number in (0, 1].")
        bundle, file = resources.bundle, need_file(path, "path")
        names = None if ids is None else need_file(ids, "ids")
        super().__init__(n_items, bundle, [file, names])
        item_ids, table = read_vectors(file, names, item, vectors)
        row_of = rows_of(indices_of(item_ids, bundle.vocabulary[ITEM], "item", names or file), n_items)
        check_items(row_of != PAD, bundle, missing_items, file)
        self._raw = np.where(row_of[:, None] != PAD, table[row_of], np.float32(0))
        self._has_vector = torch.from_numpy(row_of != PAD).to(resources.device)
        self._cosine, self._last = similarity == "cosine", last
        self._table = torch.from_numpy(self._raw).to(resources.device)
        if self._cosine:
            self._check_lengths(file, row_of, bundle)
            self._table = F.normalize(self._table, dim=1)
        ages = torch.arange(last - 1, -1, -1, device=resources.device)
        self._weights = torch.tensor(decay, device=resources.device) ** ages
        self.max_length = int(np.diff(bundle.offsets).max())

    def _check_lengths(self, file: Path, row_of: NDArray[np.int64], bundle: Bundle) -> None:
        zero = (row_of != PAD) & ~self._raw.any(1)
        if zero.any():
            first = bundle.vocabulary[ITEM][int(zero.argmax())]
            raise DeshiError(
                f"{file} has {zero.sum()} vectors that are all zero, the first is the item {first!r}: they have "
                "no cosine. Leave them out, or set similarity=dot."
            )

    def item_vectors(self) -> NDArray[np.float32]:
        """``(n_items, D)`` as the file has them; zeros for items without a vector."""
        return self._raw

    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` float32."""
        rows = torch.arange(len(batch.items), device=batch.items.device)
        return self._after(batch.items, rows, batch.lengths - 1)

    def position_scores(self, batch: Batch, where: Tensor) -> Tensor:
        """``(P, n_items)`` float32, see :meth:`~deshi.models.scorers.Scorer.position_scores`."""
        rows, columns = where.nonzero(as_tuple=True)
        return self._after(batch.items, rows, columns)

    def _after(self, items: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Scores after the events at ``(rows, columns)``."""
        device, origin = self._table.device, items.device
        items, rows, columns = items.to(device), rows.to(device), columns.to(device)
        # columns of the latest items, oldest first; those before the history's first event or without a vector weigh 0
        steps = columns[:, None] - torch.arange(self._last - 1, -1, -1, device=device)
        latest = items[rows[:, None], steps.clamp(min=0)].clamp(min=0)
        weights = self._weights * ((steps >= 0) & self._has_vector[latest])
        total = weights.sum(1, keepdim=True)
        query = F.embedding_bag(latest, self._table, per_sample_weights=weights, mode="sum") / total.clamp(min=1e-30)
        if self._cosine:
            query = F.normalize(query, dim=1)
        scores = query @ self._table.T
        return scores.masked_fill(~self._has_vector | (total == 0), -torch.inf).to(origin)

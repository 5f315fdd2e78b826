"""Soft labels on disk: a teacher's ranked lists after events of histories, and perhaps its vectors of the items."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.arrays import Ints
from deshi.artifacts import read_array, read_tensors
from deshi.data.bundle import Bundle
from deshi.soft_labels._checks import CheckResult, check_files, check_lists
from deshi.soft_labels._histories import REMEDY, Histories
from deshi.soft_labels._manifest import EMBEDDINGS, SCORES, TENSORS, TOPK, USER_EMBEDDINGS, read_manifest
from deshi.types import ITEM, PAD, USER, DeshiError, ScoreKind


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """A store, opened. Row ``r`` is the teacher's ranking of the next item after the events up to and including ``r``.

    Attributes:
        path: the folder.
        manifest: see ``docs/soft_labels.md``.
        items: ``(R, K)`` int32 item indices, best first, :data:`~deshi.types.PAD` where the list ends; a row that
            isn't covered is all ``PAD``.
        scores: ``(R, K)`` float16 or float32, falling along a row, 0 where the item is ``PAD``.
    """

    path: Path
    manifest: dict[str, Any] = field(repr=False)
    items: NDArray[np.int32] = field(repr=False)
    scores: NDArray[Any] = field(repr=False)

    @classmethod
    def load(cls, path: Path | str, bundle: Bundle | None = None, check: bool = False) -> SoftLabels:
        """Open a store; its arrays are mapped, not read.

        Args:
            path: the store's folder.
            bundle: the data that it must belong to; None asks nothing.
            check: read everything and refuse bad rows and changed files, see :meth:`check`.

        Raises:
            DeshiError: if the store is missing, incomplete, of another version, made on other data, or its arrays have
                other shapes than its manifest says.
        """
        path = Path(path)
        manifest = read_manifest(path)
        if bundle is not None:
            check_same_data(path, manifest, bundle)
        store = cls(path, manifest, read_array(path / TOPK, REMEDY), read_array(path / SCORES, REMEDY))
        store._check_shapes(bundle)
        if check:
            store.check(bundle).refuse()
        return store

    @property
    def score_kind(self) -> ScoreKind:
        """Meaning of the stored scores."""
        return ScoreKind(self.manifest["score_kind"])

    @property
    def teacher(self) -> str:
        """The teacher's name."""
        return str(self.manifest["teacher"]["name"])

    @property
    def k(self) -> int:
        """The longest list that a row can hold."""
        return int(self.manifest["k"])

    @property
    def n_rows(self) -> int:
        """Number of rows ``R``, one an event."""
        return int(self.manifest["n_rows"])

    @property
    def augmented(self) -> bool:
        """Whether the rows are about augmented histories instead of the bundle's."""
        return bool(self.manifest["sequences"] == "augmented")

    @cached_property
    def covered(self) -> NDArray[np.bool_]:
        """``(R,)`` whether the teacher has written that row."""
        return np.asarray(self.items[:, 0] != PAD)

    def rows(self, numbers: Any) -> tuple[Ints, NDArray[np.float32]]:
        """The lists of some rows.

        Args:
            numbers: row numbers of any shape ``(...)``, an array or a tensor on the CPU, such as a batch's ``rows``;
                ``PAD`` stands for no row.

        Returns:
            items ``(..., K)`` int64, all ``PAD`` where there is no row or it isn't covered, and scores ``(..., K)``
            float32, 0 where the item is ``PAD``.

        Raises:
            DeshiError: for row numbers that don't exist.
        """
        rows = np.asarray(numbers, dtype=np.int64)
        wrong = (rows < PAD) | (rows >= self.n_rows)
        if wrong.any():
            raise DeshiError(
                f"Got row {int(rows[wrong][0])}, expected 0 to {self.n_rows - 1} (or {PAD} for none): "
                f"{self.path} has a row for each event of {self.manifest['data']}."
            )
        real, safe = (rows != PAD)[..., None], np.maximum(rows, 0)
        items = np.where(real, self.items[safe], PAD).astype(np.int64)
        return items, np.where(real, self.scores[safe], 0).astype(np.float32)

    def frame(self, bundle: Bundle, rows: Ints | None = None) -> pl.DataFrame:
        """The lists as a table: ``user_id``, ``position``, ``item_id``, ``score`` and ``rank``.

        ``position`` counts a history's events from 0: the list says what may come after that event.

        Args:
            bundle: the data of the store.
            rows: ``(M,)`` those whose lists are wanted; None is all covered rows.
        """
        check_same_data(self.path, self.manifest, bundle)
        histories = self.histories(bundle)
        rows = np.flatnonzero(self.covered) if rows is None else rows
        items, scores = self.rows(rows)
        number, rank = (items != PAD).nonzero()
        owners = histories.owners(rows)
        columns = {
            USER: bundle.users[USER].gather(histories.users[owners][number]),
            "position": (rows - histories.offsets[owners])[number],
            ITEM: bundle.vocabulary[ITEM].gather(items[number, rank]),
            "score": scores[number, rank],
            "rank": rank + 1,
        }
        return pl.DataFrame(columns, schema_overrides={"position": pl.Int32, "rank": pl.Int32})

    def histories(self, bundle: Bundle) -> Histories:
        """The sequences that the rows are about: the bundle's, or the augmented ones that lie in the store."""
        return Histories.load(self.path, self.manifest) if self.augmented else Histories.of(bundle)

    def item_embeddings(self) -> Tensor | None:
        """The teacher's vectors of the items ``(n_items, D)`` float32, or None if it left none.

        Raises:
            DeshiError: if they don't fit the catalogue or hold NaN or infinity.
        """
        vectors = self._vectors(EMBEDDINGS)
        if vectors is None:
            return None
        return check_embeddings(vectors, self.manifest["n_items"], str(self.path / EMBEDDINGS))

    def user_embeddings(self) -> Tensor | None:
        """The vectors of the users' profiles ``(n_users, D)`` float32, zeros without one; None if there are none."""
        return self._vectors(USER_EMBEDDINGS)

    def _vectors(self, name: str) -> Tensor | None:
        """The one tensor of a file of the store."""
        file, tensor = self.path / name, TENSORS[name]
        if not file.is_file():
            return None
        tensors = read_tensors(file, remedy=REMEDY)
        if list(tensors) != [tensor]:
            raise DeshiError(f"{file} holds {sorted(tensors)}, expected one tensor named {tensor}.")
        return tensors[tensor].float()

    def check(self, bundle: Bundle | None = None) -> CheckResult:
        """Read everything and count the rows that are wrong, of each kind, and the files that changed.

        Args:
            bundle: to look for seen items where the store says that it has none.
        """
        seen = None
        if self.manifest["filter_seen"] and (bundle is not None or self.augmented):
            histories = Histories.load(self.path, self.manifest) if bundle is None else self.histories(bundle)
            seen = histories.first_events().seen
        lists = check_lists(self.items, self.scores, self.manifest["n_items"], seen)
        files = check_files(self.path, self.manifest, lists.covered)
        return replace(lists, problems=[*lists.problems, *files])

    def _check_shapes(self, bundle: Bundle | None) -> None:
        rows = bundle.n_interactions if bundle is not None and not self.augmented else self.n_rows
        dtypes = {TOPK: "int32", SCORES: self.manifest["score_dtype"]}
        for name, array in ((TOPK, self.items), (SCORES, self.scores)):
            if array.shape != (rows, self.k) or array.dtype != dtypes[name]:
                raise DeshiError(
                    f"{self.path / name} is {array.dtype}{array.shape}, expected {dtypes[name]}{(rows, self.k)}: a row "
                    f"for each of {rows:,} events. Write the store again: deshi label RUN"
                )


def check_same_data(path: Path, manifest: dict[str, Any], bundle: Bundle) -> None:
    """Refuse a manifest whose store was made on other data than ``bundle``.

    Raises:
        DeshiError: with both fingerprints, or both numbers of items.
    """
    fingerprint = manifest["data_fingerprint"]
    if fingerprint != bundle.fingerprint:
        raise DeshiError(
            f"The soft-label store {path} was made on {manifest['data']} with fingerprint {fingerprint}, but "
            f"{bundle.name} in {bundle.path} has fingerprint {bundle.fingerprint}. Its item indices mean other items. "
            f"Prepare the data as they were for it, or write it again on these."
        )
    if manifest["n_items"] != bundle.n_items:
        raise DeshiError(
            f"The soft-label store {path} is about {manifest['n_items']} items, {bundle.name} has {bundle.n_items}. "
            f"Write it again."
        )


def check_embeddings(embeddings: Tensor, n_items: int, name: str) -> Tensor:
    """Refuse item embeddings that aren't finite or not one row an item; returns them.

    Raises:
        DeshiError: with the shape or the number of bad rows.
    """
    if embeddings.dim() != 2 or len(embeddings) != n_items:
        hint = " One row too many is often a row of padding: leave it out." if len(embeddings) == n_items + 1 else ""
        raise DeshiError(f"{name} has shape {tuple(embeddings.shape)}, expected ({n_items}, D), a row an item.{hint}")
    bad = (~torch.isfinite(embeddings)).any(1)
    if bool(bad.any()):
        raise DeshiError(
            f"{name} has {int(bad.sum())} rows with NaN or infinity, first item {int(bad.nonzero()[0])}. "
            f"Compute these embeddings again."
        )
    return embeddings

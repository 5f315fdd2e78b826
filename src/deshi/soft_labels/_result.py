"""Result of ``label`` and ``label import``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deshi.rendering import Block, Result, paragraphs
from deshi.soft_labels._store import SoftLabels


@dataclass(frozen=True)
class LabelResult(Result):
    """A store that was written.

    Attributes:
        soft_labels: the store, opened.
    """

    soft_labels: SoftLabels

    @property
    def folder(self) -> Path:
        """The store's folder."""
        return self.soft_labels.path

    def blocks(self) -> Sequence[Block]:
        """One line."""
        manifest = self.soft_labels.manifest
        covered, rows = int(self.soft_labels.covered.sum()), self.soft_labels.n_rows
        return paragraphs(
            f"{self.folder}: {self.soft_labels.teacher} on {manifest['data']}, {self.soft_labels.k} items after "
            f"{covered:,} of {rows:,} events. Look into it: deshi label inspect {self.folder.name}"
        )

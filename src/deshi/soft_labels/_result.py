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
        """What the answers cost, where they were paid for, and one line about the store."""
        manifest = self.soft_labels.manifest
        covered, rows = int(self.soft_labels.covered.sum()), self.soft_labels.n_rows
        return paragraphs(
            *self._cost(),
            f"{self.folder}: {self.soft_labels.teacher} on {manifest['data']}, {self.soft_labels.k} items after "
            f"{covered:,} of {rows:,} events. Look into it: deshi label inspect {self.folder.name}",
        )

    def _cost(self) -> list[str]:
        cost = self.soft_labels.manifest.get("cost")
        if cost is None:
            return []
        money = f", {cost['money']:.4f} of money" if cost["money"] else ""
        share = 100 * cost["refused"] / max(1, cost["questions"])
        return [
            f"Asked about {cost['questions']:,} lists: {cost['requests']:,} answers, {cost['cached']:,} of them from "
            f"the cache, {cost['prompt_tokens']:,} + {cost['answer_tokens']:,} tokens{money}; {cost['refused']:,} "
            f"lists ({share:.1f} %) keep the first stage's order, since their answers were refused."
        ]

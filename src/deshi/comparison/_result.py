"""Result of ``compare``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deshi.comparison._comparison import Comparison
from deshi.comparison._tables import blocks_of
from deshi.rendering import Block, Paragraph, Result


@dataclass(frozen=True)
class CompareResult(Result):
    """A finished comparison.

    Attributes:
        folder: the run folder that it wrote.
        comparison: figures and tests, as plain data.
    """

    folder: Path
    comparison: Comparison

    def blocks(self) -> list[Block]:
        """Both tables, warnings and notes."""
        return [*blocks_of(self.comparison), Paragraph(f"Written to {self.folder}")]

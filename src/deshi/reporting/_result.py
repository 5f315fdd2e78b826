"""Result of ``report``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deshi.rendering import Block, Result, paragraphs


@dataclass(frozen=True)
class ReportResult(Result):
    """A finished report.

    Attributes:
        folder: the run folder.
        page: the HTML file: ``output`` if one was named, else ``report.html`` in the folder.
        figures: the names of the figures, each an SVG and a PNG in ``folder/figures``.
        warnings: what stands on top of the page.
    """

    folder: Path
    page: Path
    figures: Sequence[str]
    warnings: Sequence[str]

    def blocks(self) -> list[Block]:
        """The warnings, and where the files are."""
        size = self.page.stat().st_size / 1e6
        return [
            *paragraphs(*self.warnings, tone="warning"),
            *paragraphs(
                f"{len(self.figures)} figures in {self.folder / 'figures'} (SVG and PNG)",
                f"Written to {self.page} ({size:.1f} MB): open it in any browser, or send it; it needs no network.",
            ),
        ]

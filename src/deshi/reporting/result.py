"""What the stage ``report`` hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rich.console import Group
from rich.text import Text


@dataclass(frozen=True)
class ReportResult:
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

    def tables(self) -> Group:
        """The outcome for a rich console."""
        size = self.page.stat().st_size / 1e6
        shown = [Text(f"WARNING: {sentence}", style="bold red") for sentence in self.warnings]
        shown.append(Text(f"{len(self.figures)} figures in {self.folder / 'figures'} (SVG and PNG)"))
        shown.append(
            Text(f"Written to {self.page} ({size:.1f} MB): open it in any browser, or send it; it needs no network.")
        )
        return Group(*shown)

    def __str__(self) -> str:
        return f"{self.page}: {len(self.figures)} figures, {len(self.warnings)} warnings"

    def _repr_html_(self) -> str:
        return f'<p>Report: <a href="{escape(str(self.page), quote=True)}">{escape(str(self.page))}</a></p>'

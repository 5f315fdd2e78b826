"""What the stage ``compare`` hands back, and how it looks in a terminal and in a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deshi.comparison.comparison import Comparison
from deshi.comparison.output import html_table
from deshi.comparison.tables import Cell, Sheet, sheets
from deshi.data.rendering import Rendered


@dataclass(frozen=True)
class CompareResult(Rendered):
    """A finished comparison.

    Attributes:
        folder: the run folder that it wrote.
        comparison: figures and tests, as plain data.
    """

    width: ClassVar[int] = 120

    folder: Path
    comparison: Comparison

    def tables(self) -> Group:
        """Both tables for a rich console."""
        shown: list[RenderableType] = []
        for sheet in sheets(self.comparison):
            shown += [_table(sheet), Text(sheet.caption, style="dim"), Text()]
        shown += [Text(f"WARNING: {sentence}", style="bold red") for sentence in self.comparison.warnings]
        shown += [Text(sentence) for sentence in self.comparison.notes]
        shown.append(Text(f"Written to {self.folder}"))
        return Group(*shown)

    def _repr_html_(self) -> str:
        return "\n".join(html_table(sheet) for sheet in sheets(self.comparison))


def _table(sheet: Sheet) -> Table:
    table = Table(title=Text(sheet.title), title_justify="left")
    for number, name in enumerate(sheet.columns):
        left = number < sheet.n_left
        table.add_column(Text(name), justify="left" if left else "right", no_wrap=not left)
    for row in sheet.rows:
        table.add_row(*(_text(cell) for cell in row))
    return table


def _text(cell: Cell) -> Text:
    found = Text(cell.text, style="bold" if cell.bold else "")
    return found.append(f"\n{cell.detail}", style="not bold dim") if cell.detail else found

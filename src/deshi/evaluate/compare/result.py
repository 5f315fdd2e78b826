"""What the stage ``compare`` hands back, and how it looks in a terminal and in a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from deshi.evaluate.compare.comparison import Comparison
from deshi.evaluate.compare.output import html_table
from deshi.evaluate.compare.tables import Cell, Sheet, sheets


@dataclass(frozen=True)
class CompareResult:
    """A finished comparison.

    Attributes:
        folder: the run folder that it wrote.
        comparison: figures and tests, as plain data.
    """

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

    def __str__(self) -> str:
        """The tables as plain text."""
        console = Console(file=StringIO(), width=120, color_system=None)
        with console.capture() as capture:
            console.print(self.tables())
        return capture.get().rstrip()

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

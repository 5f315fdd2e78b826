"""Tables and paragraphs for a rich console. Every text is shown as it is: rich's markup has no meaning in it."""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from deshi.rendering._blocks import Block, Cell, Paragraph, Table, Tone

STYLES: dict[Tone, str] = {
    "plain": "",
    "note": "dim",
    "strong": "bold",
    "good": "bold green",
    "info": "cyan",
    "caution": "yellow",
    "alarm": "bold red",
    "warning": "bold red",
}


def for_console(blocks: Iterable[Block]) -> Group:
    """What a rich console prints."""
    return Group(*map(_renderable, blocks))


def plain_text(blocks: Iterable[Block], width: int = 120) -> str:
    """Text without colours, in lines of at most ``width`` columns."""
    console = Console(file=StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        console.print(for_console(blocks))
    return capture.get().rstrip()


def _renderable(block: Block) -> RenderableType:
    if isinstance(block, Paragraph):
        return Text(block.lead + block.text, style=STYLES[block.tone])
    return _table(block)


def _table(table: Table) -> RichTable:
    cells = table.cells
    shown = RichTable(
        title=Text(table.title, style=STYLES[table.tone] or "italic"),
        caption=Text(table.caption, style="dim"),
        title_justify="left",
        caption_justify="left",
        show_header=bool(table.columns),
        show_lines=any("\n" in cell.text for row in cells for cell in row),
        min_width=len(table.title),
    )
    for number, side in enumerate(table.sides):
        # Figures are never broken over two lines: names and sentences give way.
        head = Text(table.columns[number] if table.columns else "")
        shown.add_column(head, justify="left" if side == "l" else "right", no_wrap=side == "r")
    for row in cells:
        shown.add_row(*map(_text, row))
    return shown


def _text(cell: Cell) -> Text:
    text = Text(cell.text, style="bold" if cell.bold else "")
    return text.append(f"\n{cell.detail}", style="not bold dim") if cell.detail else text

"""Tables and paragraphs before they take a format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

Tone = Literal["plain", "note", "strong", "good", "info", "caution", "alarm", "warning"]
"""How loud a text is; ``warning`` also begins with that word."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: its content.
        detail: smaller text below or beside it, such as an interval.
        bold: whether it stands out.
        color: number of the model's colour on a page; None for no colour.
    """

    text: str
    detail: str = ""
    bold: bool = False
    color: int | None = None


Row = Sequence[Cell | str]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: what it shows.
        columns: their heads; empty for a table without heads.
        rows: of as many cells as there are columns.
        caption: how to read it, sentences.
        align: ``l`` or ``r`` for each column; by default the first one to the left, the others (figures) to the right.
        tone: of the title.
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    caption: str = ""
    align: str = ""
    tone: Tone = "plain"

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows, every text a cell."""
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]

    @property
    def sides(self) -> str:
        """``l`` or ``r`` for each column."""
        width = len(self.columns) or max((len(row) for row in self.rows), default=0)
        return self.align or "l" + "r" * (width - 1)


@dataclass(frozen=True)
class Paragraph:
    """A sentence or more."""

    kind: ClassVar[str] = "paragraph"
    text: str
    tone: Tone = "plain"

    @property
    def lead(self) -> str:
        """The word before a warning."""
        return "WARNING: " if self.tone == "warning" else ""


Block = Table | Paragraph


def paragraphs(*sentences: str, tone: Tone = "plain") -> list[Paragraph]:
    """A paragraph for each sentence."""
    return [Paragraph(sentence, tone) for sentence in sentences]


def percent(share: float) -> str:
    """``95 %`` for 0.95."""
    return f"{100 * share:.4g} %"

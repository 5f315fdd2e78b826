"""What a section of the report is made of. The template knows one way to show each kind of block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Text:
    """A paragraph. ``tone`` is ``plain``, ``note`` (small) or ``verdict`` (large)."""

    kind: ClassVar[str] = "text"
    text: str
    tone: str = "plain"


@dataclass(frozen=True)
class Missing:
    """What can't be shown, and the commands that make it possible."""

    kind: ClassVar[str] = "missing"
    text: str
    commands: Sequence[str] = ()


@dataclass(frozen=True)
class Row:
    """A table's row: its heading, its cells, the colour of the model that it is about, and which cells are bold."""

    heading: str
    cells: Sequence[str]
    color: int | None = None
    bold: Sequence[int] = ()


@dataclass(frozen=True)
class Table:
    """Cells are texts, figures already formatted; the first column holds the rows' headings.

    ``collapsed`` hides it at first.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]
    numeric: bool = True
    collapsed: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: of its files, without the ending.
        title: a line above it.
        description: what it shows, for those who can't see it and as its caption.
        svg: the picture as inline markup.
        numbers: what is drawn, as a table, or None.
    """

    name: str
    title: str
    description: str
    svg: str = field(repr=False)
    numbers: Table | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Pictures:
    """Figures side by side, where there is room."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Listing:
    """A long text as it is, collapsed."""

    kind: ClassVar[str] = "listing"
    title: str
    text: str = field(repr=False)


@dataclass(frozen=True)
class Cards:
    """The few figures that everybody looks for: ``(label, value, remark)`` each."""

    kind: ClassVar[str] = "cards"
    cards: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Shown:
    """An item in an example: its title (or id), and whether it is what came next."""

    title: str
    truth: bool = False


@dataclass(frozen=True)
class Recommended:
    """One model's answer in an example: the rank that it gave to what came next, and its first items."""

    label: str
    color: int | None
    rank: str
    items: Sequence[Shown]


@dataclass(frozen=True)
class Example:
    """One user's example."""

    user: str
    hit: bool
    earlier: int
    history: Sequence[str]
    truths: Sequence[str]
    answers: Sequence[Recommended]


@dataclass(frozen=True)
class Examples:
    """Examples with what the models recommend next to what came next."""

    kind: ClassVar[str] = "examples"
    examples: Sequence[Example]


Block = Text | Missing | Table | Pictures | Listing | Cards | Examples


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading and an anchor."""

    anchor: str
    title: str
    lead: str
    blocks: Sequence[Block]

"""Building blocks of a report's sections, besides tables and paragraphs. The template has a macro for each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from deshi.rendering import Paragraph, Table


@dataclass(frozen=True)
class Missing:
    """A sentence about what can't be shown, and the commands that make it possible."""

    kind: ClassVar[str] = "missing"
    text: str
    commands: Sequence[str] = ()


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
class Details:
    """A long text or table, collapsed."""

    kind: ClassVar[str] = "details"
    title: str
    content: str | Table = field(repr=False)


@dataclass(frozen=True)
class Cards:
    """The headline figures: ``(label, value, remark)`` each."""

    kind: ClassVar[str] = "cards"
    cards: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class ListedItem:
    """An item of a list: its title (or id), and whether it is a target."""

    title: str
    is_target: bool = False


@dataclass(frozen=True)
class RankedList:
    """One model's list in an example: the rank of the best target, and the first items."""

    label: str
    color: int | None
    rank: str
    items: Sequence[ListedItem]


@dataclass(frozen=True)
class Example:
    """One evaluation example with the models' lists.

    Attributes:
        user: its id.
        hit: whether any model has a target among its first items.
        earlier: number of items before those in ``history``.
        history: titles of the latest items.
        targets: titles.
        lists: of all runs and baselines.
    """

    user: str
    hit: bool
    earlier: int
    history: Sequence[str]
    targets: Sequence[str]
    lists: Sequence[RankedList]


@dataclass(frozen=True)
class Examples:
    """Evaluation examples, the first one open."""

    kind: ClassVar[str] = "examples"
    examples: Sequence[Example]


Block = Paragraph | Table | Missing | Pictures | Details | Cards | Examples


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading and an anchor."""

    anchor: str
    title: str
    lead: str
    blocks: Sequence[Block]

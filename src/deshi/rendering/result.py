"""The base class of what a command hands back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from io import StringIO
from typing import ClassVar

from rich.console import Console, Group

from deshi.rendering.blocks import Block
from deshi.rendering.documents import html
from deshi.rendering.terminal import renderable


class Result(ABC):
    """A result that :meth:`blocks` describes; a terminal, plain text and a notebook show the same blocks."""

    width: ClassVar[int] = 120
    """Columns of the plain text."""

    @abstractmethod
    def blocks(self) -> Sequence[Block]:
        """The result as tables and paragraphs."""

    def __rich__(self) -> Group:
        return Group(*map(renderable, self.blocks()))

    def __str__(self) -> str:
        console = Console(file=StringIO(), width=self.width, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip()

    def _repr_html_(self) -> str:
        return html(self.blocks())

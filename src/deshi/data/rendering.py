"""How a stage's result looks: tables in a terminal, as plain text, in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from io import StringIO
from typing import ClassVar

from rich.console import Console, RenderableType


class Rendered(ABC):
    """A result that is shown as tables: :meth:`tables` draws them, text and notebook follow from it."""

    width: ClassVar[int] = 110
    """Columns of the plain text and of the notebook's output."""

    @abstractmethod
    def tables(self) -> RenderableType:
        """The result for a rich console."""

    def __str__(self) -> str:
        """The tables as plain text."""
        console = Console(file=StringIO(), width=self.width, color_system=None)
        with console.capture() as capture:
            console.print(self.tables())
        return capture.get().rstrip()

    def _repr_html_(self) -> str:
        console = Console(record=True, width=self.width, file=StringIO())
        console.print(self.tables())
        return console.export_html(inline_styles=True, code_format='<pre style="line-height:1.2">{code}</pre>')

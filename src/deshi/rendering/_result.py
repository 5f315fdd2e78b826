"""Base class of the results of commands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from rich.console import Group

from deshi.rendering._blocks import Block
from deshi.rendering._documents import html
from deshi.rendering._terminal import for_console, plain_text


class Result(ABC):
    """A result that :meth:`blocks` describes; a terminal, plain text and a notebook show the same blocks."""

    @abstractmethod
    def blocks(self) -> Sequence[Block]:
        """The result as tables and paragraphs."""

    def __rich__(self) -> Group:
        return for_console(self.blocks())

    def __str__(self) -> str:
        return plain_text(self.blocks())

    def _repr_html_(self) -> str:
        return html(self.blocks())

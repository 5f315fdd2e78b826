"""One way of showing every result: tables and paragraphs for terminals, notebooks, pages and manuscripts."""

from deshi.rendering._blocks import Block, Cell, Paragraph, Row, Table, Tone, paragraphs, percent
from deshi.rendering._documents import html, html_page, latex, markdown, markdown_table, render_template
from deshi.rendering._result import Result
from deshi.rendering._terminal import plain_text

__all__ = [
    "Block",
    "Cell",
    "Paragraph",
    "Result",
    "Row",
    "Table",
    "Tone",
    "html",
    "html_page",
    "latex",
    "markdown",
    "markdown_table",
    "paragraphs",
    "percent",
    "plain_text",
    "render_template",
]

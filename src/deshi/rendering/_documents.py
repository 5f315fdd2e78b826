"""Tables and paragraphs as HTML, Markdown and LaTeX: a Jinja template each, which escapes every value."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from deshi.rendering._blocks import Block, Table

TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"\ensuremath{\pm}", "\n": " ",
}  # fmt: skip
NUMBERS = re.compile(r"\[?[+-]?\d+\.\d+(, [+-]?\d+\.\d+)?\]?")
"""A figure or an interval: set as mathematics, so that a hyphen becomes a minus."""


def html(blocks: Sequence[Block]) -> str:
    """A piece of HTML, for a notebook."""
    return render_template("rendering/notebook.html.j2", blocks=blocks)


def html_page(title: str, blocks: Sequence[Block]) -> str:
    """A page of its own that loads nothing."""
    return render_template("rendering/page.html.j2", title=title, blocks=blocks)


def markdown(title: str, blocks: Sequence[Block]) -> str:
    """A document in GitHub's Markdown."""
    template = _environment(escape_markdown).get_template("rendering/document.md.j2")
    return template.render(title=title, blocks=blocks).rstrip() + "\n"


def markdown_table(table: Table) -> str:
    """The rows of a table in GitHub's Markdown, without its title."""
    return _environment(escape_markdown).get_template("rendering/table.md.j2").render(block=table).rstrip()


def latex(blocks: Sequence[Block]) -> str:
    """A ``table`` environment for each table, for a document that uses the package ``booktabs``."""
    return _environment(escape_latex).get_template("rendering/tables.tex.j2").render(blocks=blocks) + "\n"


def render_template(name: str, **values: Any) -> str:
    """An HTML template of deshi's, filled in.

    Args:
        name: of the template, below the package.
        values: what it shows; all but ``Markup`` is escaped.
    """
    return _environment(None).get_template(name).render(version=version("deshi"), **values)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is: signs that mean something to it, or to HTML, are escaped."""
    return re.sub(r"([\\`*_\[\]<>|~#&])", r"\\\1", " ".join(text.split()))


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return f"${text}$" if NUMBERS.fullmatch(text) else "".join(TEX.get(sign, sign) for sign in text)


@cache
def _environment(escape: Callable[[str], str] | None) -> Environment:
    """Jinja for HTML, or for a format with an ``escape`` of its own; braces belong to LaTeX there."""
    options: dict[str, Any] = {"autoescape": True}
    if escape is not None:
        options = {
            "variable_start_string": "<<", "variable_end_string": ">>", "block_start_string": "<%",
            "block_end_string": "%>", "comment_start_string": "<#", "comment_end_string": "#>",
            "finalize": lambda value: value if isinstance(value, Markup) else escape(value),
        }  # fmt: skip
    return Environment(
        loader=PackageLoader("deshi", "."), trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, **options
    )

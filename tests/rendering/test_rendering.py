"""Tables and paragraphs in every format, with texts that mean something to the formats."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser

import pytest

from deshi.rendering import Block, Cell, Paragraph, Result, Table, html, latex, markdown
from deshi.rendering._documents import escape_latex

TABLE = Table(
    "Figures of a_b", ["Model", "A&B", "Note"],
    [[Cell("a|b", color=1), Cell("0.1", "[0.1, 0.2]", bold=True), "<i>"], ["[red]", "-0.2000", "two\nlines"]],
    caption="5 % of all", align="lrl",
)  # fmt: skip
BLOCKS: list[Block] = [TABLE, Paragraph("LEAK <b> [red]", "warning"), Paragraph("a note")]


class _Result(Result):
    def blocks(self) -> Sequence[Block]:
        return BLOCKS


def test_a_terminal_and_a_notebook_show_the_same() -> None:
    """A result that differs between them is two results; rich's markup and HTML in names are text."""
    text, page = str(_Result()), _Result()._repr_html_()
    for word in ("Figures of a_b", "a|b", "0.1", "-0.2000", "5 % of all", "a note", "two", "lines", "A&B"):
        assert word in text and word in _text(page)
    assert "[red]" in text and "WARNING: LEAK <b> [red]" in text
    assert "WARNING: LEAK <b> [red]" in _text(page) and "<b> " not in page


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.data: list[str] = []

    def handle_data(self, data: str) -> None:
        self.data.append(data)


def _text(page: str) -> str:
    """The character data of a page."""
    texts = _Texts()
    texts.feed(page)
    return "".join(texts.data)


def test_a_piece_of_html_by_hand() -> None:
    """The first column heads its row, sides and bold are marked, details are small."""
    page = html([TABLE])
    assert '<th scope="row" class="left"><span class="chip c1" aria-hidden="true"></span>a|b</th>' in page
    assert '<td><strong>0.1</strong><small>[0.1, 0.2]</small></td><td class="left">&lt;i&gt;</td>' in page


def test_markdown_by_hand() -> None:
    """Signs of Markdown and line breaks in a cell would break the table."""
    assert markdown("a_b", BLOCKS).splitlines() == [
        r"# a\_b", "", r"## Figures of a\_b", "", r"| Model | A\&B | Note |", "| :-- | --: | :-- |",
        r"| a\|b | **0.1** \[0.1, 0.2\] | \<i\> |", r"| \[red\] | -0.2000 | two lines |", "", "5 % of all", "",
        r"**WARNING:** LEAK \<b\> \[red\]", "", "a note",
    ]  # fmt: skip


def test_latex_rows_by_hand() -> None:
    """A bracket at the head of a row would be read as the argument of the line break before it."""
    rows = [line for line in latex(BLOCKS).splitlines() if line.endswith(r"\\")]
    assert rows == [
        r"Model & A\&B & Note \\",
        r"a\textbar{}b & \textbf{$0.1$} {\scriptsize $[0.1, 0.2]$} & \textless{}i\textgreater{} \\",
        r"{}[red] & $-0.2000$ & two lines \\",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b", r"a\_b"),
        ("\\", r"\textbackslash{}"),
        ("-0.1000", "$-0.1000$"),
        ("[-0.2000, +0.0100]", "$[-0.2000, +0.0100]$"),
        ("ml-100k", "ml-100k"),
        ("<0.001", r"\textless{}0.001"),
        ("1 ± 2\n3", r"1 \ensuremath{\pm} 2 3"),
    ],
)
def test_latex_by_hand(text: str, expected: str) -> None:
    """Figures are mathematics, so that a minus is one; names are not."""
    assert escape_latex(text) == expected

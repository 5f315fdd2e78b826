"""A comparison as Markdown, LaTeX, HTML, CSV and JSON; names are escaped in each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

import polars as pl

from deshi.artifacts import atomic_file, write_json
from deshi.comparison.comparison import Comparison
from deshi.comparison.tables import Cell, Sheet, sheets

TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"\ensuremath{\pm}",
    "\n": " ",
}
NUMBERS = re.compile(r"\[?[+-]?\d+\.\d+(, [+-]?\d+\.\d+)?\]?")
"""A figure or an interval: set as mathematics, so that a hyphen becomes a minus."""

STYLE = """\
body{font:15px/1.45 system-ui,sans-serif;margin:1.5rem auto;max-width:70rem;padding:0 1rem;color:#1a1a1a}
body{background:#fff}
.table{overflow-x:auto}
table{border-collapse:collapse;border-top:2px solid;border-bottom:2px solid}
caption{caption-side:bottom;text-align:left;padding:.5rem 0;color:#444}
th,td{padding:.3rem .8rem;text-align:right;white-space:nowrap}
th{border-bottom:1px solid}
.name{text-align:left}
small{display:block;color:#555}
.warning{color:#a00000;font-weight:600}
"""


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write ``comparison.{json,md,csv,tex,html}`` and, if anything was tested, ``tests.csv``, each atomically."""
    write_json(folder / "comparison.json", comparison.as_dict())
    for suffix, text in (("md", markdown(comparison)), ("tex", latex(comparison)), ("html", html(comparison))):
        with atomic_file(folder / f"comparison.{suffix}") as temporary:
            temporary.write_text(text, encoding="utf-8")
    _write_csv(folder / "comparison.csv", figures_frame(comparison))
    if comparison.tests:
        _write_csv(folder / "tests.csv", tests_frame(comparison))


def figures_frame(comparison: Comparison) -> pl.DataFrame:
    """A row a model and metric: ``model``, ``metric``, ``mean``, ``std``, ``low``, ``high``, ``seeds``, ``users``.

    ``best`` and ``differs`` (significantly, from the baseline or the best) say what the tables show as bold and mark.
    """
    rows = [
        {
            "model": model.label,
            "metric": metric,
            "mean": figure.mean,
            "std": figure.std,
            "low": figure.low,
            "high": figure.high,
            "seeds": len(model.seeds),
            "users": comparison.n_users,
            "best": model.label in comparison.best(metric),
            "differs": model.label in comparison.marked(metric),
        }
        for model in comparison.models
        for metric, figure in comparison.figures[model.label].items()
    ]
    return pl.DataFrame(rows, schema_overrides={"std": pl.Float64})


def tests_frame(comparison: Comparison) -> pl.DataFrame:
    """A row a test, with the fields of :class:`deshi.comparison.comparison.PairTest`."""
    return pl.DataFrame([asdict(test) for test in comparison.tests])


def markdown(comparison: Comparison) -> str:
    """The tables in GitHub's Markdown."""
    parts = [f"# Comparison on {_md(comparison.data)}"]
    for sheet in sheets(comparison):
        parts += [f"## {_md(sheet.title)}", _md_table(sheet), _md(sheet.caption)]
    parts += [f"**WARNING:** {_md(sentence)}" for sentence in comparison.warnings]
    parts += ["\n".join(f"- {_md(sentence)}" for sentence in comparison.notes)] if comparison.notes else []
    return "\n\n".join(parts) + "\n"


def latex(comparison: Comparison) -> str:
    """The tables as ``table`` environments for a document that uses the package ``booktabs``."""
    notes = [f"% WARNING: {_one_line(sentence)}" for sentence in comparison.warnings]
    notes += [f"% {_one_line(sentence)}" for sentence in comparison.notes]
    tables = [_tex_table(sheet) for sheet in sheets(comparison)]
    return "\n".join(["% Needs \\usepackage{booktabs}.", *notes, *tables]) + "\n"


def html(comparison: Comparison) -> str:
    """A page of its own that loads nothing."""
    title = f"Comparison on {escape(comparison.data)}"
    body = [f'<div class="table">{html_table(sheet)}</div>' for sheet in sheets(comparison)]
    body += [f'<p class="warning">WARNING: {escape(sentence)}</p>' for sentence in comparison.warnings]
    body += [f"<p>{escape(sentence)}</p>" for sentence in comparison.notes]
    head = (
        f'<meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{title}</title><style>{STYLE}</style>"
    )
    lines = ["<!DOCTYPE html>", f'<html lang="en"><head>{head}</head><body>', f"<h1>{title}</h1>", *body]
    return "\n".join([*lines, "</body></html>"]) + "\n"


def html_table(sheet: Sheet) -> str:
    """One table, to be put into any page."""
    heads = "".join(f"<th{_side(sheet, number)}>{escape(name)}</th>" for number, name in enumerate(sheet.columns))
    rows = "\n".join(
        f"<tr>{''.join(f'<td{_side(sheet, number)}>{_html_cell(cell)}</td>' for number, cell in enumerate(row))}</tr>"
        for row in sheet.rows
    )
    return (
        f"<h2>{escape(sheet.title)}</h2>\n<table><caption>{escape(sheet.caption)}</caption>\n"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"
    )


def _side(sheet: Sheet, number: int) -> str:
    return ' class="name"' if number < sheet.n_left else ""


def _html_cell(cell: Cell) -> str:
    text = f"<strong>{escape(cell.text)}</strong>" if cell.bold else escape(cell.text)
    return f"{text}<small>{escape(cell.detail)}</small>" if cell.detail else text


def _md(text: str) -> str:
    """Text that Markdown shows as it is: signs that mean something to it, or to HTML, are escaped."""
    return re.sub(r"([\\`*_\[\]<>|~#&])", r"\\\1", _one_line(text))


def _md_table(sheet: Sheet) -> str:
    sides = [":--" if number < sheet.n_left else "--:" for number in range(len(sheet.columns))]
    rows = [[_md_cell(cell) for cell in row] for row in sheet.rows]
    return "\n".join(_md_row(row) for row in [[_md(name) for name in sheet.columns], sides, *rows])


def _md_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _md_cell(cell: Cell) -> str:
    text = f"**{_md(cell.text)}**" if cell.bold else _md(cell.text)
    return f"{text} {_md(cell.detail)}" if cell.detail else text


def tex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return f"${text}$" if NUMBERS.fullmatch(text) else "".join(TEX.get(sign, sign) for sign in text)


def _tex_table(sheet: Sheet) -> str:
    sides = "l" * sheet.n_left + "r" * (len(sheet.columns) - sheet.n_left)
    rows = [" & ".join(_tex_cell(cell) for cell in row) + r" \\" for row in sheet.rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{tex(sheet.title)}. {tex(sheet.caption)}}}",
            r"\footnotesize\setlength{\tabcolsep}{4pt}",  # eight columns in the width of a page
            rf"\begin{{tabular}}{{{sides}}}",
            r"\toprule",
            " & ".join(tex(name) for name in sheet.columns) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _tex_cell(cell: Cell) -> str:
    text = rf"\textbf{{{tex(cell.text)}}}" if cell.bold else tex(cell.text)
    # A bracket at the head of a row would be taken for the optional argument of the row end before it.
    return rf"{text} {{\scriptsize {tex(cell.detail)}}}" if cell.detail else _guarded(text)


def _guarded(text: str) -> str:
    return f"{{}}{text}" if text.startswith(("[", "*")) else text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _write_csv(path: Path, frame: pl.DataFrame) -> None:
    with atomic_file(path) as temporary:
        frame.write_csv(temporary)

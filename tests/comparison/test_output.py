"""Every file of a comparison, parsed back, with names that mean something to the formats."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest

from deshi.comparison._comparison import Comparison, Figure, Model, PairTest
from deshi.comparison._output import write_comparison
from deshi.comparison._result import CompareResult
from deshi.comparison._tables import blocks_of, figures_table, p_text, pairs_table, shown_tests, tables_of
from deshi.rendering import Cell, html_page, latex, markdown

NASTY = ["a_b & 50% #1 {x} $y^2~", r"<b>|[red]\end{table}", "*plain*"]


def pair(metric: str, first: str, second: str, holm: float, effect: float = 0.1) -> PairTest:
    return PairTest(metric, first, second, -0.1, -0.2, -0.01, holm / 2, holm / 2, holm, 0.2, effect, 1, 1000, 3)


def comparison(names: list[str], against: str | None = None, holm: float = 0.0001) -> Comparison:
    """Models of means 0.1, 0.2, ... of which the first two have seeds; every pair tested with one corrected p-value."""
    metrics = ["ndcg@10", "mrr@5"]
    models = [Model(name, "sasrec", (0, 1) if n < 2 else (), (f"runs/{n}",), {}, n > 1) for n, name in enumerate(names)]
    figure = {
        name: Figure((n + 1) / 10, 0.01 if n < 2 else None, n / 10, (n + 2) / 10, ((n + 1) / 10,))
        for n, name in enumerate(names)
    }
    pairs = [(a, b) for n, a in enumerate(names) for b in names[n + 1 :] if against is None or b == against]
    return Comparison(
        data="ml_100k & <co>",
        part="test",
        n_users=6040,
        metrics=metrics,
        models=models,
        figures={name: dict.fromkeys(metrics, figure[name]) for name in names},
        tests=[pair(metric, a, b, holm, float("inf")) for metric in metrics for a, b in pairs],
        against=against,
        confidence=0.95,
        samples=100,
        permutations=10_000,
        seed=0,
        protocol={"filter_seen": True},
        warnings=["LEAK: 5 % of <all> targets_of"],
        notes=["one & all"],
    )


@pytest.fixture
def nasty() -> Comparison:
    return comparison(NASTY)


def test_json_and_csv_come_back(nasty: Comparison, tmp_path: Path) -> None:
    """Other programs read these; an infinite effect size is no JSON."""
    write_comparison(tmp_path, nasty)
    plain = json.loads((tmp_path / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert [model["name"] for model in plain["models"]] == NASTY
    assert plain["tests"][0]["effect_size"] is None and plain["figures"][NASTY[0]]["ndcg@10"]["std"] == 0.01
    figures = pl.read_csv(tmp_path / "comparison.csv")
    assert figures["model"].to_list() == [name for name in NASTY for _ in range(2)]
    assert figures.filter(pl.col("best"))["model"].unique().to_list() == [NASTY[2]]
    assert figures["std"].null_count() == 2 and figures.filter(pl.col("differs")).height == 4
    tests = pl.read_csv(tmp_path / "tests.csv")
    assert tests.height == 6 and set(tests["second"]) == set(NASTY[1:]) and tests["ties"].unique().to_list() == [1000]


def test_no_tests_no_file(tmp_path: Path) -> None:
    """An empty table would look like a failure."""
    write_comparison(tmp_path, comparison(["one"]))
    assert not (tmp_path / "tests.csv").exists() and len(tables_of(comparison(["one"]))) == 1
    assert "Bold" not in (tmp_path / "comparison.md").read_text()


def test_markdown_has_a_cell_a_column(nasty: Comparison) -> None:
    """A pipe in a name would shift a whole row."""
    rows = [line for line in markdown("Comparison", blocks_of(nasty)).splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", row)) - 1 for row in rows}
    assert widths == {4, 8} and len(rows) == 2 + 3 + 2 + 6
    assert r"\<b\>\|\[red\]" in rows[3] and "**0.3000**" in rows[4] and r"\*" in rows[2]
    assert "**WARNING:** LEAK" in markdown("Comparison", blocks_of(nasty))


def test_html_is_well_formed_and_loads_nothing(nasty: Comparison) -> None:
    """The page is opened from a mail or a cluster, without a network."""
    page = html_page("Comparison", blocks_of(nasty))
    tree = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))
    cells = [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")]
    assert [row[0] for row in cells[1:4]] == NASTY and cells[3][2] == "0.3000[0.2000, 0.4000]"
    assert len(cells) == 1 + 3 + 1 + 6 and all(len(row) == 8 for row in cells[4:])
    assert not re.search(r"\b(src|href)=|\burl\(|@import", page)
    assert [node.text for node in tree.iter("p")] == ["WARNING: LEAK: 5 % of <all> targets_of", "one & all"]


def test_latex_is_balanced_and_escaped(nasty: Comparison) -> None:
    """A manuscript must compile with whatever a run is called."""
    text = latex(blocks_of(nasty))
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", code) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended) == ["table", "table", "tabular", "tabular"]
    bare = re.sub(r"\\[\\{}$&#_%]", "", code.replace(r"\\" + "\n", "\n"))
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert not re.search(r"[#%~<>|±]", bare)
    rows = [line for line in code.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {4, 8}
    assert [code.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [2, 2, 2]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles(nasty: Comparison, tmp_path: Path) -> None:
    """What looks right to a regular expression may still stop a manuscript; booktabs' rules are lines here."""
    rules = "".join(rf"\newcommand{{\{name}}}{{\hline}}" for name in ("toprule", "midrule", "bottomrule"))
    text = rf"\documentclass{{article}}{rules}\begin{{document}}{latex(blocks_of(nasty))}\end{{document}}"
    (tmp_path / "table.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0 and (tmp_path / "table.pdf").is_file(), done.stdout[-2000:]


def test_marks_are_about_the_best_or_the_baseline() -> None:
    """The caption says which, and a model is never marked against itself."""
    free, fixed = comparison(["a", "b", "c"]), comparison(["a", "b", "c"], against="c")
    assert free.marked("ndcg@10") == fixed.marked("ndcg@10") == {"a", "b"}
    assert comparison(["a", "b"], holm=0.06).marked("ndcg@10") == set()
    cells = [row[2] for row in figures_table(free).rows]
    assert [(cell.text, cell.bold) for cell in cells if isinstance(cell, Cell)] == [
        ("0.1000 ± 0.0100*", False),
        ("0.2000 ± 0.0100*", False),
        ("0.3000", True),
    ]
    assert "* differs significantly from the best of its column" in figures_table(free).caption
    assert "* differs significantly from c (" in figures_table(fixed).caption


def test_equal_models_are_both_best() -> None:
    """Bold for one of two equal figures would be a lie."""
    same = comparison(["a", "b"])
    figures = {"a": same.figures["b"], "b": same.figures["b"]}
    assert Comparison(**{**same.__dict__, "figures": figures}).best("ndcg@10") == ["a", "b"]


def test_many_tests_are_shortened_and_say_so() -> None:
    """Nobody reads 760 rows; the table keeps those that its marks are about, the files keep all."""
    many = comparison([f"m{n:02}" for n in range(20)])
    assert len(many.tests) == 380 and len(shown_tests(many)) == 38
    assert all(test.second == "m19" for test in shown_tests(many))
    assert pairs_table(many).title == "Paired tests over users: the 38 of 380 with the best model of each metric"


def test_p_values_are_never_zero() -> None:
    """0.000 is not a probability that a test can give."""
    assert [p_text(p) for p in (0.00099, 0.001, 0.0499, 1.0)] == ["<0.001", "0.001", "0.050", "1.000"]


def test_the_terminal_shows_names_as_they_are(nasty: Comparison) -> None:
    """Rich would take [red] in a name for a colour."""
    text = str(CompareResult(Path("runs/compare/x"), nasty))
    assert r"<b>|[red]\end{table}" in text and "WARNING: LEAK" in text and "Written to runs/compare/x" in text

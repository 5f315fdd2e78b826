"""Parts of the report by hand: how examples are drawn, how figures become inline markup, what labels look like."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest

from deshi.reporting._drawing import COLORS, INK, FigureBuilder, baseline_style, inline, model_style, shortened
from deshi.reporting._examples import draw
from deshi.reporting._figures import (
    Curve,
    Measured,
    Span,
    against_cost,
    against_diagonal,
    curves,
    grouped_bars,
    spans,
    stacked_shares,
)
from deshi.reporting._learning import _missing
from deshi.reporting._provenance import hide_passwords, settings


@pytest.mark.parametrize(
    ("n_hits", "count", "expected"), [(50, 12, 6), (50, 5, 3), (2, 12, 2), (99, 12, 11), (0, 4, 0)]
)
def test_half_of_the_examples_are_hits_where_there_are_enough(n_hits: int, count: int, expected: int) -> None:
    """Only hits would flatter, only misses would say nothing about what works."""
    hits = np.arange(100) < n_hits
    drawn = draw(hits, count, seed=0)
    assert len(drawn) == len(set(drawn.tolist())) == count and hits[drawn].sum() == expected
    assert (np.diff(drawn) > 0).all()


def test_examples_depend_on_the_seed_alone() -> None:
    """Drawn again they are the same; with another seed they are others, so that nobody can choose."""
    hits = np.arange(1000) % 3 == 0
    assert (draw(hits, 12, 0) == draw(hits, 12, 0)).all() and (draw(hits, 12, 0) != draw(hits, 12, 1)).any()
    assert len(draw(hits[:5], 12, 0)) == 5


def test_every_kind_of_figure_is_drawn(tmp_path: Path) -> None:
    """Values at the edge (one point, NaN, no bar) must not stop a report."""
    styles = model_style("run", 0), baseline_style("popularity", 1)
    draws = [
        curves([Curve(styles[0], [1], [0.5], 0), Curve(styles[1], [1], [float("nan")])], "epoch", "loss"),
        curves([Curve(styles[0], [1, 10], [0.1, 0.2])], "K", "NDCG@K", [1, 10]),
        spans([Span(styles[0], 0.1, 0.05, 0.2, [0.09, 0.11])], "NDCG@10"),
        spans([Span(styles[0], -0.1, float("nan"), float("nan"))], "difference", zero_line=True),
        grouped_bars(["head", "tail"], [(styles[0], np.array([0.1, np.nan])), (styles[1], np.zeros(2))], "NDCG", 1),
        grouped_bars(["head"], [(styles[1], np.zeros(1))], "NDCG", 0),
        stacked_shares(["truth"], [("head", COLORS[0]), ("tail", COLORS[1])], np.array([[0.95, 0.05]])),
        against_diagonal([Curve(styles[0], [0.0, 0.5], [0.0, 0.1])], "confidence", "accuracy"),
        against_cost([Measured(styles[0], [900, 2e6], [0.1, 0.2], [0.1, 0.1], [0.1, 0.3])], [], "size", "NDCG", True),
        against_cost([Measured(styles[0], [0.3], [0.1], [0.0], [0.2])], [(styles[1], 0.1)], "ms", "NDCG", False),
    ]
    before = dict(matplotlib.rcParams)
    for number, function in enumerate(draws):
        picture = FigureBuilder(tmp_path).picture(f"figure-{number}", "A $title", "What it is.", function)
        assert "<svg" in picture.svg and (tmp_path / f"figure-{number}.png").stat().st_size > 1000
    FigureBuilder(tmp_path).sheet("all", draws, columns=3)
    assert (tmp_path / "all.png").stat().st_size > 10_000 and (tmp_path / "all.svg").is_file()
    assert dict(matplotlib.rcParams) == before, "a notebook's own style must survive"


def test_an_inline_figure_follows_the_page(tmp_path: Path) -> None:
    """Ids must not clash, colours and font are the page's, and names of runs are text."""
    style = model_style("a<b>$x$", 0)
    picture = FigureBuilder(tmp_path).picture(
        "one", "T<i>", "D&d", curves([Curve(style, [1, 2], [0, 1])], "epoch", "loss")
    )
    assert "T&lt;i&gt;" in picture.svg and "D&amp;d" in picture.svg and "a&lt;b&gt;$x$" in picture.svg
    assert all(name.startswith("one-") for name in re.findall(r'\bid="([^"]+)"', picture.svg))
    assert "var(--ink)" in picture.svg and "var(--run-0)" in picture.svg and INK not in picture.svg
    assert "http" not in picture.svg and "<style" not in picture.svg and "DejaVu" not in picture.svg


def test_inline_leaves_no_dangling_reference() -> None:
    """Clip paths and markers are referred to by id."""
    svg = '<?xml?><svg viewBox="0 0 1 1"><g id="a"/><use xlink:href="#a" clip-path="url(#b)"/></svg>'
    assert 'href="#n-a" clip-path="url(#n-b)"' in inline(svg, "n", "t", "d")


def test_runs_are_told_apart_without_colour() -> None:
    """Models differ in colour and marker, seeds of a model in dash."""
    styles = [model_style("m", number) for number in range(7)]
    assert len({style.color for style in styles[:6]}) == len({style.marker for style in styles[:6]}) == 6
    seed = model_style("m", 0, 1)
    assert seed.color == styles[0].color and seed.dash != "-"
    assert styles[6].color == styles[0].color and styles[6].marker != styles[0].marker


def test_long_labels_keep_their_ends() -> None:
    """Runs are often named alike in front and differ at the end."""
    assert shortened("short") == "short"
    assert shortened("a_very_long_name_of_a_run_with_seed3").endswith("seed3")


def test_configurations_are_flattened_and_passwords_hidden() -> None:
    """Differences are shown by dotted key."""
    config = {"a": {"b": None, "c": [1]}, "d": {}, "dsn": "postgresql://u:p@h/db"}
    assert settings(config) == {"a.b": "null", "a.c": "[1]", "d": "{}", "dsn": "postgresql://u:***@h/db"}
    assert hide_passwords("x\ny: z") == "x\ny: z"


@pytest.mark.parametrize(
    ("model", "cross_fit", "expected"),
    [("ensemble", 0, "isn't trained in epochs"), ("sasrec", 2, "trained in 2 folds, whose curves are in fold-*")],
)
def test_a_run_without_a_curve_isnt_taken_for_one_that_is_gone(model: str, cross_fit: int, expected: str) -> None:
    """An ensemble chooses weights, a cross-fitted teacher has a curve in each fold: both runs are there."""
    trained = SimpleNamespace(folder=Path(), record={"model": model, "cross_fit": cross_fit})
    run: Any = SimpleNamespace(label="both", record={"run": "runs/teach/both"}, trained=trained)
    assert expected in _missing(run).text

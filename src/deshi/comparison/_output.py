"""Files of a comparison: Markdown, LaTeX, HTML, CSV and JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import polars as pl

from deshi.artifacts import atomic_file, write_json
from deshi.comparison._comparison import Comparison
from deshi.comparison._tables import blocks_of
from deshi.rendering import html_page, latex, markdown


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write ``comparison.{json,md,csv,tex,html}`` and, if anything was tested, ``tests.csv``, each atomically."""
    title, blocks = f"Comparison on {comparison.data}", blocks_of(comparison)
    texts = {
        "comparison.md": markdown(title, blocks),
        "comparison.tex": latex(blocks),
        "comparison.html": html_page(title, blocks),
        "comparison.csv": figures_frame(comparison).write_csv(),
        **({"tests.csv": tests_frame(comparison).write_csv()} if comparison.tests else {}),
    }
    write_json(folder / "comparison.json", comparison.as_dict())
    for name, text in texts.items():
        with atomic_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def figures_frame(comparison: Comparison) -> pl.DataFrame:
    """A row a model and metric: ``model``, ``metric``, ``mean``, ``std``, ``low``, ``high``, ``seeds``, ``users``.

    ``best`` and ``differs`` (significantly, from the model compared with) are what the tables show as bold and mark.
    """
    rows = [
        {
            "model": model.name,
            "metric": metric,
            "mean": figure.mean,
            "std": figure.std,
            "low": figure.low,
            "high": figure.high,
            "seeds": len(model.seeds),
            "users": comparison.n_users,
            "best": model.name in comparison.best(metric),
            "differs": model.name in comparison.marked(metric),
        }
        for model in comparison.models
        for metric, figure in comparison.figures[model.name].items()
    ]
    return pl.DataFrame(rows, schema_overrides={"std": pl.Float64})


def tests_frame(comparison: Comparison) -> pl.DataFrame:
    """A row a test, with the fields of :class:`deshi.comparison._comparison.PairTest`."""
    return pl.DataFrame([asdict(test) for test in comparison.tests])

"""Comparison tables: models by metrics, and paired tests."""

from __future__ import annotations

from deshi.comparison._comparison import Comparison, Figure, PairTest
from deshi.metrics import metric_title
from deshi.rendering import Block, Cell, Row, Table, paragraphs, percent

MARK = "*"
MOST_TESTS = 60
"""More tests than this aren't read: the tables then show those that the marks are about."""


def blocks_of(comparison: Comparison) -> list[Block]:
    """The tables, the warnings and the notes."""
    warnings = paragraphs(*comparison.warnings, tone="warning")
    return [*tables_of(comparison), *warnings, *paragraphs(*comparison.notes)]


def tables_of(comparison: Comparison) -> list[Table]:
    """The table of models by metrics and, if anything was tested, the table of tests."""
    return [figures_table(comparison), *([pairs_table(comparison)] if comparison.tests else [])]


def figures_table(comparison: Comparison) -> Table:
    """A row a model, a column a metric; the best of a column is bold."""
    several = len(comparison.models) > 1
    best = {metric: set(comparison.best(metric)) if several else set() for metric in comparison.metrics}
    marked = {metric: comparison.marked(metric) for metric in comparison.metrics}
    rows: list[Row] = []
    for model in comparison.models:
        figures = comparison.figures[model.name].items()
        cells = [
            figure_cell(each, model.name in best[metric], model.name in marked[metric]) for metric, each in figures
        ]
        rows.append([model.name, str(len(model.seeds)) if model.seeds else "-", *cells])
    title = f"{comparison.data}, {comparison.part}, {comparison.n_users:,} users"
    columns = ["Model", "Seeds", *(metric_title(metric) for metric in comparison.metrics)]
    return Table(title, columns, rows, _figures_caption(comparison))


def pairs_table(comparison: Comparison) -> Table:
    """A row a pair and metric, corrected p-values."""
    tests = shown_tests(comparison)
    title = "Paired tests over users"
    if len(tests) < len(comparison.tests):
        opponent = "the best model of each metric" if comparison.against is None else comparison.against
        title += f": the {len(tests)} of {len(comparison.tests)} with {opponent}"
    share = percent(comparison.confidence)
    columns = ["First", "Second", "Metric", "Difference", "d", "W / T / L", "p (flips)", "p (ranks)"]
    caption = (
        f"Difference: mean over users of first minus second, with its {share} bootstrap interval. d: that mean in "
        f"standard deviations of the differences. W / T / L: users for whom the first is better, equal, worse. "
        f"p: two-sided, by {comparison.permutations:,} random sign flips and by Wilcoxon's signed ranks, both after "
        f"Holm's correction over {len(comparison.tests)} tests. Bold: below {comparison.level:.2g}."
    )
    return Table(title, columns, [_test(test, comparison.level) for test in tests], caption, "lllrrrrr")


def shown_tests(comparison: Comparison) -> list[PairTest]:
    """All tests, or if they are many those with the model that each metric's marks refer to."""
    if len(comparison.tests) <= MOST_TESTS:
        return list(comparison.tests)
    opponents = {metric: comparison.compared_with(metric) for metric in comparison.metrics}
    return [test for test in comparison.tests if opponents[test.metric] in (test.first, test.second)]


def p_text(p: float) -> str:
    """Three decimals; what would be 0.000 is given as a bound."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def figure_cell(figure: Figure, bold: bool = False, marked: bool = False) -> Cell:
    """A mean with its spread over seeds and its interval over users; ``marked`` differs significantly."""
    spread = "" if figure.std is None else f" ± {figure.std:.4f}"
    return Cell(f"{figure.mean:.4f}{spread}{MARK if marked else ''}", f"[{figure.low:.4f}, {figure.high:.4f}]", bold)


def _test(test: PairTest, level: float) -> list[Cell]:
    return [
        Cell(test.first),
        Cell(test.second),
        Cell(metric_title(test.metric)),
        Cell(f"{test.difference:+.4f}", f"[{test.low:+.4f}, {test.high:+.4f}]"),
        Cell(f"{test.effect_size:+.3f}"),
        Cell(f"{test.wins:,} / {test.ties:,} / {test.losses:,}"),
        Cell(p_text(test.permutation_holm), bold=test.permutation_holm < level),
        Cell(p_text(test.wilcoxon_holm), bold=test.wilcoxon_holm < level),
    ]


def _figures_caption(comparison: Comparison) -> str:
    spread = any(figure.std is not None for each in comparison.figures.values() for figure in each.values())
    sentences = [
        f"Mean over users{' and seeds ± standard deviation over seeds' if spread else ''}, in brackets the "
        f"{percent(comparison.confidence)} bootstrap interval over users."
    ]
    if len(comparison.models) > 1:
        sentences.append("Bold: the best of a column.")
    if comparison.tests:
        opponent = "the best of its column" if comparison.against is None else comparison.against
        sentences.append(
            f"{MARK} differs significantly from {opponent} (paired permutation test over users, Holm-corrected over "
            f"{len(comparison.tests)} tests, p < {comparison.level:.2g})."
        )
    return " ".join(sentences)

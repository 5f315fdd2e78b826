"""Figures of one style as SVG and PNG files and as inline markup; matplotlib's global state is left alone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib.style
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from deshi.artifacts import atomic_file
from deshi.rendering import Table
from deshi.reporting._blocks import Picture

INK, MUTED, GRID, SURFACE = "#1c2128", "#59636f", "#d5dae1", "#fefefe"
COLORS = ("#0072b2", "#d55e00", "#00916a", "#c0649a", "#b07a00", "#3a96cf")
"""After Okabe and Ito, told apart by the colour-blind; light ones darkened for a white page."""
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ((4, 2), (1, 1.5), (6, 2, 1, 2), (2, 2))
OPACITIES = (1.0, 0.72, 0.5)

VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    SURFACE: "card",
    **{color: f"run-{n}" for n, color in enumerate(COLORS)},
}
"""Colours that the page may change, for dark screens, by the name of its CSS variable."""

WIDTH, HEIGHT, LEGEND_ROW = 4.8, 2.9, 0.2
"""Inches; at 10 points a text stays readable when the picture is as narrow as a phone."""

LEGEND_LABEL = 44
"""Letters of a label that has a line of the legend to itself."""

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "deshi",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


@dataclass(frozen=True)
class LineStyle:
    """Style of a run or baseline: runs of a model in its colour, told apart by dash; a baseline in grey, hollow."""

    label: str
    color: str
    marker: str
    dash: Any = "-"
    hollow: bool = False
    opacity: float = 1.0

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of a line."""
        return {"label": shortened(self.label, LEGEND_LABEL), "linestyle": self.dash, **self.points}

    @property
    def points(self) -> dict[str, Any]:
        """Arguments of single points."""
        face = SURFACE if self.hollow else self.color
        return {"color": self.color, "marker": self.marker, "markerfacecolor": face}


def model_style(label: str, color: int, variant: int = 0) -> LineStyle:
    """The style of a run: ``color`` is the number of its model, ``variant`` its number among the model's runs."""
    lap = color // len(COLORS)
    dash = "-" if variant == 0 else (0, DASHES[(variant - 1) % len(DASHES)])
    opacity = OPACITIES[variant % len(OPACITIES)]
    return LineStyle(label, COLORS[color % len(COLORS)], MARKERS[(color + lap) % len(MARKERS)], dash, opacity=opacity)


def baseline_style(label: str, number: int) -> LineStyle:
    """The style of a baseline."""
    return LineStyle(label, MUTED, MARKERS[number % len(MARKERS)], (0, DASHES[number % len(DASHES)]), hollow=True)


def shortened(label: str, longest: int = 26) -> str:
    """A long label without its middle."""
    keep = (longest - 1) // 2
    return label if len(label) <= longest else f"{label[:keep]}…{label[-keep:]}"


def figure_name(text: str) -> str:
    """A text as part of a figure's name, which is a file's and an id on the page."""
    return re.sub("[^A-Za-z0-9_]+", "-", text).strip("-")


@dataclass(frozen=True)
class FigureBuilder:
    """Draws figures, each as ``NAME.svg``, ``NAME.png`` and inline markup.

    Args:
        folder: where the files go.
    """

    folder: Path

    def picture(
        self,
        name: str,
        title: str,
        description: str,
        draw: Callable[[Axes], None],
        numbers: Table | None = None,
        height: float = HEIGHT,
    ) -> Picture:
        """A figure with one pair of axes.

        Args:
            name: of the files; letters, digits and ``-``.
            title: a line above it, and the picture's name for screen readers.
            description: what it shows.
            draw: fills the axes; entries with labels get a legend below.
            numbers: what is drawn.
            height: of the axes in inches, without the legend.
        """
        svg = self.sheet(name, [draw], 1, height)
        return Picture(name, title, description, inline(svg, name, title, description), numbers)

    def sheet(self, name: str, draws: Sequence[Callable[[Axes], None]], columns: int, height: float = HEIGHT) -> str:
        """Several pairs of axes as one file of each kind, with one legend, for slides; the SVG's text.

        Args:
            name: of the files.
            draws: fill the axes, row by row; the first one's entries make the legend.
            columns: of axes.
            height: of each pair of axes in inches.
        """
        with _style():
            figure = _figure(draws, columns, height)
            svg = _svg(figure)
            with atomic_file(self.folder / f"{name}.svg") as path:
                path.write_text(svg, encoding="utf-8")
            with atomic_file(self.folder / f"{name}.png") as path:
                figure.set_dpi(200)
                figure.set_facecolor("white")
                FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
        return svg


@contextmanager
def _style() -> Iterator[None]:
    with matplotlib.style.context(["default", _STYLE]):
        yield


def _figure(draws: Sequence[Callable[[Axes], None]], columns: int, height: float) -> Figure:
    width, height = WIDTH * columns, height * math.ceil(len(draws) / columns)
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    grid = figure.subplots(math.ceil(len(draws) / columns), columns, squeeze=False).flat
    for axes, draw in zip(grid, draws, strict=False):
        axes.set_facecolor("none")
        draw(axes)
    handles, labels = _legend(grid[0])
    if handles:
        entries = columns * (2 if max(map(len, labels)) <= 22 else 1)
        rows = math.ceil(len(labels) / entries)
        figure.set_size_inches(width, height + LEGEND_ROW * rows + 0.1)
        figure.legend(handles, labels, loc="outside lower left", ncols=entries, handlelength=2.4)
    return figure


def _legend(axes: Axes) -> tuple[list[Any], list[str]]:
    """The entries in the order in which they were drawn, but bars before points."""
    entries = zip(*axes.get_legend_handles_labels(), strict=True)
    ordered = sorted(entries, key=lambda entry: not isinstance(entry[0], BarContainer))
    return [handle for handle, _ in ordered], [label for _, label in ordered]


def _svg(figure: Figure) -> str:
    """Deterministic: no date, no random ids."""
    text = StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return text.getvalue()


def inline(svg: str, name: str, title: str, description: str) -> Markup:
    """The picture as part of a page: ids of its own, the page's colours and font, a name and a description."""
    body = svg[svg.index("<svg") :]
    head, body = body[: body.index(">") + 1], body[body.index(">") + 1 :]
    box = re.search(r'viewBox="([^"]+)"', head)
    assert box is not None, head
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'(url\(|href=")#', rf"\1#{name}-", body).replace("xlink:href", "href")
    body = re.sub(r"<!--.*?-->|<style.*?</style>", "", body, flags=re.S)
    body = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", body)
    body = re.sub(r"\s*\n\s*", " ", body)
    for color, variable in VARIABLES.items():
        body = body.replace(color, f"var(--{variable})")
    texts = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    return Markup(f'<svg viewBox="{box[1]}" role="img" aria-labelledby="{name}-title {name}-desc">{texts}{body}')

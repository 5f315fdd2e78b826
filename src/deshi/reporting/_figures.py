"""Kinds of figures: each function takes values and returns a function that draws them on a pair of axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from deshi.arrays import Floats
from deshi.reporting._drawing import INK, LEGEND_LABEL, MUTED, SURFACE, LineStyle, shortened

Draw = Callable[[Axes], None]

ROW = 0.3
"""Inches of height for each line of a figure that has a line per model."""


@dataclass(frozen=True)
class Curve:
    """A line: its style, and its points; ``mark`` is the number of one that stands out."""

    style: LineStyle
    x: Sequence[float]
    y: Sequence[float]
    mark: int | None = None


@dataclass(frozen=True)
class Span:
    """A value with its interval, and smaller points beside it."""

    style: LineStyle
    value: float
    low: float
    high: float
    points: Sequence[float] = ()


@dataclass(frozen=True)
class Measured:
    """A line of values with their intervals over what they cost."""

    style: LineStyle
    costs: Sequence[float]
    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def curves(lines: Sequence[Curve], x_label: str, y_label: str, ticks: Sequence[float] | None = None) -> Draw:
    """Lines; with ``ticks``, the horizontal axis is logarithmic and has marks there only."""

    def draw(axes: Axes) -> None:
        for curve in lines:
            small = {"markersize": 0} if len(curve.x) > 15 else {}
            axes.plot(curve.x, curve.y, **curve.style.line | small)
            if curve.mark is not None:
                point = ([curve.x[curve.mark]], [curve.y[curve.mark]])
                axes.plot(*point, "o", color=curve.style.color, fillstyle="none", markersize=11, markeredgewidth=1.6)
        if ticks is None:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        else:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set(xlabel=x_label, ylabel=y_label)

    return draw


def against_cost(
    lines: Sequence[Measured], levels: Sequence[tuple[LineStyle, float]], x_label: str, y_label: str, doublings: bool
) -> Draw:
    """Lines with intervals, and ``levels`` across; with ``doublings`` the horizontal axis is logarithmic."""

    def draw(axes: Axes) -> None:
        for number, line in enumerate(lines):
            # Points of one cost are moved apart a little, so that their intervals can be told apart.
            aside = 1.012 ** (2 * number - len(lines) + 1)
            values = np.asarray(line.values)
            axes.errorbar(
                np.asarray(line.costs) * aside, values, yerr=np.stack([values - line.low, line.high - values]),
                capsize=2.5, elinewidth=1, **line.style.line,
            )  # fmt: skip
        for style, value in levels:
            axes.axhline(value, color=style.color, linestyle=style.dash, linewidth=1.2, label=style.label)
        if doublings:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(FixedLocator(sorted({cost for line in lines for cost in line.costs})))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(lambda value, _: _thousands(value))
        else:
            axes.set_xlim(0, 1.08 * max(cost for line in lines for cost in line.costs))
        axes.set(xlabel=x_label, ylabel=y_label)

    return draw


def _thousands(value: float) -> str:
    """``68 k`` or ``1.2 M``."""
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value / 1e3:.0f} k" if value >= 1e4 else f"{value:,.0f}"


def spans(values: Sequence[Span], x_label: str, zero_line: bool = False) -> Draw:
    """A row per value with its interval, the first on top; the row's name stands beside it instead of in a legend."""

    def draw(axes: Axes) -> None:
        for row, span in enumerate(values):
            axes.plot([span.low, span.high], [row, row], color=span.style.color, linewidth=2.4, solid_capstyle="butt")
            axes.plot([span.value], [row], markersize=7.5, markeredgewidth=1.6, **span.style.points)
            axes.plot(span.points, [row + 0.28] * len(span.points), ".", color=span.style.color, markersize=5)
        if zero_line:
            axes.axvline(0, color=INK, linewidth=0.9)
        _rows(axes, [span.style.label for span in values])
        axes.set(xlabel=x_label)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if not zero_line:
            axes.set_xlim(left=0)

    return draw


def grouped_bars(groups: Sequence[str], series: Sequence[tuple[LineStyle, Floats]], x_label: str, bars: int) -> Draw:
    """Horizontal bars in groups: of the first ``bars`` entries; the further ones are marks across their group."""

    def draw(axes: Axes) -> None:
        thick = 0.8 / max(bars, 1)
        rows = np.arange(len(groups))
        for number, (style, values) in enumerate(series):
            if number < bars:
                middle = rows - 0.4 + thick * (number + 0.5)
                label = shortened(style.label, LEGEND_LABEL)
                axes.barh(middle, values, thick * 0.92, color=style.color, alpha=style.opacity, label=label)
            else:
                axes.plot(values, rows, **style.line | {"linestyle": "", "markersize": 6, "markeredgewidth": 1.4})
        _rows(axes, list(groups))
        axes.set(xlabel=x_label)
        axes.set_xlim(left=0)

    return draw


def stacked_shares(rows: Sequence[str], parts: Sequence[tuple[str, str]], shares: Floats) -> Draw:
    """A bar per row that is divided into ``parts`` (name, colour); ``shares`` is ``(rows, parts)`` and sums to 1."""

    def draw(axes: Axes) -> None:
        left = np.zeros(len(rows))
        for number, (name, color) in enumerate(parts):
            values = shares[:, number]
            axes.barh(np.arange(len(rows)), values, 0.66, left=left, color=color, label=name)
            for row in np.flatnonzero(values >= 0.1):
                middle = left[row] + values[row] / 2
                axes.text(middle, row, f"{values[row]:.0%}", ha="center", va="center", color=SURFACE, fontsize=9)
            left += values
        _rows(axes, list(rows))
        axes.set(xlim=(0, 1), xlabel="share")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")

    return draw


def slopes(pairs: Sequence[tuple[LineStyle, float, float]], names: tuple[str, str], y_label: str) -> Draw:
    """A line from a first to a second value for each entry."""

    def draw(axes: Axes) -> None:
        for style, first, second in pairs:
            axes.plot([0, 1], [first, second], **style.line)
        axes.set(xlim=(-0.25, 1.25), ylabel=y_label)
        axes.set_ylim(bottom=0)
        axes.set_xticks([0, 1], list(names))

    return draw


def against_diagonal(lines: Sequence[Curve], x_label: str, y_label: str) -> Draw:
    """Lines beside the diagonal; each axis ends at its largest value, so that a model too sure of itself fills it."""
    ends = [max(max(getattr(curve, axis)) for curve in lines) for axis in ("x", "y")]

    def draw(axes: Axes) -> None:
        axes.plot([0, max(ends)], [0, max(ends)], color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
        for curve in lines:
            axes.plot(curve.x, curve.y, **curve.style.line | ({"markersize": 0} if len(curve.x) > 20 else {}))
        limits = [(-0.02 * end, 1.04 * end) if end > 0 else (-0.02, 1.0) for end in ends]
        axes.set(xlabel=x_label, ylabel=y_label, xlim=limits[0], ylim=limits[1])
        axes.xaxis.set_major_locator(MaxNLocator(6))

    return draw


def rows_height(count: int, least: int = 3) -> float:
    """Inches of a figure with ``count`` rows."""
    return ROW * max(count, least) + 0.55


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(names)), [shortened(name, 30) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)

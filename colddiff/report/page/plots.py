"""Plots of a report page as SVG whose colours are the page's, so that they follow its theme."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from colddiff.report.curves import running_mean
from colddiff.report.value_axis import keep_span

WIDTH, HEIGHT = 5.2, 2.9
"""Of a plot, in inches at 72 px; the page scales it."""
THEME = {
    "#010101": "var(--ink)",
    "#020202": "var(--soft)",
    "#030303": "var(--line)",
    "#0f0001": "var(--c1)",
    "#0f0002": "var(--c2)",
    "#0f0003": "var(--c3)",
    "#0f0004": "var(--c4)",
    "#0f0005": "var(--c5)",
}
"""Colours to draw with, and what replaces them on the page."""
INK, SOFT, LINE, *COLOURS = THEME
SMALL, TEXT = 8.0, 9.0
LOG_RANGE = 6.0
"""Values that span more than this factor are drawn on a logarithmic axis."""
FEW_DECADES = 100.0
"""Below this factor a logarithmic axis has marks at 1, 2 and 5, not at powers of ten alone."""


@dataclass(frozen=True, slots=True)
class Plot:
    """An SVG, its title, and what it shows in words."""

    title: str
    svg: str
    alt: str


@dataclass(frozen=True, slots=True)
class PlotLine:
    """One line of a plot: label, x and y, and whether single points are marked."""

    label: str
    x: Sequence[float] | NDArray[Any]
    y: Sequence[float] | NDArray[Any]
    marked: bool = False
    dashed: bool = False


def line_plot(
    title: str,
    lines: Sequence[PlotLine],
    x: str,
    y: str,
    *,
    log_y: bool | None = None,
    log_x: bool = False,
) -> Plot:
    """Lines over one axis, each labelled at its end.

    ``log_y``: None chooses by the values: positive ones that span more than a factor of six.
    """
    figure, axes = _figure()
    low, high = np.inf, -np.inf
    for number, line in enumerate(lines):
        values = np.asarray(line.y, dtype=np.float64)
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        axes.plot(
            line.x,
            values,
            color=COLOURS[number % len(COLOURS)],
            linewidth=1.6,
            linestyle=(0, (4, 2)) if line.dashed else "-",
            marker="o" if line.marked else None,
            markersize=3.2,
            label=line.label,
        )
    if log_y or (log_y is None and low > 0 and high > LOG_RANGE * low):
        axes.set_yscale("log")
        if high < FEW_DECADES * low:
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.set_ylim(min(low, 0.0) if low < 0.5 * high else None, None)
        keep_span(axes)
    if log_x:
        axes.set_xscale("log")
        ticks = sorted({float(value) for line in lines for value in line.x})
        axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    _name(axes, x, y)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=SMALL, labelcolor=SOFT, loc="best")
    ends = "; ".join(
        f"{line.label} from {float(line.y[0]):.3g} to {float(line.y[-1]):.3g}" for line in lines
    )
    return Plot(title, _svg(figure, title), f"{y} over {x}: {ends}.")


def loss_plot(losses: Sequence[tuple[int, float]]) -> Plot:
    """The training loss over optimizer steps: its running mean."""
    steps, values = (np.asarray(side, dtype=np.float64) for side in zip(*losses, strict=True))
    smooth = running_mean(values, max(1, len(values) // 25))
    return line_plot("Training loss", [PlotLine("loss", steps, smooth)], "optimizer step", "loss")


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=72)
    # Fixed: a layout that measures its labels would draw everything twice.
    figure.subplots_adjust(left=0.13, right=0.98, bottom=0.17, top=0.97)
    figure.patch.set_alpha(0.0)
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    axes.grid(visible=True, axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, labelsize=SMALL, length=0, which="both")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.margins(x=0.02)
    return figure, axes


def _name(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, color=SOFT, fontsize=TEXT)
    axes.set_ylabel(y, color=SOFT, fontsize=TEXT)
    if axes.get_xscale() == "linear" and x in ("severity t", "optimizer step"):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))


def _svg(figure: Figure, name: str) -> str:
    """The figure as an ``svg`` element: equal figures give equal text, without any reference."""
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}
    buffer = io.StringIO()
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # The page's own style holds the one rule of this style, and its policy allows no other.
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    for drawn, shown in THEME.items():
        text = text.replace(drawn, shown)
    # Ids are unique on the page, which holds several plots: each prefixes its own.
    own = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    text = re.sub(r'id="([^"]+)"', rf'id="{own}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{own}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{own}-\1"', text)
    text = re.sub(r' xmlns:xlink="[^"]*"', "", text)
    text = re.sub(
        r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img" aria-hidden="true"', text, count=1
    )
    return text.strip()

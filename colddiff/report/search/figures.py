"""The look that all pictures of a search share: one font, colours by rank, the base dashed."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from colddiff.report.search.results import DrawnTrial, SearchResults
from colddiff.report.sheets import INK, SOFT

DPI = 144
BASE = "#d55e00"
"""Vermilion: apart from every colour of the ranks, also for the colour-blind."""
GRID, EDGE, UNRANKED = "#ececf0", "#c7c7cc", "#c7c7cc"
DASHES = (0, (4, 2))
RANKS = "viridis"
LIGHTEST = 0.88
"""Part of the map that is used: its yellow end is too light on white."""
SMALL, TEXT, HEAD = 7.5, 8.5, 11.0


@dataclass(frozen=True, slots=True)
class SearchPicture:
    """A drawn picture: its file name, its PNG, and what it says to those who cannot see it."""

    name: str
    png: bytes
    title: str
    alt: str
    photo: bool = False
    """Whether it shows images, whose greys a dark page must leave as they are."""


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A white figure of ``width`` x ``height`` inches with axes side by side."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, columns, number + 1) for number in range(columns)]
    for each in axes:
        each.grid(visible=True, color=GRID, linewidth=0.8)
        each.set_axisbelow(True)
        each.tick_params(colors=SOFT, labelsize=SMALL, length=0, which="both")
        for side in ("top", "right", "left"):
            each.spines[side].set_visible(False)
        each.spines["bottom"].set_color(EDGE)
    return figure, axes


def name_axes(axes: Axes, title: str, x: str, y: str) -> None:
    """The title at the left, and what is on the two axes."""
    axes.set_title(title, loc="left", color=INK, fontsize=HEAD, pad=10)
    axes.set_xlabel(x, color=SOFT, fontsize=TEXT)
    axes.set_ylabel(y, color=SOFT, fontsize=TEXT)


def png(figure: Figure) -> bytes:
    """The figure as PNG: the same bytes for the same figure."""
    buffer = io.BytesIO()
    canvas = FigureCanvasAgg(figure)
    canvas.print_figure(
        buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None}
    )
    return buffer.getvalue()


def rank_colour(rank: int | None, num_ranks: int) -> str:
    """Dark for the best, light for the worst, in perceptually equal steps; grey without a rank."""
    if rank is None:
        return UNRANKED
    return to_hex(colormaps[RANKS](LIGHTEST * (rank - 1) / max(num_ranks - 1, 1)))


def colour_of(results: SearchResults, trial: DrawnTrial) -> str:
    """The base's own colour, or that of the trial's rank."""
    return BASE if trial.base else rank_colour(trial.rank, results.num_ranks)


def readable_on(colour: str) -> str:
    """White or ink, whichever is read on ``colour``."""
    red, green, blue = to_rgb(colour)
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.6 else INK


def line_style(results: SearchResults, trial: DrawnTrial) -> dict[str, Any]:
    """How a trial's line is drawn: the base dashed and the best thick, both above the others."""
    style = {"color": colour_of(results, trial), "solid_capstyle": "round"}
    if trial.base:
        return {**style, "linestyle": DASHES, "linewidth": 2.2, "zorder": 5}
    if results.leader is not None and trial.number == results.leader.number:
        return {**style, "linewidth": 2.4, "zorder": 4}
    return {**style, "linewidth": 1.2, "zorder": 3 if trial.finished else 2}


def drawing_order(results: SearchResults) -> list[DrawnTrial]:
    """Trials with the worst first, so that better ones lie above them."""
    unranked = [trial for trial in results.trials if trial.rank is None]
    return [*unranked, *reversed(results.ranked)]


def add_legend(figure: Figure, results: SearchResults, extra: Iterable[Any] = ()) -> None:
    """Below the axes: the base and the best trial, then ``extra``."""
    handles: list[Any] = []
    for trial in results.named:
        handle = Line2D([], [], **line_style(results, trial))
        name = results.name_of(trial)
        handle.set_label(name if trial.rank is None else f"{name}, rank {trial.rank}")
        handles.append(handle)
    handles.extend(extra)
    if handles:
        figure.legend(
            handles=handles,
            loc="outside lower left",
            ncols=2,
            frameon=False,
            fontsize=TEXT,
            labelcolor=SOFT,
            handlelength=2.8,
        )


def add_rank_scale(figure: Figure, axes: Sequence[Axes], results: SearchResults) -> None:
    """The colours of the ranks, from 1 to the worst, beside the axes."""
    worst = results.num_ranks
    if worst < 2:
        return
    colours = colormaps[RANKS].resampled(256)([LIGHTEST * i / 255 for i in range(256)])
    scale = ScalarMappable(Normalize(1, worst), ListedColormap(colours))
    bar = figure.colorbar(scale, ax=list(axes), fraction=0.03, pad=0.015, aspect=28)
    bar.ax.invert_yaxis()
    bar.set_ticks(sorted({1, *(range(5, worst, 5) if worst <= 30 else ()), worst}))
    bar.ax.minorticks_off()
    bar.ax.tick_params(colors=SOFT, labelsize=SMALL, length=0)
    bar.set_label("rank (1 is the best)", color=SOFT, fontsize=SMALL)
    bar.outline.set_visible(False)


def set_log(axes: Axes, which: str, values: Sequence[float]) -> None:
    """A log scale with plain numbers at 1, 2 and 5 of each decade, or closer where few fit."""
    low, high = min(values), max(values)
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    places = _round_numbers(low, high)
    axis.set_major_locator(FixedLocator(places) if len(places) >= 2 else LogLocator())
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _round_numbers(low: float, high: float) -> list[float]:
    """Round numbers between ``low`` and ``high`` on a log scale, at most eight."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        places = [float(f"{step * 10.0**decade:.3g}") for decade in decades for step in steps]
        found = [place for place in places if low / 1.2 <= place <= high * 1.2]
        if len(found) <= 8:
            break
    return found

"""Parallel coordinates: a line per trial through its value of every searched field."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from colddiff.report.search.figures import (
    EDGE,
    SMALL,
    SearchPicture,
    add_legend,
    add_rank_scale,
    drawing_order,
    line_style,
    name_axes,
    new_figure,
    png,
)
from colddiff.report.search.results import SearchAxis, SearchResults
from colddiff.report.sheets import INK, SOFT

TITLE = "Points of the trials"
FEWEST_AXES = 4
"""With fewer fields the map and the curves say more."""


def parallel_picture(results: SearchResults) -> SearchPicture | None:
    """``parallel.png``; None below ``FEWEST_AXES`` searched fields or without a ranked trial."""
    if len(results.axes) < FEWEST_AXES or not results.ranked:
        return None
    return SearchPicture("parallel.png", png(parallel_figure(results)), TITLE, _alt(results))


def parallel_figure(results: SearchResults) -> Figure:
    """An axis per field from its lowest to its highest value, and one for the rank, best on top."""
    count = len(results.axes)
    figure, (axes,) = new_figure(max(6.2, 1.5 * (count + 1)), 4.4)
    name_axes(axes, TITLE, "", "")
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    spans = [
        _span(axis, [t.point[i] for t in results.ranked if i < len(t.point)])
        for i, axis in enumerate(results.axes)
    ]
    for trial in drawing_order(results):
        heights = [
            height(axis, span, value)
            for axis, span, value in zip(results.axes, spans, trial.point, strict=False)
        ]
        if trial.rank is not None and len(heights) == count:
            top = 1 - (trial.rank - 1) / max(results.num_ranks - 1, 1)
            axes.plot(range(count + 1), [*heights, top], **line_style(results, trial))
    for place, (axis, span) in enumerate(zip(results.axes, spans, strict=True)):
        _add_axis(axes, place, axis, span)
    _add_ranks(axes, count, results.num_ranks)
    axes.set_xlim(-0.3, count + 0.3)
    axes.set_ylim(-0.06, 1.06)
    axes.set_yticks([])
    labels = [f"{axis.label} (log)" if axis.log else axis.label for axis in results.axes]
    axes.set_xticks(range(count + 1), [*labels, "rank"])
    axes.tick_params(axis="x", labelsize=SMALL, labelcolor=INK, pad=8)
    add_rank_scale(figure, [axes], results)
    add_legend(figure, results)
    return figure


def height(axis: SearchAxis, span: tuple[float, float], value: float) -> float:
    """``value`` between the ends of its axis, 0 to 1; NaN where there is none."""
    low, high = span
    if not math.isfinite(value) or low == high:
        return 0.5 if low == high else math.nan
    if axis.log and low > 0:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _span(axis: SearchAxis, values: Sequence[float]) -> tuple[float, float]:
    if axis.choices is not None:
        return 0.0, float(len(axis.choices) - 1)
    ends = [value for value in (*values, *(axis.ends or ())) if math.isfinite(value)]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def _add_axis(axes: Axes, place: int, axis: SearchAxis, span: tuple[float, float]) -> None:
    axes.axvline(place, color=EDGE, linewidth=1.2, zorder=1)
    marks = range(len(axis.choices)) if axis.choices is not None else span
    for value in dict.fromkeys(marks):
        _mark(axes, place, height(axis, span, value), axis.text(value))


def _add_ranks(axes: Axes, place: int, worst: int) -> None:
    axes.axvline(place, color=EDGE, linewidth=1.2, zorder=1)
    for rank in {1: 1.0, worst: 1 - (worst - 1) / max(worst - 1, 1)}.items():
        _mark(axes, place, rank[1], str(rank[0]))


def _mark(axes: Axes, place: int, level: float, text: str) -> None:
    axes.annotate(
        text,
        (place, level),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=SMALL,
        color=SOFT,
        zorder=8,
        bbox={
            "boxstyle": "round,pad=0.15",
            "facecolor": "white",
            "edgecolor": "none",
        },
    )


def _alt(results: SearchResults) -> str:
    names = ", ".join(axis.label for axis in results.axes)
    parts = [f"A line per trial through its {names} and its rank."]
    for trial in results.named:
        if trial.point:
            role = results.role(trial).capitalize()
            parts.append(f"{role}: {trial.name}, {results.point_text(trial)}.")
    return " ".join(parts)

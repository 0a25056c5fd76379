"""Map of the two searched fields: every trial at its point, with its value in the dot."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from colddiff.report.search.figures import (
    SMALL,
    SearchPicture,
    add_legend,
    add_rank_scale,
    colour_of,
    drawing_order,
    name_axes,
    new_figure,
    png,
    readable_on,
    set_log,
)
from colddiff.report.search.results import DrawnTrial, SearchAxis, SearchResults
from colddiff.report.sheets import INK, SOFT

TITLE = "Where the trials lie"
MOST_LABELS = 40
"""Trials with their value in the dot, from the best on; more would hide each other."""
CHARACTER_PT, PADDING_PT, HEIGHT_PT = 4.9, 8.0, 15.0


def map_picture(results: SearchResults) -> SearchPicture | None:
    """``map.png``; None unless two fields were searched and a trial has a value."""
    if len(results.axes) != 2 or not _placed(results):
        return None
    return SearchPicture("map.png", png(map_figure(results)), TITLE, _alt(results))


def map_figure(results: SearchResults) -> Figure:
    """The dots with their values; texts of crowded dots are moved apart, with a line to the dot."""
    figure, (axes,) = new_figure(6.2, 4.8)
    placed = _placed(results)
    x, y = results.axes
    name_axes(axes, TITLE, _axis_label(x), _axis_label(y))
    for which, place, axis in (("x", 0, x), ("y", 1, y)):
        _set_axis(axes, which, axis, [trial.point[place] for trial in placed])
    add_rank_scale(figure, [axes], results)
    add_legend(figure, results, _meaning(results))
    for trial in drawing_order(results):
        if trial in placed:
            colour = colour_of(results, trial)
            axes.plot(*trial.point, "o", color=colour, markersize=4, clip_on=False, zorder=3)
    labelled = [trial for trial in results.ranked if trial in placed][:MOST_LABELS]
    _add_labels(figure, axes, results, labelled)
    return figure


def spread(
    centres: NDArray[np.float64],
    sizes: NDArray[np.float64],
    bounds: tuple[float, float, float, float],
    rounds: int = 400,
) -> NDArray[np.float64]:
    """``centres`` [N, 2] moved apart until boxes of ``sizes`` [N, 2] do not overlap, if they fit.

    Boxes stay within ``bounds`` (left, bottom, right, top). Deterministic.
    """
    places = centres.astype(np.float64).copy()
    low = np.array(bounds[:2]) + sizes / 2
    high = np.maximum(np.array(bounds[2:]) - sizes / 2, low)
    turns = np.arange(len(places)) * math.pi * (3 - math.sqrt(5))
    # Boxes at the same place part in all directions, in the golden angle.
    apart = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    for _ in range(rounds):
        away = places[:, None] - places[None]
        both = (sizes[:, None] + sizes[None]) / 2
        far = np.abs(away / both).max(axis=2)
        np.fill_diagonal(far, 1.0)
        if not (far < 1).any():
            break
        same = far < 1e-6
        way = np.where(same[..., None], apart[:, None] - apart[None], away / both)
        length = np.maximum(np.linalg.norm(way, axis=2, keepdims=True), 1e-9)
        push = np.where(far < 1, 1 - far, 0.0)[..., None] * way / length * both
        places = np.clip(
            places + 0.5 * push.sum(axis=1) + 0.02 * np.sign(push.sum(axis=1)), low, high
        )
    return places


def _add_labels(
    figure: Figure, axes: Axes, results: SearchResults, trials: Sequence[DrawnTrial]
) -> None:
    if not trials:
        return
    figure.draw_without_rendering()
    per_pt = figure.dpi / 72
    at = axes.transData.transform([trial.point for trial in trials]) / per_pt
    texts = [_value(results, trial) for trial in trials]
    sizes = np.array([[CHARACTER_PT * len(t) + PADDING_PT, HEIGHT_PT] for t in texts])
    box = axes.get_window_extent()
    bounds = tuple(side / per_pt for side in (box.x0 - 12, box.y0, box.x1 + 12, box.y1))
    places = spread(at, sizes + 1.5, (bounds[0], bounds[1], bounds[2], bounds[3]))
    for order, (trial, text, place, dot) in enumerate(zip(trials, texts, places, at, strict=True)):
        colour = colour_of(results, trial)
        filled = trial.finished
        axes.annotate(
            text,
            (trial.point[0], trial.point[1]),
            xytext=(float(place[0] - dot[0]), float(place[1] - dot[1])),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=SMALL,
            fontweight="bold" if filled else "normal",
            color=readable_on(colour) if filled else SOFT,
            bbox={
                "boxstyle": "round,pad=0.4,rounding_size=0.5",
                "facecolor": colour if filled else "white",
                "edgecolor": INK if trial.base else colour,
                "linewidth": 1.4,
            },
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8},
            annotation_clip=False,
            zorder=10 + len(trials) - order,
        )


def _placed(results: SearchResults) -> list[DrawnTrial]:
    return [
        trial
        for trial in results.ranked
        if len(trial.point) == 2 and all(map(math.isfinite, trial.point))
    ]


def _value(results: SearchResults, trial: DrawnTrial) -> str:
    values = results.drawn_values(trial)
    return results.text(values[-1][1]) if values else "-"


def _axis_label(axis: SearchAxis) -> str:
    return f"{axis.label} (log)" if axis.log else axis.label


def _set_axis(axes: Axes, which: str, axis: SearchAxis, values: Sequence[float]) -> None:
    limits = axes.set_xlim if which == "x" else axes.set_ylim
    if axis.choices is not None:
        ticks = axes.set_xticks if which == "x" else axes.set_yticks
        ticks(range(len(axis.choices)), axis.choices)
        limits(-0.6, len(axis.choices) - 0.4)
        return
    ends = [*values, *(axis.ends or ())]
    low, high = min(ends), max(ends)
    if axis.log and low > 0:
        room = (high / low) ** 0.07 if high > low else 2.0
        limits(low / room, high * room)
        set_log(axes, which, (low, high))
        limits(low / room, high * room)
    else:
        room = 0.07 * (high - low) or max(abs(high), 1.0)
        limits(low - room, high + room)


def _meaning(results: SearchResults) -> list[Line2D]:
    last = results.rungs[-1]
    handles = [_dot(f"filled: {results.metric_name} at step {last}", filled=True)]
    if any(not trial.finished for trial in _placed(results)):
        handles.append(_dot("hollow: at the rung where it stopped", filled=False))
    return handles


def _dot(label: str, *, filled: bool) -> Line2D:
    return Line2D(
        [],
        [],
        marker="o",
        linestyle="",
        color=SOFT,
        label=label,
        markersize=7,
        markerfacecolor=SOFT if filled else "white",
    )


def _alt(results: SearchResults) -> str:
    x, y = results.axes
    parts = [f"Trials by {x.label} and {y.label}, with {results.metric_name} in each dot."]
    for trial in results.named:
        if trial in _placed(results):
            role = results.role(trial).capitalize()
            value = f"{_value(results, trial)} at step {trial.last}"
            parts.append(f"{role}: {trial.name}, {results.point_text(trial)}: {value}.")
    return " ".join(parts)

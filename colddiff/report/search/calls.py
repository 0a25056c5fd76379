"""Quality against network calls: each finished trial at its T, and finalists with fewer calls."""

from __future__ import annotations

import math
import statistics

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from colddiff.report.search.figures import (
    BASE,
    SMALL,
    SearchPicture,
    add_legend,
    add_rank_scale,
    line_style,
    name_axes,
    new_figure,
    png,
    set_log,
)
from colddiff.report.search.results import DrawnTrial, SearchResults, spans_decades
from colddiff.report.sheets import INK, SOFT
from colddiff.report.value_axis import CUT, keep_span

TITLE = "Quality against network calls"


def calls_picture(results: SearchResults) -> SearchPicture | None:
    """``calls.png``; None below two points of finished trials, which is no comparison."""
    if sum(len(_points(results, trial)) for trial in _finished(results)) < 2:
        return None
    return SearchPicture("calls.png", png(calls_figure(results)), TITLE, _alt(results))


def calls_figure(results: SearchResults) -> Figure:
    """A dot per finished trial; lines through a finalist's own points with skipped severities."""
    figure, (axes,) = new_figure(6.2, 4.4)
    name_axes(axes, TITLE, "network calls per image (log)", results.quality_label)
    extra: list[Line2D | Patch] = []
    band = base_band(results)
    if band is not None:
        axes.axhspan(*band, color=BASE, alpha=0.12, linewidth=0, zorder=1)
        n = len(results.base_seeds)
        extra.append(Patch(color=BASE, alpha=0.12, label=f"base ± sd over {n} seeds (test set)"))
    for trial in reversed(_finished(results)):
        _add_trial(axes, results, trial)
    if any(trial.skipped for trial in _finished(results)):
        extra.append(
            Line2D([], [], color=SOFT, marker="D", markersize=4, label="severities skipped")
        )
    x_values = [x for trial in _finished(results) for x, _ in _points(results, trial)]
    y_values = [v for trial in _finished(results) for _, v in _points(results, trial)]
    if spans_decades(y_values, 4.0):
        set_log(axes, "y", y_values)
    room = (max(x_values) / min(x_values)) ** 0.08 if len(set(x_values)) > 1 else 1.5
    set_log(axes, "x", [min(x_values), max(x_values)])
    axes.set_xlim(min(x_values) / room, max(x_values) * room)
    axes.margins(y=0.12)
    if keep_span(axes):
        axes.set_ylabel(f"{axes.get_ylabel()}\n{CUT}")
    add_rank_scale(figure, [axes], results)
    add_legend(figure, results, extra)
    return figure


def base_band(results: SearchResults) -> tuple[float, float] | None:
    """The base's validation value -+ its standard deviation over fresh seeds, measured on test.

    Relative to its mean: the two sets differ in their number of images, and so in the metric.
    """
    base = results.base
    if base is None or not base.finished or len(results.base_seeds) < 2:
        return None
    mean = statistics.fmean(results.base_seeds)
    if not mean:
        return None
    value = base.values[results.rungs[-1]]
    half = abs(value * statistics.stdev(results.base_seeds) / mean)
    return value - half, value + half


def _add_trial(axes: Axes, results: SearchResults, trial: DrawnTrial) -> None:
    points = _points(results, trial)
    style = line_style(results, trial)
    if len(points) > 1:
        axes.plot(*zip(*points, strict=True), **style)
    fewer = [point for point in points if point[0] in trial.skipped]
    if fewer:
        axes.plot(*zip(*fewer, strict=True), "D", color=style["color"], markersize=4.5, zorder=6)
    named = trial.base or trial is results.leader
    (own,) = (point for point in points if point[0] not in trial.skipped)
    axes.plot(
        *own,
        "o",
        color=style["color"],
        markersize=9 if named else 7,
        zorder=6 + named,
        markeredgecolor="white",
        markeredgewidth=0.8,
    )
    axes.annotate(
        "base" if trial.base else str(trial.number),
        own,
        # Crowded where it is good: the best has its label on the free side.
        xytext=(0, -15 if named and trial.base != results.lower_is_better else 7),
        textcoords="offset points",
        ha="center",
        fontsize=SMALL,
        color=INK if named else SOFT,
        fontweight="bold" if named else "normal",
        zorder=8,
    )


def _points(results: SearchResults, trial: DrawnTrial) -> list[tuple[int, float]]:
    assert trial.calls is not None
    found = {calls: v for calls, v in trial.skipped.items() if math.isfinite(v)}
    found[trial.calls] = trial.values[results.rungs[-1]]
    return sorted(found.items())


def _finished(results: SearchResults) -> list[DrawnTrial]:
    return [
        trial
        for trial in results.ranked
        if trial.finished and trial.calls and math.isfinite(trial.values[results.rungs[-1]])
    ]


def _alt(results: SearchResults) -> str:
    parts = [f"{results.metric_name} over network calls per image."]
    for trial in _finished(results):
        points = [f"{results.text(v)} with {calls}" for calls, v in _points(results, trial)]
        parts.append(f"{trial.name.capitalize()}: {', '.join(points)}.")
    return " ".join(parts)

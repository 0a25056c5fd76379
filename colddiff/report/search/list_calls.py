"""Plot of quality against network calls: lists of severities of one checkpoint."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

from colddiff.errors import DataError
from colddiff.report.sheets import INK, SOFT
from colddiff.report.value_axis import CUT, keep_span

COLOURS = ("#2f6fde", "#e07b39", "#3a9d5d", "#8d5fd3", "#c2436f", "#7a7a80")
EVEN, FRONT = "#1c1c1e", "#d7263d"
TICKS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)
ROOM = 0.25
"""Room for worse lists, as a part of the span of what is compared."""


@dataclass(frozen=True, slots=True)
class CallsPoint:
    """A list of severities: network calls per image, quality, and the sampler's name."""

    calls: int
    value: float
    sampler: str


def calls_plot(
    points: Sequence[CallsPoint],
    even: Mapping[int, float],
    base: CallsPoint | None,
    budgets: Sequence[int],
    *,
    metric: str,
    lower_is_better: bool = True,
    title: str = "Quality against network calls",
    subtitle: str = "",
) -> bytes:
    """A PNG of ``points``, coloured by sampler, with the best front as steps.

    Args:
        points: all lists that were measured.
        even: value by number of calls of evenly spaced severities, drawn as a line.
        base: what the lists are compared with, a dashed level.
        budgets: numbers of calls whose best list is marked.
        metric: name of the values.

    Raises:
        DataError: no points.
    """
    if not points:
        raise DataError("calls plot: no list was measured")
    figure = Figure(figsize=(7.6, 4.8), dpi=144, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    front = best_front(points, lower_is_better=lower_is_better)
    compared = [*even.values(), *(p.value for p in front), *([base.value] if base else [])]
    edge = _edge(compared, [p.value for p in points], lower_is_better)
    _draw_samplers(axes, points, edge, lower_is_better)
    if even:
        calls = sorted(even)
        axes.plot(
            calls,
            [even[count] for count in calls],
            color=EVEN,
            linewidth=1.2,
            marker="o",
            markersize=3,
            label="evenly spaced",
            zorder=3,
        )
    _draw_front(axes, front, budgets, lower_is_better)
    if base is not None:
        _draw_base(axes, base)
    _draw_axes(axes, points, metric, lower_is_better)
    axes.set_title(title, loc="left", color=INK, fontsize=12, pad=24 if subtitle else 10)
    if subtitle:
        axes.text(0, 1.02, subtitle, transform=axes.transAxes, color=SOFT, fontsize=9)
    buffer = io.BytesIO()
    canvas.print_figure(buffer, format="png")
    return buffer.getvalue()


def best_front(points: Sequence[CallsPoint], *, lower_is_better: bool = True) -> list[CallsPoint]:
    """The points that no point with as few calls or fewer is better than, by rising calls."""
    sign = 1.0 if lower_is_better else -1.0
    front: list[CallsPoint] = []
    for point in sorted(points, key=lambda p: (p.calls, sign * p.value)):
        if not front or sign * point.value < sign * front[-1].value:
            front.append(point)
    return front


def _edge(compared: Sequence[float], values: Sequence[float], lower_is_better: bool) -> float:
    """The worst value that has a place of its own: what is compared needs room to be told apart.

    Far worse lists, such as of a sampler that fails, are drawn at this edge.
    """
    best, worst = (min, max) if lower_is_better else (max, min)
    limit = worst(compared) + ROOM * (worst(compared) - best(compared))
    return best(limit, worst(values))


def _draw_samplers(
    axes: Axes, points: Sequence[CallsPoint], edge: float, lower_is_better: bool
) -> None:
    sign = 1.0 if lower_is_better else -1.0
    for number, sampler in enumerate(dict.fromkeys(point.sampler for point in points)):
        own = [point for point in points if point.sampler == sampler]
        colour = COLOURS[number % len(COLOURS)]
        for beyond in (False, True):
            shown = [p for p in own if (sign * p.value > sign * edge) is beyond]
            axes.scatter(
                [point.calls for point in shown],
                [edge if beyond else point.value for point in shown],
                s=28 if beyond else 22,
                marker=("^" if lower_is_better else "v") if beyond else "o",
                color=colour,
                alpha=0.55,
                linewidth=0,
                label=None if beyond else sampler,
                zorder=2,
            )
    hidden = sum(sign * point.value > sign * edge for point in points)
    if hidden:
        axes.annotate(
            f"{hidden} worse lists are at this edge",
            (1.0, edge),
            xycoords=axes.get_yaxis_transform(),
            xytext=(-4, 6 if lower_is_better else -14),
            textcoords="offset points",
            ha="right",
            color=SOFT,
            fontsize=8,
        )


def _draw_front(
    axes: Axes, front: Sequence[CallsPoint], budgets: Sequence[int], lower_is_better: bool
) -> None:
    last = max([front[-1].calls, *budgets])
    calls = [*(point.calls for point in front), last]
    values = [*(point.value for point in front), front[-1].value]
    axes.plot(
        calls,
        values,
        drawstyle="steps-post",
        color=FRONT,
        linewidth=2,
        label="best",
        zorder=4,
    )
    for budget in budgets:
        within = [point for point in front if point.calls <= budget]
        if not within:
            continue
        best = within[-1]
        axes.plot([budget], [best.value], marker="D", color=FRONT, markersize=5, zorder=5)
        axes.annotate(
            f"{best.value:.4g}",
            (budget, best.value),
            # Nothing is above the first, and the base's own label is below its level at the left.
            xytext=(0, 7 if lower_is_better and within[-1] is front[0] else -14),
            textcoords="offset points",
            ha="center",
            color=FRONT,
            fontsize=9,
            fontweight="bold",
        )


def _draw_base(axes: Axes, base: CallsPoint) -> None:
    axes.axhline(base.value, color=SOFT, linestyle="--", linewidth=1.2, zorder=2)
    axes.annotate(
        f"base, {base.calls} calls: {base.value:.4g}",
        (0.0, base.value),
        xycoords=axes.get_yaxis_transform(),
        xytext=(4, -12),
        textcoords="offset points",
        color=SOFT,
        fontsize=9,
    )


def _draw_axes(
    axes: Axes, points: Sequence[CallsPoint], metric: str, lower_is_better: bool
) -> None:
    counts = [p.calls for p in points]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([t for t in TICKS if t <= 1.3 * max(counts)]))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    better = "lower" if lower_is_better else "higher"
    axes.set_xlabel("calls of the network per image", color=SOFT)
    axes.set_ylabel(f"{metric} ({better} is better)", color=SOFT)
    axes.tick_params(colors=SOFT, which="both", length=0)
    axes.grid(visible=True, which="major", color="#ececf0", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#c7c7cc")
    axes.margins(0.05, 0.12)
    if keep_span(axes):
        axes.set_ylabel(f"{axes.get_ylabel()}\n{CUT}")
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)

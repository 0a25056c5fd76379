"""Learning curves: the metric of every trial at its rungs, coloured by the trial's rank."""

from __future__ import annotations

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
    set_log,
)
from colddiff.report.search.results import SearchResults, spans_decades
from colddiff.report.sheets import SOFT

TITLE = "Learning curves"


def rungs_picture(results: SearchResults) -> SearchPicture | None:
    """``rungs.png``; None before the first evaluation."""
    if not any(results.drawn_values(trial) for trial in results.trials):
        return None
    return SearchPicture("rungs.png", png(rungs_figure(results)), TITLE, _alt(results))


def rungs_figure(results: SearchResults) -> Figure:
    """A line per trial over the rungs it reached, and a vertical line at each rung."""
    figure, (axes,) = new_figure(6.2, 4.4)
    name_axes(axes, TITLE, "optimizer step", results.quality_label)
    values = []
    for trial in drawing_order(results):
        points = results.drawn_values(trial)
        if points:
            values += [value for _, value in points]
            axes.plot(
                *zip(*points, strict=True), marker="o", markersize=4.5, **line_style(results, trial)
            )
    if spans_decades(values):
        set_log(axes, "y", values)
    axes.grid(visible=False, axis="x")
    axes.set_xticks(list(results.rungs))
    axes.margins(x=0.06)
    for number, rung in enumerate(results.rungs):
        there = sum(rung in trial.values for trial in results.trials)
        axes.axvline(rung, color=EDGE, linewidth=1, zorder=1)
        axes.annotate(
            f"rung {number + 1}: {there}",
            (rung, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
            fontsize=SMALL,
            color=SOFT,
        )
    add_rank_scale(figure, [axes], results)
    add_legend(figure, results)
    return figure


def _alt(results: SearchResults) -> str:
    parts = [f"{results.metric_name} over optimizer steps, a line per trial coloured by rank."]
    for rung in results.rungs:
        there = [trial for trial in results.trials if rung in trial.values]
        if there:
            best = (min if results.lower_is_better else max)(t.values[rung] for t in there)
            parts.append(f"At step {rung}: {len(there)} trials, the best {results.text(best)}.")
    return " ".join(parts)

"""The headline picture: what D removes over t/T for every trial, beside its schedule."""

from __future__ import annotations

from matplotlib.figure import Figure

from colddiff.report.search.figures import (
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
from colddiff.report.search.results import DrawnTrial, SearchResults, spans_decades

TITLE = "What D removes on the way to the same end"
MOST_SCHEDULES = 2


def paths_picture(results: SearchResults) -> SearchPicture | None:
    """``paths.png``; None where no trial has a path."""
    if not any(trial.removed for trial in results.trials):
        return None
    return SearchPicture("paths.png", png(paths_figure(results)), TITLE, _alt(results))


def paths_figure(results: SearchResults) -> Figure:
    """Axes 0: RMSE of D(x, t) over t/T; then one for each schedule, at most two."""
    labels = _schedules(results)
    figure, axes = new_figure(5.2 + 4.0 * len(labels), 4.3, 1 + len(labels))
    for trial in drawing_order(results):
        style = line_style(results, trial)
        if trial.removed is not None:
            axes[0].plot(trial.removed.x, trial.removed.y, **style)
        for label, panel in zip(labels, axes[1:], strict=True):
            if label in trial.schedules:
                panel.plot(trial.schedules[label].x, trial.schedules[label].y, **style)
    images = f", over {results.num_images} images" if results.num_images else ""
    name_axes(axes[0], TITLE, "t / T", f"RMSE of D(x, t) against x{images}")
    axes[0].set_ylim(bottom=0)
    for label, panel in zip(labels, axes[1:], strict=True):
        name_axes(panel, label.partition(" (")[0], "t / T", label)
        values = [y for t in results.trials if label in t.schedules for y in t.schedules[label].y]
        if spans_decades(values):
            set_log(panel, "y", values)
        elif min(values) >= 0:
            panel.set_ylim(bottom=0, top=1.08 * max(values))
    for panel in axes:
        panel.set_xlim(0, 1)
    add_rank_scale(figure, axes, results)
    add_legend(figure, results)
    return figure


def _schedules(results: SearchResults) -> list[str]:
    return list(dict.fromkeys(label for t in results.trials for label in t.schedules))[
        :MOST_SCHEDULES
    ]


def _alt(results: SearchResults) -> str:
    drawn = [trial for trial in results.trials if trial.removed is not None]
    parts = [
        f"RMSE of D(x, t) over t/T for {len(drawn)} trials, coloured by rank, the base dashed."
    ]
    for trial in results.named:
        if trial.removed is not None:
            who = f"The {results.role(trial)}, {trial.name},"
            parts.append(f"{who} has removed {_halfway(trial)} at t = T/2.")
    if labels := _schedules(results):
        parts.append(f"Beside it: {', '.join(labels)} over t/T.")
    return " ".join(parts)


def _halfway(trial: DrawnTrial) -> str:
    line = trial.removed
    assert line is not None
    place = min(range(len(line.x)), key=lambda i: abs(line.x[i] - 0.5))
    if not line.y[-1]:
        return "nothing"
    return f"{line.y[place] / line.y[-1]:.0%} of its RMSE at T"

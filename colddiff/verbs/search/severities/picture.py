"""``calls.png``: quality against network calls, from the table of a checkpoint's search."""

from __future__ import annotations

from collections.abc import Mapping

from colddiff.report.search.figures import SearchPicture
from colddiff.report.search.list_calls import CallsPoint, best_front, calls_plot
from colddiff.samplers import column_labels, find_sampler
from colddiff.verbs.search.severities.table import ListBoard
from colddiff.verbs.search.severities.task import ListTask


def list_picture(board: ListBoard, task: ListTask) -> SearchPicture | None:
    """The picture; None before anything was measured."""
    metric = board.metric
    measured = [row for row in board.rows if metric in row.metrics]
    points = {
        row.number: CallsPoint(row.calls, row.metrics[metric], sampler_label(row.sampler))
        for row in sorted(measured, key=lambda row: row.number)
    }
    if not points:
        return None
    kind = task.trained.degradation.kind
    title = f"{kind.capitalize()} from severity {task.space.start}: quality against calls"
    png = calls_plot(
        list(points.values()),
        {row.calls: row.metrics[metric] for row in measured if row.even},
        next((points[row.number] for row in measured if row.base), None),
        task.job.calls,
        metric=metric,
        lower_is_better=board.lower_is_better,
        title=title,
        subtitle=f"{len(points)} lists of severities on {board.images} validation images",
    )
    best = ", ".join(f"{point.calls} calls {point.value:.4g}" for point in _front(board, points))
    return SearchPicture("calls.png", png, title, f"{title}. The best by {metric}: {best}.")


def _front(board: ListBoard, points: Mapping[int, CallsPoint]) -> list[CallsPoint]:
    return best_front(list(points.values()), lower_is_better=board.lower_is_better)


def sampler_label(name: str) -> str:
    """A sampler's name for people: ``Algorithm 2``."""
    column = find_sampler(name).column
    return column_labels([column])[column]

"""The paper's numbers of the recipes that jobs were submitted from, and whether they compare."""

from __future__ import annotations

from collections.abc import Sequence

from colddiff.evaluation.best import is_distance
from colddiff.report.differences import short_paths, value_text
from colddiff.report.page.run import ReportedRun

INCEPTION = "fid"
"""The distance that the paper has, by Inception's features."""
MOST_FIELDS = 8
"""Fields named in which a training is not the recipe's."""


def paper_lines(runs: Sequence[ReportedRun]) -> list[str]:
    """A line for each set of published numbers, naming the runs that it is for if not all.

    ``paper: fid 4.69 sampled, 5.10 direct (Inception features; not comparable with fd_lenet)``.
    """
    found: dict[str, list[str]] = {}
    for run in runs:
        if line := _line(run):
            found.setdefault(line, []).append(run.name)
    return [
        line if len(ids) == len(runs) else f"{line}: {', '.join(ids)}"
        for line, ids in found.items()
    ]


def _line(run: ReportedRun) -> str:
    numbers: dict[str, list[str]] = {}
    for path, value in run.targets.items():
        if is_distance(path) and isinstance(value, int | float):
            metric, column = path.rpartition("/")[2], path.partition("/")[2].partition("/")[0]
            numbers.setdefault(metric, []).append(f"{value:.2f} {column}".rstrip())
    if not numbers:
        return ""
    text = "; ".join(f"{metric} {', '.join(values)}" for metric, values in numbers.items())
    notes = ["Inception features"] if INCEPTION in numbers else []
    ours = str(run.last.provenance.get("metric") or "") if run.last else ""
    hidden = run.last.left_out if run.last else None
    if ours and ours not in (*numbers, hidden):
        notes.append(f"not comparable with {ours}")
    if run.unlike:
        notes.append(f"not comparable, as the training is not the recipe's: {_unlike_text(run)}")
    return f"paper: {text}" + (f" ({'; '.join(notes)})" if notes else "")


def _unlike_text(run: ReportedRun) -> str:
    """``num_steps=300 (recipe: 700000), restorer.dim=16 (recipe: 64)``."""
    paths = list(run.unlike)
    parts = [
        f"{short}={_value(own)} (recipe: {_value(wanted)})"
        for short, (own, wanted) in zip(short_paths(paths), run.unlike.values(), strict=True)
    ]
    more = f" and {len(parts) - MOST_FIELDS} more" if len(parts) > MOST_FIELDS else ""
    return f"{', '.join(parts[:MOST_FIELDS])}{more}"


def _value(value: object) -> str:
    return "unset" if value is None else value_text(value)

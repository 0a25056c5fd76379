"""The paper's numbers of the recipes that jobs were submitted from, and whether they compare."""

from __future__ import annotations

from collections.abc import Sequence

from colddiff.evaluation.best import is_distance
from colddiff.report.page.run import ReportedRun

INCEPTION = "fid"
"""The distance that the paper has, by Inception's features."""


def paper_lines(runs: Sequence[ReportedRun]) -> list[str]:
    """A line for each set of published numbers, naming the runs that it is for if not all.

    ``paper: fid 4.69 sampled, 5.10 direct (Inception features; not comparable with fd_lenet)``.
    """
    found: dict[str, list[str]] = {}
    for run in runs:
        if line := _line(run):
            found.setdefault(line, []).append(run.id)
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
    return f"paper: {text}" + (f" ({'; '.join(notes)})" if notes else "")

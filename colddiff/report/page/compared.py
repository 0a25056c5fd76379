"""What differs between the jobs of one report: a table of their fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from colddiff.report.differences import differing_fields, short_paths, value_text
from colddiff.report.page.run import ReportedRun
from colddiff.report.page.written import WrittenBlock

ABSENT = "-"
STEPS, STEP = "num_steps", "step evaluated"
SEVERITIES = "severities evaluated"


def compared(runs: Sequence[ReportedRun]) -> WrittenBlock | None:
    """The fields in which the jobs differ; None for one job, or where none does.

    Of jobs of several verbs only the fields that all of them have. The longer side runs downwards.
    """
    if len(runs) < 2:
        return None
    specs = [run.spec for run in runs]
    if len({run.verb for run in runs}) > 1:
        shared = set.intersection(*(set(spec) for spec in specs))
        specs = [
            {"verb": run.verb, **_severities(run)}
            | {name: spec[name] for name in spec if name in shared}
            for run, spec in zip(runs, specs, strict=True)
        ]
    differing = differing_fields(
        [_as_evaluated(run, spec) for run, spec in zip(runs, specs, strict=True)]
    )
    paths = list(differing[0])
    if not paths:
        return None
    cells = [
        [ABSENT if value is None else value_text(value) for value in fields.values()]
        for fields in differing
    ]
    if len(runs) > len(paths):
        rows = [[run.name, *row] for run, row in zip(runs, cells, strict=True)]
        return WrittenBlock(["job", *short_paths(paths)], rows)
    columns = zip(*cells, strict=True)
    rows = [[path, *column] for path, column in zip(short_paths(paths), columns, strict=True)]
    return WrittenBlock(["field", *(run.name for run in runs)], rows)


def _as_evaluated(run: ReportedRun, spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields with the step that is shown for the one that the job was to reach."""
    if run.last is None or STEPS not in spec:
        return spec
    return {name: value for name, value in spec.items() if name != STEPS} | {STEP: run.last.step}


def _severities(run: ReportedRun) -> dict[str, Any]:
    """Those that the samplers visited, which a training and an evaluation name by other fields."""
    visited = None if run.last is None else run.last.provenance.get("severities")
    # The last one is 0, at which nothing is restored.
    return {} if visited is None else {SEVERITIES: len(visited) - 1}


def compared_markdown(block: WrittenBlock) -> str:
    """The table as GitHub-flavoured Markdown."""
    lines = [block.head, ["---"] * len(block.head), *block.rows]
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)

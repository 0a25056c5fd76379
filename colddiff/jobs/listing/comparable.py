"""Which finished jobs are worth a look beside another: of one name that differ, or the reverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from colddiff.errors import ColddiffError
from colddiff.jobs.listing.ended import marked, read_mark
from colddiff.jobs.listing.ids import hash_of, slug_of
from colddiff.report.differences import (
    HOW_IT_RUNS,
    OPERATION,
    differing_fields,
    short_paths,
)

if TYPE_CHECKING:
    from colddiff.jobs.folder import JobFolder
    from colddiff.jobs.listing.job_table import JobRow

MOST = 8
"""Marks that are read to find a job like one that has ended: each is a request on S3."""
LONGEST = 80


def compare_step(folder: JobFolder, result: Mapping[str, Any]) -> list[str]:
    """How to compare an evaluated job with the last finished one of its verb and name, if any.

    No job fails for what cannot be read here.
    """
    if not any(path.startswith("eval/") for path in result.get("metrics") or {}):
        return []
    with suppress(ColddiffError):
        spec = folder.job().get("spec") or {}
        named, _, _ = folder.job_id.rpartition("-")
        marks = marked(folder.store, f"{named}-")
        # A longer name may begin with this one.
        there = [job_id for job_id in marks if job_id.rpartition("-")[0] == named]
        there.sort(key=lambda job_id: marks[job_id].modified, reverse=True)
        for job_id in [one for one in there if one != folder.job_id][:MOST]:
            mark = read_mark(folder.store, job_id) or {}
            if not mark or not _is_result(mark["status"], mark["job"].get("spec")):
                continue
            differing = _differing(mark["job"]["spec"], spec)
            if differing:
                steps = (_step(mark["status"].get("step")), _step(result.get("step")))
                return [_command(job_id, folder.job_id, differing, steps)]
    return []


def done_by_another_name(folder: JobFolder) -> str | None:
    """A line where a job that differs from this one in its name alone is done.

    No submission fails for what cannot be read here.
    """
    with suppress(ColddiffError):
        verb, own = folder.job_id.partition("-")[0], hash_of(folder.job_id)
        for job_id in marked(folder.store, f"{verb}-") if own else ():
            if job_id == folder.job_id or hash_of(job_id) != own:
                continue
            mark = read_mark(folder.store, job_id) or {}
            if mark and mark["status"].get("state") == "done":
                return (
                    f"{job_id} is the same job by another name, and done: `--name "
                    f"{slug_of(job_id)}` reports that one, and `colddiff stop {folder.job_id}` "
                    "ends this one"
                )
    return None


def compare_line(rows: Sequence[JobRow]) -> str | None:
    """How to compare the last two finished jobs of one verb and name among ``rows``, if any."""
    groups: dict[tuple[str, str], list[JobRow]] = {}
    for row in rows:
        spec = row.job.get("spec")
        if row.state == "done" and row.score is not None and _is_own(spec):
            groups.setdefault((row.verb, row.name), []).append(row)

    def created(row: JobRow) -> float:
        return float(row.job.get("created") or 0.0)

    found = [sorted(group, key=created)[-2:] for group in groups.values()]
    for earlier, later in sorted(
        (pair for pair in found if len(pair) == 2), key=lambda pair: created(pair[1]), reverse=True
    ):
        if differing := _differing(earlier.job["spec"], later.job["spec"]):
            ids = (earlier.folder.job_id, later.folder.job_id)
            steps = (_step_of(earlier), _step_of(later))
            return f"compare: {_command(*ids, differing, steps)}"
    return None


def _is_result(status: Mapping[str, Any], spec: object) -> bool:
    return status.get("state") == "done" and status.get("score") is not None and _is_own(spec)


def _is_own(spec: object) -> bool:
    """Whether somebody submitted the job: searches and studies compare what they run."""
    tracking = spec.get("tracking") if isinstance(spec, Mapping) else None
    return isinstance(spec, Mapping) and not (
        isinstance(tracking, Mapping) and tracking.get("parent")
    )


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """``sigma.start, seed``, the fields in which two jobs differ; empty if they are alike.

    And where one evaluates samples and the other a checkpoint: they share no number.
    """
    if bool(one.get("samples")) != bool(other.get("samples")):
        return ""
    (fields, _) = differing_fields([one, other], HOW_IT_RUNS | OPERATION)
    return ", ".join(short_paths(list(fields)))


def _step_of(row: JobRow) -> int:
    return 0 if row.status is None else row.status.step


def _step(found: object) -> int:
    return found if isinstance(found, int) else 0


def _command(earlier: str, later: str, differing: str, steps: tuple[int, int]) -> str:
    """With the ``steps`` that they reached, where these are known and differ."""
    if all(steps) and steps[0] != steps[1]:
        differing = f"{differing}, and in steps: {steps[0]} and {steps[1]}"
    short = differing if len(differing) <= LONGEST else f"{differing[: LONGEST - 1]}…"
    return f"colddiff report {earlier} {later} --out ./report    # they differ in {short}"

"""The trainings of a study on a cluster: each with its own workers, as if submitted alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from colddiff.cluster.ray_segments import (
    HOLDER,
    Placement,
    on_workers,
    run_segments_on_ray,
)
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.runner import Capacity
from colddiff.jobs.segments.room import Needs, fitting_at_once
from colddiff.jobs.segments.segment import Segment, SegmentSource
from colddiff.verbs.study.job import StudyJob
from colddiff.verbs.study.members import members_of


def run_trainings_on_ray(
    attempt: Attempt, source: SegmentSource, on_change: Callable[[], None]
) -> None:
    """Runs trainings until the source is exhausted or a stop was requested."""
    job = attempt.resolved.job_as(StudyJob)
    members = {member.id: member for member in members_of(job)}

    def needs() -> list[Needs]:
        return [member.needs for member in members.values()]

    def place(capacity: Capacity) -> Placement:
        def runner(segment: Segment) -> dict[str, Any]:
            return on_workers(members[segment.key].needs)

        def fitting(segment: Segment) -> int:
            return fitting_at_once(job.max_concurrent, members[segment.key].needs, capacity)

        return Placement(job.max_concurrent, HOLDER, runner, fitting)

    run_segments_on_ray(attempt, source, on_change, needs, place)

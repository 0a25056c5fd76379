"""The segments of a search on a cluster."""

from __future__ import annotations

from collections.abc import Callable

from colddiff.cluster.ray_segments import (
    Placement,
    on_workers,
    reserved_by,
    room_for,
    run_segments_on_ray,
)
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.runner import Capacity
from colddiff.jobs.segments.segment import JobSegment, SegmentSource
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.room import needs_of
from colddiff.verbs.search.severities.segment import ListSegment


def run_trials_on_ray(
    attempt: Attempt, source: SegmentSource, on_change: Callable[[], None]
) -> None:
    """Runs segments until the source is exhausted or a stop was requested; all need the same."""
    job = attempt.resolved.job_as(SearchJob)

    def place(capacity: Capacity) -> Placement:
        needs = needs_of(job)
        at_once = room_for(job.max_concurrent, needs, capacity)
        # A trial of one worker is done by the actor itself.
        runner = {} if needs.workers == 1 else on_workers(needs)
        kinds = (JobSegment, ListSegment)
        return Placement(at_once, reserved_by(needs), lambda segment: runner, kinds=kinds)

    run_segments_on_ray(attempt, source, on_change, lambda: [needs_of(job)], place)

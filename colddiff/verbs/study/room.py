"""Whether a cluster has what the trainings of a study need."""

from __future__ import annotations

from colddiff.jobs.runner import Capacity
from colddiff.jobs.segments.room import refuse_too_small
from colddiff.verbs.study.job import StudyJob
from colddiff.verbs.study.members import members_of
from colddiff.verbs.study.written import field_of


def refuse_no_room(job: StudyJob, capacity: Capacity) -> None:
    """Raises SpecError, naming the field, where one of the trainings does not fit."""
    for member in members_of(job):
        resources, workers = (
            field_of(job, member.entry, name) for name in ("resources", "workers")
        )
        refuse_too_small(member.needs, capacity, member.slug, resources, workers)

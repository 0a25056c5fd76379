"""What the trials of a search need, and whether a cluster has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colddiff.jobs.job import ResourcesSpec
from colddiff.jobs.runner import Capacity
from colddiff.jobs.segments.room import Needs, refuse_too_small
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.settings import base_of

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob


def needs_of(job: SearchJob, base: TrainJob | None = None) -> Needs:
    """What a trial of ``job`` reserves; ``base`` where it is known already."""
    if job.samples_only:
        return Needs(job.resources or ResourcesSpec())
    base = base or base_of(job)
    return Needs(job.resources or base.resources, base.workers)


def refuse_no_room(needs: Needs, capacity: Capacity) -> None:
    """Raises SpecError, naming the field of the search, where one trial does not fit."""
    refuse_too_small(needs, capacity, "a trial", "resources", "base.workers")

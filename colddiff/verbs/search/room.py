"""How many trials a cluster has room for at once; none waits for machines that another holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from colddiff.errors import SpecError
from colddiff.jobs.job import ResourcesSpec, Workers
from colddiff.jobs.runner import Capacity, requested
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.settings import base_of

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob


@dataclass(frozen=True, slots=True)
class Needs:
    """What one trial reserves."""

    resources: ResourcesSpec
    """Of each worker."""
    workers: Workers = 1

    @property
    def fewest(self) -> int:
        """The smallest number of workers that it runs with."""
        if self.workers == "all":
            return 1
        return self.workers[0] if isinstance(self.workers, tuple) else self.workers


def needs_of(job: SearchJob, base: TrainJob | None = None) -> Needs:
    """What a trial of ``job`` reserves; ``base`` where it is known already."""
    if job.samples_only:
        return Needs(job.resources or ResourcesSpec())
    base = base or base_of(job)
    return Needs(job.resources or base.resources, base.workers)


def refuse_too_small(needs: Needs, capacity: Capacity) -> None:
    """Raises SpecError, naming the field, where one trial does not fit.

    A cluster that grows may add what is missing.
    """
    room = capacity.room(needs.resources)
    if room >= needs.fewest or capacity.grows:
        return
    fields = {"CPU": "resources.cpus", "GPU": "resources.gpus"}
    for name, count in requested(needs.resources).items():
        if (most := capacity.most(name)) < count:
            what = f"a trial needs {name} {count:g}, no machine of the cluster has over {most:g}"
            raise SpecError([(fields.get(name, "resources.accelerator"), what)])
    if not room:
        what = "no machine of the cluster has all that a trial needs"
        raise SpecError([("resources", what)])
    what = f"a trial needs {needs.fewest} workers, the cluster has room for {room}"
    raise SpecError([("base.workers", what)])


def trials_at_once(max_concurrent: int, needs: Needs, capacity: Capacity) -> int:
    """``max_concurrent``, or as many trials as fit with all their workers; at least 1."""
    if capacity.grows:
        return max_concurrent
    if needs.workers == "all":
        return 1
    most = needs.workers[1] if isinstance(needs.workers, tuple) else needs.workers
    return max(1, min(max_concurrent, capacity.room(needs.resources) // most))

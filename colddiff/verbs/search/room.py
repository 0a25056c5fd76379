"""How many trials a cluster has room for at once; none waits for machines that another holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colddiff.errors import SpecError
from colddiff.jobs.job import ResourcesSpec
from colddiff.jobs.runner import Capacity, requested
from colddiff.verbs.search.job import SearchJob

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob


def trial_resources(job: SearchJob, base: TrainJob) -> ResourcesSpec:
    """What one worker of a trial reserves."""
    return job.resources or base.resources


def refuse_too_small(job: SearchJob, base: TrainJob, capacity: Capacity) -> None:
    """Raises SpecError, naming the field, where one trial does not fit.

    A cluster that grows may add what is missing.
    """
    fewest, _ = _workers(base)
    resources = trial_resources(job, base)
    room = capacity.room(resources)
    if room >= fewest or capacity.grows:
        return
    fields = {"CPU": "resources.cpus", "GPU": "resources.gpus"}
    for name, count in requested(resources).items():
        if (most := capacity.most(name)) < count:
            what = f"a trial needs {name} {count:g}, no machine of the cluster has over {most:g}"
            raise SpecError([(fields.get(name, "resources.accelerator"), what)])
    if not room:
        what = "no machine of the cluster has all that a trial needs"
        raise SpecError([("resources", what)])
    what = f"a trial needs {fewest} workers, the cluster has room for {room}"
    raise SpecError([("base.workers", what)])


def trials_at_once(job: SearchJob, base: TrainJob, capacity: Capacity) -> int:
    """``max_concurrent``, or as many trials as fit with all their workers; at least 1."""
    if capacity.grows:
        return job.max_concurrent
    if base.workers == "all":
        return 1
    _, most = _workers(base)
    fit = capacity.room(trial_resources(job, base)) // most
    return max(1, min(job.max_concurrent, fit))


def _workers(base: TrainJob) -> tuple[int, int]:
    """The smallest and the largest number of workers that a trial may run with."""
    if base.workers == "all":
        return 1, 1
    return base.workers if isinstance(base.workers, tuple) else (base.workers, base.workers)

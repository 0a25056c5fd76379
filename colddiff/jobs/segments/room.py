"""Whether a cluster has room for what a job runs, and for how many at once.

None waits for machines that another holds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from colddiff.errors import SpecError
from colddiff.jobs.device import placed, settled
from colddiff.jobs.job import Job, ResourcesSpec, Workers
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.results import advise, is_told
from colddiff.jobs.runner import Capacity, Runner, fewest_workers, requested, workers_text
from colddiff.jobs.verb import VERBS

log = logging.getLogger(__name__)

WAY_OUT = "limits.queue_hours=24 waits a day for machines to be added"


@dataclass(frozen=True, slots=True)
class Needs:
    """What one training reserves."""

    resources: ResourcesSpec
    """Of each worker."""
    workers: Workers = 1

    @property
    def fewest(self) -> int:
        """The smallest number of workers that it runs with."""
        return fewest_workers(self.workers)


def fitted(resolved: ResolvedJob, runner: Runner, *, resumed: bool) -> ResolvedJob:
    """The job as an attempt of ``runner`` runs it, which has, or may get, room for it.

    ``resumed``: an earlier attempt was taken. Logs ``what_it_waits_for``, and raises as it does.
    What is said of a job comes before it runs here, and after it is handed to what runs it
    elsewhere.
    """
    resolved = placed(resolved, runner)
    waits = what_it_waits_for(resolved.job, runner.capacity, resumed=resumed)
    if waits and is_told():
        log.warning("%s", waits)
    if not runner.outlives_client:
        advise(resolved, runner)
    return resolved


def what_it_waits_for(
    job: Job, capacity: Callable[[], Capacity | None], *, resumed: bool = False
) -> str:
    """A line where ``job`` can run once machines are added; "" where the cluster can hold it.

    Machines join by hand, or while Kubernetes starts them: most jobs wait, and say for what. A
    verb of many jobs does not (``Verb.waits_for_machines``), and raises SpecError, naming the
    field, unless ``limits.queue_hours`` says that it is to wait, or an attempt before
    (``resumed``) was taken here: machines that were lost come back.
    """
    try:
        VERBS[job.verb].check_capacity(job, capacity)
    except SpecError as error:
        hours = queue_hours(job)
        if hours is None and not resumed and not VERBS[job.verb].waits_for_machines:
            *others, (path, what) = error.problems
            raise SpecError([*others, (path, f"{what}; {WAY_OUT}")]) from None
        if hours is None:
            limit, way_out = "", "; limits.queue_hours=N waits N hours at most"
        else:
            limit, way_out = f" for limits.queue_hours={hours:g} at most,", ""
        return (
            f"it waits until machines are added,{limit} or until `colddiff stop` ends it: "
            f"{error}{way_out}"
        )
    return ""


def queue_hours(job: Job) -> float | None:
    """How long the job may wait for a cluster; None where nothing says so."""
    hours: float | None = getattr(getattr(job, "limits", None), "queue_hours", None)
    return hours


def refuse_too_small(
    needs: Needs,
    capacity: Capacity,
    what: str = "a training",
    resources: str = "resources",
    workers: str = "workers",
) -> None:
    """Raises SpecError, naming the field, where one does not fit.

    A cluster that grows may add what is missing. ``what`` it is for people; ``resources`` and
    ``workers`` are the fields that say what it needs.
    """
    needs = replace(needs, resources=settled(needs.resources, needs.workers, capacity))
    room = capacity.room(needs.resources)
    if room >= needs.fewest or capacity.grows:
        return
    fields, wanted = {"CPU": "cpus", "GPU": "gpus"}, requested(needs.resources)
    for name, count in wanted.items():
        if (most := capacity.most(name)) < count:
            problem = f"{what} needs {name} {count:g}, no machine of the cluster has over {most:g}"
            if ":" in name:
                problem = f"{what} needs {name.partition(':')[2]}, no machine of the cluster has it"
            if name == "GPU" and not most:
                problem += f"; {resources}.gpus=auto takes what the cluster has"
            raise SpecError([(f"{resources}.{fields.get(name, 'accelerator')}", problem)])
    if not room:
        problem = f"no machine of the cluster has all that {what} needs: {workers_text(wanted, 1)}"
        raise SpecError([(resources, problem)])
    most_workers = needs.workers[1] if isinstance(needs.workers, tuple) else needs.workers
    problem = (
        f"{what} needs {workers_text(wanted, needs.fewest)}, the cluster has room for {room}; "
        f"{workers}=[1, {most_workers}] starts with what has room"
    )
    raise SpecError([(workers, problem)])


def fitting_at_once(max_concurrent: int, needs: Needs, capacity: Capacity) -> int:
    """``max_concurrent``, or as many as fit with all their workers; at least 1."""
    if capacity.grows:
        return max_concurrent
    if needs.workers == "all":
        return 1
    most = needs.workers[1] if isinstance(needs.workers, tuple) else needs.workers
    return max(1, min(max_concurrent, capacity.room(needs.resources) // most))

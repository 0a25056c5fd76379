"""How many trainings a cluster has room for at once; none waits for machines that another holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from colddiff.errors import SpecError
from colddiff.jobs.device import settled
from colddiff.jobs.job import ResourcesSpec, Workers
from colddiff.jobs.runner import Capacity, fewest_workers, requested


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
    fields = {"CPU": "cpus", "GPU": "gpus"}
    for name, count in requested(needs.resources).items():
        if (most := capacity.most(name)) < count:
            problem = f"{what} needs {name} {count:g}, no machine of the cluster has over {most:g}"
            raise SpecError([(f"{resources}.{fields.get(name, 'accelerator')}", problem)])
    if not room:
        raise SpecError([(resources, f"no machine of the cluster has all that {what} needs")])
    problem = f"{what} needs {needs.fewest} workers, the cluster has room for {room}"
    raise SpecError([(workers, problem)])


def fitting_at_once(max_concurrent: int, needs: Needs, capacity: Capacity) -> int:
    """``max_concurrent``, or as many as fit with all their workers; at least 1."""
    if capacity.grows:
        return max_concurrent
    if needs.workers == "all":
        return 1
    most = needs.workers[1] if isinstance(needs.workers, tuple) else needs.workers
    return max(1, min(max_concurrent, capacity.room(needs.resources) // most))

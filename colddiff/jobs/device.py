"""GPUs of a job: what `resources.gpus: auto` stands for, and the device in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from colddiff.errors import SpecError
from colddiff.jobs.job import AUTO, ResourcesSpec, Workers
from colddiff.jobs.runner import MOST_WORKERS, Capacity, fewest_workers, requested
from colddiff.jobs.verb import VERBS

if TYPE_CHECKING:
    from colddiff.jobs.job import Job
    from colddiff.jobs.resolve import ResolvedJob
    from colddiff.jobs.runner import Runner

FIELD = "resources.gpus"


def device_of(resources: ResourcesSpec) -> torch.device:
    """A GPU if the job requests one and one is available, else the CPU."""
    return torch.device("cuda" if resources.num_gpus and torch.cuda.is_available() else "cpu")


def refuse_idle_gpu(resources: ResourcesSpec) -> None:
    """Raises SpecError if a worker was assigned a GPU that torch cannot use.

    It would otherwise run on the CPU, at the price of a GPU and a hundredth of its speed.
    """
    if resources.num_gpus and not torch.cuda.is_available():
        raise SpecError(
            [
                (
                    FIELD,
                    f"is {resources.num_gpus:g}, but torch {torch.__version__} on this worker can "
                    "use no GPU; install a build of torch for its GPU, or submit with "
                    "resources.gpus=0",
                )
            ]
        )


def idle_gpu_line(num_gpus: float) -> str | None:
    """What to say where a job of GPUs runs in this process, and torch can use none here.

    No refusal: such a run is also how a job for a cluster is tried out before.
    """
    if not num_gpus or torch.cuda.is_available():
        return None
    return (
        f"{FIELD} is {num_gpus:g}, but torch {torch.__version__} can use no GPU on this machine: "
        "the job runs on the CPU, and no GPU hours are counted"
    )


def placed(resolved: ResolvedJob, runner: Runner) -> ResolvedJob:
    """The job with a number where it says ``auto``, for an attempt that ``runner`` will run.

    A job without ``auto`` is returned as it is, and nothing is asked. Raises SpecError naming the
    field where the number is for a person to choose; ClusterError.
    """
    return replace(resolved, job=settled_job(resolved.job, runner.capacity))


def settled_job(job: Job, capacity: Callable[[], Capacity | None]) -> Job:
    """``placed``, for a job and what asks its cluster; None where it runs in this process."""
    found: list[Capacity | None] = []

    def settle(resources: ResourcesSpec, workers: Workers) -> ResourcesSpec:
        if resources.gpus != AUTO:
            return resources
        if not found:
            found.append(capacity())
        return settled(resources, workers, found[0])

    return VERBS[job.verb].with_resources(job, settle)


def settled(resources: ResourcesSpec, workers: Workers, capacity: Capacity | None) -> ResourcesSpec:
    """``resources`` with one GPU a worker where there are any, and none where there is none.

    Raises SpecError where the cluster has fewer than the fewest workers need, or has none now and
    may add some.

    >>> machines = ({"CPU": 8.0, "GPU": 2.0},)
    >>> settled(ResourcesSpec(gpus="auto"), 2, Capacity(machines)).gpus
    1.0
    """
    if resources.gpus != AUTO:
        return resources
    one = resources.model_copy(update={"gpus": 1.0})
    none = resources.model_copy(update={"gpus": 0.0})
    if capacity is None:
        return one if torch.cuda.is_available() else none
    if not any(machine.get("GPU") for machine in capacity.machines):
        if capacity.grows:
            what = "is auto: the cluster has no GPU now and can add machines; say 1, or 0 for none"
            raise SpecError([(FIELD, what)])
        return none
    fewest = fewest_workers(workers)
    room = capacity.fits(requested(one))
    if room < fewest and not capacity.grows:
        # Not all of them on CPUs instead: whoever has GPUs would not want that unsaid.
        way = f"workers=[1, {fewest}]" if room else f"{FIELD}=0"
        what = f"is auto: {fewest} workers need {fewest} GPUs, the cluster has room for "
        raise SpecError([(FIELD, f"{what}{min(room, MOST_WORKERS)}; use {way}, or say a number")])
    return one


def settled_fields(
    fields: Mapping[str, Any], settle: Callable[[ResourcesSpec, Workers], ResourcesSpec]
) -> dict[str, Any]:
    """The fields of a written train job, JSON-ready, with its resources settled."""
    resources = dict(fields.get("resources") or {})
    if resources.get("gpus") != AUTO:
        return dict(fields)
    workers = fields.get("workers", 1)
    found = settle(ResourcesSpec(**resources), tuple(workers) if _is_range(workers) else workers)
    return {**fields, "resources": {**resources, "gpus": found.gpus}}


def _is_range(workers: Any) -> bool:
    return isinstance(workers, list | tuple)

"""The number of workers that a job requests from a cluster."""

from __future__ import annotations

from typing import Literal, Protocol

import ray

from colddiff.jobs.job import ResourcesSpec


class AsksForWorkers(Protocol):
    """A job that is run by workers on a cluster."""

    @property
    def workers(self) -> Literal["all"] | int | tuple[int, int]: ...
    @property
    def resources(self) -> ResourcesSpec: ...


def most_workers(job: AsksForWorkers) -> int:
    """The largest number of workers of ``job``, on the cluster this process is connected to.

    For a range that is its upper end, even if fewer fit now: an autoscaling cluster then grows.
    ``all`` means as many as fit at once; without GPUs one CPU is left for the driver's work.
    """
    if isinstance(job.workers, int):
        return job.workers
    if isinstance(job.workers, tuple):
        return job.workers[1]
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus, cpus = job.resources.num_gpus, job.resources.cpus
    fitting = [total.get("GPU", 0.0) // gpus] if gpus else []
    if cpus:
        fitting.append((total.get("CPU", 0.0) - (0 if gpus else 1)) // cpus)
    return max(1, int(min(fitting, default=1)))

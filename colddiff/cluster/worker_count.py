"""How many workers a job asks a cluster for."""

from __future__ import annotations

from typing import Literal, Protocol

import ray

from colddiff.jobs.job import ResourcesSpec


class AsksForWorkers(Protocol):
    """A job whose work is shared by workers on a cluster."""

    @property
    def workers(self) -> Literal["all"] | int | tuple[int, int]: ...
    @property
    def resources(self) -> ResourcesSpec: ...


def most_workers(job: AsksForWorkers) -> int:
    """The most that ``job`` can have, on the cluster this process is connected to.

    Of a range that is its upper end, also where fewer fit now: a cluster that can grow then does.
    ``all`` are those that fit side by side; without GPUs one CPU is left for the driver's work.
    """
    if isinstance(job.workers, int):
        return job.workers
    if isinstance(job.workers, tuple):
        return job.workers[1]
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus, cpus = job.resources.gpus, job.resources.cpus
    fitting = [total.get("GPU", 0.0) // gpus] if gpus else []
    if cpus:
        fitting.append((total.get("CPU", 0.0) - (0 if gpus else 1)) // cpus)
    return max(1, int(min(fitting, default=1)))

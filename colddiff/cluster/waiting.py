"""Waiting for a cluster to have room for a job's workers, and saying what it waits for."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from colddiff.cluster.capacity import connected_capacity
from colddiff.cluster.worker_count import AsksForWorkers, most_workers
from colddiff.errors import Stopped
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.runner import Capacity, requested, workers_text
from colddiff.jobs.segments.room import Needs
from colddiff.jobs.status import AGAIN

log = logging.getLogger(__name__)

POLL_S = 1.0
SAID_AFTER_S = 5.0
"""A cluster that has room reserves it in less time."""


def await_workers(attempt: Attempt, job: AsksForWorkers) -> None:
    """Returns once the cluster has had room for the fewest workers that ``job`` runs with.

    What it waits for is reserved meanwhile, so that an autoscaler sees it, and released at the end.
    Raises Stopped if a stop was requested, as ``limits.queue_hours`` does.
    """
    wanted = requested(job.resources)
    if not wanted:
        return
    count = job.workers[0] if isinstance(job.workers, tuple) else most_workers(job)
    group = placement_group([wanted] * count)
    began = time.monotonic()
    try:
        while not group.wait(POLL_S):
            if attempt.stop_requested():
                raise Stopped(f"stopped while it waited {_for(wanted, count)}; {AGAIN}")
            if time.monotonic() - began > SAID_AFTER_S:
                say_waiting(attempt, wanted, count)
    finally:
        remove_placement_group(group)
        attempt.waiting("")


def await_machines(attempt: Attempt, needs: Iterable[Needs]) -> None:
    """Returns once the machines of the cluster could hold each of ``needs`` if they were idle.

    Tune would start what can never run, and say that it runs. Raises as ``await_workers``.
    """
    for one in needs:
        capacity = connected_capacity()
        if not capacity.grows and capacity.room(one.resources) < one.fewest:
            await_workers(attempt, one)


def say_waiting(attempt: Attempt, wanted: Mapping[str, float], count: int) -> None:
    """Shows in the job's status what it waits for, and what the cluster has; logs it once."""
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    line = waiting_line(wanted, count, connected_capacity(), free)
    if not attempt.waits:
        log.info("waiting %s", line)
    attempt.waiting(line)


def has_room(wanted: Mapping[str, float]) -> bool:
    """Whether the cluster has free what one worker requests: what it waits for is its process."""
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return all(free.get(name, 0.0) >= count for name, count in wanted.items())


def waiting_line(
    wanted: Mapping[str, float], count: int, capacity: Capacity, free: Mapping[str, float]
) -> str:
    """``for 2 workers with 1 GPU and 4 CPU; the cluster has 1 GPU (0 free), 8 CPU (8 free)``."""
    has = []
    for name in wanted:
        there = sum(machine.get(name, 0.0) for machine in capacity.machines)
        if name.startswith("accelerator_type:"):
            has.append(f"{there:g} machines with {name.partition(':')[2]}")
        else:
            has.append(f"{there:g} {name} ({free.get(name, 0.0):g} free)")
    line = f"{_for(wanted, count)}; the cluster has {', '.join(has)}"
    if capacity.fits(wanted) >= count:
        return line
    more = "it can add machines" if capacity.grows else "it cannot fit until machines are added"
    return f"{line}: {more}"


def _for(wanted: Mapping[str, float], count: int) -> str:
    return f"for {workers_text(wanted, count)}"

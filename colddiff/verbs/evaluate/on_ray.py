"""An evaluation's batches summed by Ray actors, through a work queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from colddiff.cluster.ray_workers import RayWorkers, WorkerActor
from colddiff.cluster.worker_count import most_workers
from colddiff.errors import ColddiffError
from colddiff.evaluation.partition import BatchGroup, group_batches, merge_sums
from colddiff.evaluation.sums_bytes import sums_from_bytes, sums_to_bytes
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.work_queue import WorkQueue
from colddiff.verbs.evaluate.job import EvaluateJob
from colddiff.verbs.evaluate.work import Subject, open_subject, raise_stopped

IN_FLIGHT = 1
"""Batch groups that an actor holds at once: two on one device would not overlap."""


class EvaluationWorker(WorkerActor):
    """One actor, with the checkpoint or the sets open."""

    def open(self, resolved: ResolvedJob) -> tuple[Any, list[BatchGroup]]:
        evaluation = open_subject(resolved).evaluation
        return evaluation, group_batches(evaluation)

    def work(self, opened: tuple[Any, list[BatchGroup]], task: dict[str, Any]) -> bytes:
        evaluation, groups = opened
        return sums_to_bytes(groups[task["number"]].sums(evaluation))


def sum_on_ray(attempt: Attempt, subject: Subject, progress: Callable[[int], None]) -> Any:
    """The sums over all batch groups, merged in their order whatever order they finish in.

    Raises ColddiffError if a group is a dead letter, Stopped if a stop was requested.
    """
    job = attempt.resolved.job_as(EvaluateJob)
    groups = group_batches(subject.evaluation)
    workers: RayWorkers[BatchGroup, Any] = RayWorkers(
        EvaluationWorker,
        attempt,
        min(most_workers(job), len(groups)),
        encode=lambda group: {"number": group.number},
        decode=sums_from_bytes,
        in_flight=IN_FLIGHT,
    )
    found: dict[int, Any] = {}

    def group_done(group: BatchGroup, sums: Any) -> None:
        found[group.number] = sums
        progress(group.num_images)

    try:
        queue = WorkQueue(
            iter(groups),
            workers,
            max_failures=job.max_failures,
            on_report=group_done,
            stop_requested=attempt.stop_requested,
            fail_fast=True,
        )
        queue.run()
    finally:
        workers.close()
    if queue.counts.dead:
        letter = queue.counts.dead[0]
        if letter.final:
            raise ColddiffError(letter.message)
        raise ColddiffError(f"{letter.task.key} could not be evaluated: {letter.message}")
    if len(found) < len(groups):
        raise_stopped()
    return merge_sums([found[group.number] for group in groups])

"""An evaluation's batches summed by Ray actors, through a work queue."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from colddiff.cluster.ray_workers import RayWorkers, WorkerActor
from colddiff.cluster.worker_count import most_workers
from colddiff.errors import ColddiffError
from colddiff.evaluation.partition import BatchedEvaluation, BatchGroup, group_batches, merge_sums
from colddiff.evaluation.sums_bytes import sums_from_bytes, sums_to_bytes
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.work_queue import WorkQueue
from colddiff.verbs.evaluate.job import EvaluateJob
from colddiff.verbs.evaluate.work import Progress, Subject, open_subject, raise_stopped

IN_FLIGHT = 1
"""Batch groups that an actor holds at once: two on one device would not overlap."""


class EvaluationWorker(WorkerActor):
    """One actor, with the checkpoint or the sets open."""

    def open(self, resolved: ResolvedJob) -> _Opened:
        evaluation = open_subject(resolved).evaluation
        return _Opened(evaluation, group_batches(evaluation))

    def work(self, opened: _Opened, task: dict[str, Any]) -> bytes:
        group = opened.groups[task["number"]]
        opened.done = {group.key: 0.0}
        sums = group.sums(opened.evaluation, partial(opened.count, group.key))
        return sums_to_bytes(sums)

    def how_far(self, opened: _Opened) -> dict[str, float]:
        return dict(opened.done)


@dataclass(slots=True)
class _Opened:
    """An evaluation, its groups, and the images done of the group in progress, by its key."""

    evaluation: BatchedEvaluation
    groups: list[BatchGroup]
    done: dict[str, float] = field(default_factory=dict)

    def count(self, key: str, images: int) -> None:
        self.done[key] += images


def sum_on_ray(attempt: Attempt, subject: Subject, progress: Progress) -> Any:
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
            on_poll=lambda: progress.look(workers.begun()),
            stop_requested=attempt.stop_requested,
            fail_fast=True,
            finish_s=lambda: 0.0,  # no sums of a part of it are kept
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

"""Parts of an evaluation measured by Ray actors, through a work queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from colddiff.cluster.ray_workers import RayWorkers, WorkerActor
from colddiff.cluster.worker_count import most_workers
from colddiff.errors import ColddiffError
from colddiff.evaluation.partition import Part, merge_all, parts_of
from colddiff.evaluation.sums_bytes import tally_from_bytes, tally_to_bytes
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.work_queue import WorkQueue
from colddiff.verbs.evaluate.job import EvaluateJob
from colddiff.verbs.evaluate.work import Subject, open_subject, raise_stopped

IN_FLIGHT = 1
"""Parts that an actor holds at once: nothing of a part can be done while another is computed."""


class PartMeasurer(WorkerActor):
    """One actor, with the checkpoint or the sets open."""

    def open(self, resolved: ResolvedJob) -> tuple[Any, list[Part]]:
        measured = open_subject(resolved).measured
        return measured, parts_of(measured)

    def work(self, opened: tuple[Any, list[Part]], task: dict[str, Any]) -> bytes:
        measured, parts = opened
        return tally_to_bytes(parts[task["number"]].tally(measured))


def sum_up_on_ray(attempt: Attempt, subject: Subject, progress: Callable[[int], None]) -> Any:
    """The sums over all parts, merged in their order whatever order they are measured in.

    Raises ColddiffError where a part was given up, Stopped where the attempt was asked to stop.
    """
    job = attempt.resolved.job_as(EvaluateJob)
    parts = parts_of(subject.measured)
    workers: RayWorkers[Part, Any] = RayWorkers(
        PartMeasurer,
        attempt.resolved,
        min(most_workers(job), len(parts)),
        encode=lambda part: {"number": part.number},
        decode=tally_from_bytes,
        in_flight=IN_FLIGHT,
    )
    sums: dict[int, Any] = {}

    def measured(part: Part, found: Any) -> None:
        sums[part.number] = found
        progress(part.num_images)

    try:
        queue = WorkQueue(
            iter(parts),
            workers,
            max_failures=job.max_failures,
            on_report=measured,
            stop_requested=attempt.stop_requested,
            fail_fast=True,
        )
        queue.run()
    finally:
        workers.close()
    if queue.counts.dead:
        letter = queue.counts.dead[0]
        raise ColddiffError(f"{letter.task.key} could not be measured: {letter.message}")
    if len(sums) < len(parts):
        raise_stopped()
    return merge_all([sums[part.number] for part in parts])

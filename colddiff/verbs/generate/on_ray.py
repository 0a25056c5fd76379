"""Shards made by Ray actors, through a work queue."""

from __future__ import annotations

from typing import Any

from colddiff.cluster.ray_workers import RayWorkers, WorkerActor
from colddiff.cluster.worker_count import most_workers
from colddiff.data.sample_plan import SamplePlan, ShardTask, read_plan
from colddiff.errors import DataError
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.resolve import ResolvedJob
from colddiff.verbs.generate.job import GenerateJob
from colddiff.verbs.generate.work import IN_FLIGHT, open_worker, samples_at
from colddiff.verbs.generate.worker import ShardReport, ShardWorker


class GenerationWorker(WorkerActor):
    """One actor: loads the checkpoint at its first shard, and again after a restart."""

    def open(self, resolved: ResolvedJob) -> ShardWorker:
        plan = read_plan(samples_at(resolved))
        if plan is None:
            raise DataError("plan.json is gone; submit the same job again")
        return open_worker(resolved, plan)

    def work(self, opened: ShardWorker, task: dict[str, Any]) -> dict[str, Any]:
        return opened.make(ShardTask(**task)).to_dict()

    def how_far(self, opened: ShardWorker) -> dict[str, float]:
        return opened.begun()


def open_ray_workers(attempt: Attempt, plan: SamplePlan) -> RayWorkers[ShardTask, ShardReport]:
    """As many actors as the job requests, and no more than there are shards."""
    job = attempt.resolved.job_as(GenerateJob)
    assert job.num_samples is not None
    return RayWorkers(
        GenerationWorker,
        attempt,
        min(most_workers(job), plan.num_shards(job.num_samples)),
        encode=ShardTask.to_dict,
        decode=lambda report: ShardReport(**report),
        in_flight=IN_FLIGHT,
    )

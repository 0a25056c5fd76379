"""Actors that make shards: a crew on a Ray cluster, of as many as are there, whatever dies."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from typing import Any

import ray

from colddiff.cluster.worker_count import most_workers
from colddiff.data.sample_plan import SamplePlan, ShardTask, read_plan
from colddiff.errors import DataError
from colddiff.jobs.device import refuse_idle_gpu
from colddiff.jobs.resolve import ResolvedJob
from colddiff.verbs.generate.dispatch import Failure, Finished
from colddiff.verbs.generate.job import GenerateJob
from colddiff.verbs.generate.local_crew import IN_FLIGHT, attempted
from colddiff.verbs.generate.work import open_worker, samples_at
from colddiff.verbs.generate.worker import ShardReport, ShardWorker

ALONE_S = 60.0
"""After so long without any worker the log says what the job waits for."""


RESTART_S = 5.0


class Generator:
    """One actor: loads the checkpoint at its first shard, and again after it was killed."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data
        self._opened: ShardWorker | None = None
        # Its first two shards come at once, in two threads.
        self._opening = threading.Lock()

    def ready(self) -> bool:
        """Answers once the actor's process is up."""
        return True

    def make(self, task: dict[str, Any]) -> dict[str, Any]:
        """A shard's report, or why it failed, as JSON."""
        found = attempted(self._make, ShardTask(**task))
        if isinstance(found, Failure):
            return {"kind": found.kind, "message": found.message}
        return found.to_dict()

    def _make(self, task: ShardTask) -> ShardReport:
        with self._opening:
            worker = self._worker()
        return worker.make(task)

    def _worker(self) -> ShardWorker:
        if self._opened is None:
            resolved = ResolvedJob.from_dict(self._data)
            refuse_idle_gpu(resolved.job_as(GenerateJob).resources)
            plan = read_plan(samples_at(resolved))
            if plan is None:
                raise DataError("plan.json is gone; submit the same job again")
            self._opened = open_worker(resolved, plan)
        return self._opened


class RayCrew:
    """Implements ``Crew`` with actors; shards go only to those whose process is up.

    Actors that a cluster has no room for yet wait, and tell its autoscaler so. A killed actor is
    started again by Ray; the shards it held come back as failures.
    """

    def __init__(
        self, resolved: ResolvedJob, plan: SamplePlan, talk: Callable[[str], None]
    ) -> None:
        job = resolved.job_as(GenerateJob)
        self._talk = talk
        # No actor for which there is no shard.
        assert job.num_samples is not None
        count = min(most_workers(job), plan.num_shards(job.num_samples))
        self._new = ray.remote(Generator).options(
            num_cpus=job.resources.cpus,
            num_gpus=job.resources.gpus,
            accelerator_type=job.resources.accelerator,
            max_restarts=-1,
            max_task_retries=0,
            # One for each shard it holds, and one to answer whether it is up.
            max_concurrency=IN_FLIGHT + 1,
        )
        self._data = resolved.to_dict()
        self._actors: list[Any] = [self._new.remote(self._data) for _ in range(count)]
        self._waiting: dict[Any, int] = {}
        """Actors that are not up, by the call that will answer when they are."""
        self._asleep: list[tuple[float, int]] = []
        """(when to ask again, actor) of those that failed to start, soonest first."""
        for number in range(count):
            self._ask(number)
        self._held: dict[int, int] = {}
        """Shards under way by actor, of those that are up."""
        self._under_way: dict[Any, tuple[int, ShardTask]] = {}
        self._began = time.monotonic()
        self._said_alone = False

    def room(self) -> int:
        return sum(IN_FLIGHT - held for held in self._held.values())

    def hand(self, task: ShardTask) -> None:
        number = min(self._held, key=lambda n: self._held[n])
        self._held[number] += 1
        reference = self._actors[number].make.remote(task.to_dict())
        self._under_way[reference] = (number, task)

    def wait(self, timeout_s: float) -> list[Finished]:
        while self._asleep and self._asleep[0][0] <= time.monotonic():
            self._ask(heapq.heappop(self._asleep)[1])
        references = [*self._under_way, *self._waiting]
        if not references:
            time.sleep(timeout_s)
            return []
        ended, _ = ray.wait(references, num_returns=1, timeout=timeout_s)
        # All that ended by now, not just the first: a driver of many actors must keep up.
        more, _ = ray.wait(references, num_returns=len(references), timeout=0)
        self._say_if_alone()
        return [
            finished
            for reference in dict.fromkeys([*ended, *more])
            if (finished := self._take(reference)) is not None
        ]

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def _take(self, reference: Any) -> Finished | None:
        if reference in self._waiting:
            self._came_up(reference, self._waiting.pop(reference))
            return None
        number, task = self._under_way.pop(reference)
        if number in self._held:
            self._held[number] -= 1
        try:
            data = ray.get(reference)
        except ray.exceptions.RayError as error:
            self._await(number)
            return Finished(task, Failure("death", f"its worker died ({_first_line(error)})"))
        if "kind" in data:
            return Finished(task, Failure(data["kind"], data["message"]))
        return Finished(task, ShardReport(**data))

    def _came_up(self, reference: Any, number: int) -> None:
        try:
            ray.get(reference)
        except ray.exceptions.RayError as error:
            self._talk(f"worker {number} is not up: {_first_line(error)}")
            if isinstance(error, ray.exceptions.ActorDiedError):
                # Ray restarts an actor that died, but not one that never came up.
                self._actors[number] = self._new.remote(self._data)
            heapq.heappush(self._asleep, (time.monotonic() + RESTART_S, number))
            return
        self._held[number] = sum(of == number for of, _ in self._under_way.values())

    def _await(self, number: int) -> None:
        """Gives a dead actor no shards until it is up again."""
        if number in self._held:
            del self._held[number]
            self._ask(number)

    def _ask(self, number: int) -> None:
        self._waiting[self._actors[number].ready.remote()] = number

    def _say_if_alone(self) -> None:
        if self._held or self._said_alone or time.monotonic() - self._began < ALONE_S:
            return
        self._said_alone = True
        self._talk("no worker has room on the cluster yet; `ray status` there shows what it lacks")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__

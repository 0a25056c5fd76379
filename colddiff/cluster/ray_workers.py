"""Workers of a work queue as Ray actors: as many as the cluster has room for, whatever dies."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import ray

from colddiff.cluster.worker_count import AsksForWorkers
from colddiff.jobs.device import refuse_idle_gpu
from colddiff.jobs.logs import log_to_stderr
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.work_queue import Failure, Finished, Task, attempted

log = logging.getLogger(__name__)

ALONE_S = 60.0
"""After so long without any worker the log says what the job waits for."""
RESTART_S = 5.0

TaskT = TypeVar("TaskT", bound=Task)
ReportT = TypeVar("ReportT")


class WorkerActor(ABC):
    """A Ray actor that does the tasks of one job; it opens what it needs at its first task.

    A verb's actor implements ``open`` and ``work``. Only JSON and bytes cross the process boundary.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self._opened: Any = None
        # The first tasks may come at once, in several threads.
        self._opening = threading.Lock()

    @abstractmethod
    def open(self, resolved: ResolvedJob) -> Any:
        """What ``work`` needs, loaded once per process."""

    @abstractmethod
    def work(self, opened: Any, task: dict[str, Any]) -> Any:
        """The report of one task, JSON-ready or bytes; whatever goes wrong is raised."""

    def ready(self) -> bool:
        """Answers once the actor's process is up."""
        return True

    def attempt(self, task: dict[str, Any]) -> dict[str, Any]:
        """``{report}`` of a task, or ``{kind, message}`` of its failure."""
        found = attempted(self._attempt, task)  # type: ignore[type-var]  # JSON of a task
        if isinstance(found, Failure):
            return {"kind": found.kind, "message": found.message}
        return {"report": found}

    def _attempt(self, task: dict[str, Any]) -> Any:
        with self._opening:
            if self._opened is None:
                log_to_stderr()
                resolved = ResolvedJob.from_dict(self._job)
                refuse_idle_gpu(resolved.job.resources)  # type: ignore[attr-defined]
                self._opened = self.open(resolved)
        return self.work(self._opened, task)


class RayWorkers(Generic[TaskT, ReportT]):
    """Implements ``Workers`` with actors; tasks go only to those whose process is up.

    Actors for which the cluster has no room yet wait, and tell its autoscaler so. A killed actor is
    started again by Ray; the tasks it held come back as failures.

    Args:
        actor: what does the tasks.
        resolved: the job, with ``workers`` and ``resources``.
        count: how many actors.
        encode: a task as JSON.
        decode: the report of a task from what the actor returned.
        in_flight: tasks that one actor holds at once.
    """

    def __init__(
        self,
        actor: type[WorkerActor],
        resolved: ResolvedJob,
        count: int,
        *,
        encode: Callable[[TaskT], dict[str, Any]],
        decode: Callable[[Any], ReportT],
        in_flight: int,
    ) -> None:
        self._encode, self._decode, self._in_flight = encode, decode, in_flight
        self._new = _remote(actor, resolved.job, in_flight)  # type: ignore[arg-type]
        self._data = resolved.to_dict()
        self._actors: list[Any] = [self._new.remote(self._data) for _ in range(count)]
        self._waiting: dict[Any, int] = {}
        """Actors that are not up, by the call that will answer when they are."""
        self._asleep: list[tuple[float, int]] = []
        """(when to ask again, actor) of those that failed to start, soonest first."""
        for number in range(count):
            self._ask(number)
        self._held: dict[int, int] = {}
        """Tasks in flight by actor, of those that are up."""
        self._under_way: dict[Any, tuple[int, TaskT]] = {}
        self._began = time.monotonic()
        self._said_alone = False

    def room(self) -> int:
        return sum(self._in_flight - held for held in self._held.values())

    def give(self, task: TaskT) -> None:
        number = min(self._held, key=lambda n: self._held[n])
        self._held[number] += 1
        reference = self._actors[number].attempt.remote(self._encode(task))
        self._under_way[reference] = (number, task)

    def wait(self, timeout_s: float) -> list[Finished[TaskT, ReportT]]:
        while self._asleep and self._asleep[0][0] <= time.monotonic():
            self._ask(heapq.heappop(self._asleep)[1])
        references = [*self._under_way, *self._waiting]
        if not references:
            time.sleep(timeout_s)
            return []
        ended, _ = ray.wait(references, num_returns=1, timeout=timeout_s)
        # All that ended by now, not just the first: a driver of many actors must keep up.
        more, _ = ray.wait(references, num_returns=len(references), timeout=0)
        self._log_if_alone()
        return [
            finished
            for reference in dict.fromkeys([*ended, *more])
            if (finished := self._take(reference)) is not None
        ]

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def _take(self, reference: Any) -> Finished[TaskT, ReportT] | None:
        if reference in self._waiting:
            self._came_up(reference, self._waiting.pop(reference))
            return None
        number, task = self._under_way.pop(reference)
        if number in self._held:
            self._held[number] -= 1
        try:
            answer = ray.get(reference)
        except ray.exceptions.RayError as error:
            self._await(number)
            return Finished(task, Failure("death", f"its worker died ({_first_line(error)})"))
        if "kind" in answer:
            return Finished(task, Failure(answer["kind"], answer["message"]))
        return Finished(task, self._decode(answer["report"]))

    def _came_up(self, reference: Any, number: int) -> None:
        try:
            ray.get(reference)
        except ray.exceptions.RayError as error:
            log.info("worker %d is not up: %s", number, _first_line(error))
            if isinstance(error, ray.exceptions.ActorDiedError):
                # Ray restarts an actor that died, but not one that never came up.
                self._actors[number] = self._new.remote(self._data)
            heapq.heappush(self._asleep, (time.monotonic() + RESTART_S, number))
            return
        self._held[number] = sum(of == number for of, _ in self._under_way.values())

    def _await(self, number: int) -> None:
        """Gives a dead actor no tasks until it is up again."""
        if number in self._held:
            del self._held[number]
            self._ask(number)

    def _ask(self, number: int) -> None:
        self._waiting[self._actors[number].ready.remote()] = number

    def _log_if_alone(self) -> None:
        if self._held or self._said_alone or time.monotonic() - self._began < ALONE_S:
            return
        self._said_alone = True
        log.info("no worker has room on the cluster yet; `ray status` there shows what it lacks")


def _remote(actor: type[WorkerActor], job: AsksForWorkers, in_flight: int) -> Any:
    return ray.remote(actor).options(
        num_cpus=job.resources.cpus,
        num_gpus=job.resources.gpus,
        accelerator_type=job.resources.accelerator,
        max_restarts=-1,
        max_task_retries=0,
        # One for each task it holds, and one to answer whether it is up.
        max_concurrency=in_flight + 1,
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__

"""Workers of a work queue as Ray actors: restarted when they die, used as soon as they are up."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray

from colddiff.cluster.capacity import NOTICE_S, lost_machines
from colddiff.cluster.nodes.places import denied_node_named
from colddiff.cluster.waiting import has_room, say_waiting
from colddiff.cluster.worker_count import AsksForWorkers
from colddiff.errors import StoreDenied
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.device import refuse_idle_gpu
from colddiff.jobs.logs import log_to_stderr
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.runner import requested
from colddiff.jobs.work_queue import Failure, Finished, Task, attempted

log = logging.getLogger(__name__)

ALONE_S = 10.0
"""After this long without any worker, the job's status says what it waits for."""
OTHERS_S = 60.0
"""How long workers on other machines may take to come up, where the store denied those that are."""
RESTART_S = 1.0
"""How often to ask an actor that Ray restarts whether it is up."""
REPLACE_S = 5.0
"""Pause before a new actor in place of one that never came up is used."""

ASKED = 16
"""Workers that are asked at once how far they are: of a thousand each about once a minute."""
ASK_EVERY_S = 1.0
FORGOTTEN_S = 30.0
"""After so long without an answer a worker is asked again in its turn."""

TaskT = TypeVar("TaskT", bound=Task)
ReportT = TypeVar("ReportT")


class WorkerActor(ABC):
    """A Ray actor that works on the tasks of one job; opens what it needs at its first task.

    A verb's actor implements ``open`` and ``work``. Only JSON and bytes cross the process boundary.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self._opened: Any = None
        # The first tasks may arrive together, in several threads.
        self._opening = threading.Lock()

    @abstractmethod
    def open(self, resolved: ResolvedJob) -> Any:
        """Loads what ``work`` needs, once per process."""

    @abstractmethod
    def work(self, opened: Any, task: dict[str, Any]) -> Any:
        """Does one task; returns its report, JSON-ready or bytes, or raises any error."""

    def how_far(self, opened: Any) -> dict[str, float]:
        """How much is done of each task that ``work`` has begun, by its key, in a verb's unit."""
        return {}

    def begun(self) -> dict[str, float]:
        """``how_far``; empty before what ``work`` needs is open."""
        return {} if self._opened is None else self.how_far(self._opened)

    def ready(self) -> str:
        """Ray's id of the machine that it runs on; returns once the actor's process is up."""
        return ray.get_runtime_context().get_node_id()

    def attempt(self, task: dict[str, Any]) -> dict[str, Any]:
        """Does one task; returns ``{report}``, or ``{kind, message}`` of its failure."""
        found = attempted(self._attempt, task)  # type: ignore[type-var]  # JSON of a task
        if isinstance(found, Failure):
            return {"kind": found.kind, "message": found.message}
        return {"report": found}

    def _attempt(self, task: dict[str, Any]) -> Any:
        with denied_node_named(str(self._job.get("storage"))):
            with self._opening:
                if self._opened is None:
                    log_to_stderr()
                    resolved = ResolvedJob.from_dict(self._job)
                    refuse_idle_gpu(resolved.job.resources)  # type: ignore[attr-defined]
                    self._opened = self.open(resolved)
            return self.work(self._opened, task)


class RayWorkers(Generic[TaskT, ReportT]):
    """Implements ``Workers`` with actors; only those whose process is up are given tasks.

    Actors that the cluster has no resources for yet stay pending, which its autoscaler sees. A
    killed actor is restarted by Ray; its tasks are returned as failures.

    Args:
        actor: class of the actors.
        attempt: that of the job, with ``workers`` and ``resources``; told what it waits for, and
            how many GPUs its workers hold.
        count: number of actors.
        encode: converts a task to JSON-ready data.
        decode: converts what an actor returned to a report.
        in_flight: number of tasks that one actor holds at once.
    """

    def __init__(
        self,
        actor: type[WorkerActor],
        attempt: Attempt,
        count: int,
        *,
        encode: Callable[[TaskT], dict[str, Any]],
        decode: Callable[[Any], ReportT],
        in_flight: int,
    ) -> None:
        self._encode, self._decode, self._in_flight = encode, decode, in_flight
        job: AsksForWorkers = attempt.resolved.job  # type: ignore[assignment]
        self._attempt, self._resources = attempt, job.resources
        self._new = _remote(actor, job, in_flight)
        self._data = attempt.resolved.to_dict()
        self._actors: list[Any] = [self._new.remote(self._data) for _ in range(count)]
        self._waiting: dict[Any, int] = {}
        """Actors that are not up, by the pending call that returns once they are."""
        self._asleep: list[tuple[float, int]] = []
        """(when to retry, actor) of those that failed to start, soonest first."""
        for number in range(count):
            self._await_ready(number)
        self._held: dict[int, int] = {}
        """Number of tasks in flight by actor, for those that are up."""
        self._begun = _BegunTasks()
        self._machines: dict[int, str] = {}
        """Machine by actor, of those that were ever up."""
        self._denied: dict[str, str] = {}
        """Machines that the store denied, and what it said; their workers get no more tasks."""
        self._in_progress: dict[Any, tuple[int, TaskT]] = {}
        self._doubtful: list[_Death[TaskT]] = []
        """Tasks whose worker died, until it is known whether its machine was lost."""
        self._last_up = time.monotonic()
        """When a worker was last up, or when the first was requested."""
        self._say_again = 0.0

    def room(self) -> int:
        return sum(self._in_flight - held for held in self._held.values())

    def give(self, task: TaskT) -> None:
        number = min(self._held, key=lambda n: self._held[n])
        self._held[number] += 1
        call = self._actors[number].attempt.remote(self._encode(task))
        self._in_progress[call] = (number, task)

    def wait(self, timeout_s: float) -> list[Finished[TaskT, ReportT]]:
        while self._asleep and self._asleep[0][0] <= time.monotonic():
            self._await_ready(heapq.heappop(self._asleep)[1])
        self._tell()
        calls = [*self._in_progress, *self._waiting]
        if not calls:
            time.sleep(timeout_s)
            return self._judged()
        ended, _ = ray.wait(calls, num_returns=1, timeout=timeout_s)
        # All that ended by now, not just the first: a driver of many actors must keep up.
        more, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
        found = [self._take(call) for call in dict.fromkeys([*ended, *more])]
        return [*filter(None, found), *self._judged()]

    def begun(self) -> list[float]:
        self._begun.ask({number: self._actors[number] for number in self._held})
        answers = (
            self._begun.of(number).get(str(task.key)) for number, task in self._in_progress.values()
        )
        return [done for done in answers if done is not None]

    def close(self) -> None:
        self._attempt.hold_gpus(0)
        self._attempt.waiting("")
        for actor in self._actors:
            ray.kill(actor)

    def _take(self, call: Any) -> Finished[TaskT, ReportT] | None:
        if call in self._waiting:
            self._came_up(call, self._waiting.pop(call))
            return None
        number, task = self._in_progress.pop(call)
        if number in self._held:
            self._held[number] -= 1
        try:
            answer = ray.get(call)
        except ray.exceptions.RayError as error:
            self._died(number, task, error)
            return None
        if "kind" in answer:
            if answer["kind"] == "denied":
                self._set_aside(self._machines[number], answer["message"])
            return Finished(task, Failure(answer["kind"], answer["message"]))
        return Finished(task, self._decode(answer["report"]))

    def _set_aside(self, machine: str, message: str) -> None:
        """Gives no more tasks to workers on a machine that the store denied.

        They would fail them faster than others do theirs, and so be given most of them.
        """
        self._denied[machine] = message
        for number in [number for number in self._held if self._machines[number] == machine]:
            del self._held[number]

    def _came_up(self, call: Any, number: int) -> None:
        try:
            self._machines[number] = ray.get(call)
        except ray.exceptions.RayError as error:
            pause_s = RESTART_S
            if isinstance(error, ray.exceptions.ActorDiedError):
                # Ray restarts an actor that died, but not one that never came up.
                log.info("worker %d failed to start: %s", number, _first_line(error))
                self._actors[number] = self._new.remote(self._data)
                pause_s = REPLACE_S
            else:
                log.debug("worker %d is not up again yet: %s", number, _first_line(error))
            heapq.heappush(self._asleep, (time.monotonic() + pause_s, number))
            return
        if self._machines[number] in self._denied:
            return
        self._held[number] = sum(of == number for of, _ in self._in_progress.values())

    def _died(self, number: int, task: TaskT, error: Exception) -> None:
        """Gives a dead actor no tasks until it is up again."""
        self._begun.forget(number)
        if number in self._held:
            del self._held[number]
            self._await_ready(number)
        until = time.monotonic() + NOTICE_S
        why = f"its worker died ({_first_line(error)})"
        self._doubtful.append(_Death(task, why, number, self._machines[number], until))

    def _judged(self) -> list[Finished[TaskT, ReportT]]:
        """Tasks of which it is known by now whether their machine was lost."""
        found: list[Finished[TaskT, ReportT]] = []
        left = []
        for death in self._doubtful:
            if lost := lost_machines([death.machine]):
                loss = Failure("loss", f"its machine was lost ({lost[0]})")
                found.append(Finished(death.task, loss))
            # Where its worker is up again, Ray knew of any loss.
            elif death.number in self._held or time.monotonic() >= death.until:
                found.append(Finished(death.task, Failure("death", death.message)))
            else:
                left.append(death)
        self._doubtful = left
        return found

    def _await_ready(self, number: int) -> None:
        self._waiting[self._actors[number].ready.remote()] = number

    def _tell(self) -> None:
        """Tells the attempt how many GPUs are held; after a while without any worker, why.

        Raises StoreDenied where the store denied all that are up, and no others come.
        """
        now = time.monotonic()
        self._attempt.hold_gpus(self._resources.num_gpus * len(self._held))
        if self._held:
            self._last_up = now
            self._attempt.waiting("")
        elif self._denied and (self._none_to_come() or now - self._last_up >= OTHERS_S):
            raise StoreDenied(next(iter(self._denied.values())))
        elif now - self._last_up >= ALONE_S and now >= self._say_again:
            self._say_again = now + ALONE_S
            wanted = requested(self._resources)
            if has_room(wanted):
                self._attempt.waiting("")
            else:
                say_waiting(self._attempt, wanted, 1)

    def _none_to_come(self) -> bool:
        return not self._waiting and not self._asleep


class _BegunTasks:
    """The last answers of actors to ``WorkerActor.begun``; actors are known by their number."""

    def __init__(self) -> None:
        self._answers: dict[int, Mapping[str, float]] = {}
        self._calls: dict[Any, tuple[int, float]] = {}
        """(actor, when) by the pending call."""
        self._last, self._next = -1, 0.0

    def ask(self, actors: Mapping[int, Any]) -> None:
        """Takes the answers that are there, and asks the next few of ``actors``, in turn."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + ASK_EVERY_S
        self._take(now)
        asked = {number for number, _ in self._calls.values()}
        for number in self._in_turn(sorted(actors.keys() - asked))[: ASKED - len(asked)]:
            self._calls[actors[number].begun.remote()] = number, now
            self._last = number

    def of(self, number: int) -> Mapping[str, float]:
        """How much of each task that it had begun was done, by the last answer of an actor."""
        return self._answers.get(number, {})

    def forget(self, number: int) -> None:
        """What an actor said before it died."""
        self._answers.pop(number, None)

    def _in_turn(self, numbers: Sequence[int]) -> list[int]:
        later = [number for number in numbers if number > self._last]
        return [*later, *numbers[: len(numbers) - len(later)]]

    def _take(self, now: float) -> None:
        calls = list(self._calls)
        ended, _ = ray.wait(calls, num_returns=len(calls), timeout=0) if calls else ([], [])
        for call in ended:
            number, _ = self._calls.pop(call)
            try:
                self._answers[number] = ray.get(call)
            except ray.exceptions.RayError:
                self.forget(number)  # it died, which its tasks say
        for call in [call for call, (_, since) in self._calls.items() if now > since + FORGOTTEN_S]:
            del self._calls[call]


@dataclass(frozen=True, slots=True)
class _Death(Generic[TaskT]):
    """The death of the worker of a task, which may be the loss of its machine."""

    task: TaskT
    message: str
    number: int
    machine: str
    until: float
    """When it counts as the worker's death, if its machine is still there."""


def _remote(actor: type[WorkerActor], job: AsksForWorkers, in_flight: int) -> Any:
    return ray.remote(actor).options(
        num_cpus=job.resources.cpus,
        num_gpus=job.resources.num_gpus,
        accelerator_type=job.resources.accelerator,
        max_restarts=-1,
        max_task_retries=0,
        # One for each task it holds, and one for ``ready`` and ``begun``.
        max_concurrency=in_flight + 1,
        # Anywhere: not within what a trial of Ray Tune reserves, where its driver is one.
        scheduling_strategy="DEFAULT",
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__

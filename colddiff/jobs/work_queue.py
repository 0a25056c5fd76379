"""A work queue: tasks handed to workers that have room, retried, or given up as dead letters."""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from colddiff.errors import StoreError, Unreachable
from colddiff.retry import Backoff

log = logging.getLogger(__name__)

POLL_S = 1.0
IDLE_S = 0.1
DEATHS_PER_FAILURE = 4
"""A worker that died says less about its task than one that raised: machines come and go."""
STORE_FAILURES = 20
"""Failures of the store in a row, without one success, after which it is presumed unreachable."""
RETRY = Backoff(first_s=1.0, longest_s=30.0)


class Task(Protocol):
    """One piece of work; ``key`` names it in messages and tells tasks apart."""

    @property
    def key(self) -> Hashable: ...


TaskT = TypeVar("TaskT", bound=Task)
ReportT = TypeVar("ReportT")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task was not done: the task itself, the store, or the death of its worker."""

    kind: Literal["task", "store", "death"]
    message: str


@dataclass(frozen=True, slots=True)
class Finished(Generic[TaskT, ReportT]):
    """What came of a task that was handed out."""

    task: TaskT
    outcome: ReportT | Failure


@dataclass(frozen=True, slots=True)
class DeadLetter(Generic[TaskT]):
    """A task that was given up, and why."""

    task: TaskT
    message: str


class Workers(Protocol[TaskT, ReportT]):
    """Workers that take tasks. Where one dies, its task comes back as a failure."""

    def room(self) -> int:
        """How many tasks could be handed out now and would be begun soon (back-pressure)."""

    def give(self, task: TaskT) -> None:
        """Gives a task to the worker with the most room."""

    def wait(self, timeout_s: float) -> list[Finished[TaskT, ReportT]]:
        """What has finished; empty after ``timeout_s`` seconds without anything."""

    def close(self) -> None:
        """Ends the workers; what they are doing is lost, and harmless."""


@dataclass(slots=True)
class _Trouble:
    failures: int = 0
    deaths: int = 0


@dataclass(slots=True)
class QueueCounts:
    """How often the queue retried, and what it gave up."""

    retries: int = 0
    dead: list[DeadLetter[Any]] = field(default_factory=list)


class WorkQueue(Generic[TaskT, ReportT]):
    """Hands tasks to workers until each is done or given up.

    A task that failed ``max_failures`` times (four deaths of its worker count as one failure) goes
    to the dead letters; the others go on, unless ``fail_fast`` is set: then nothing more is handed
    out. The iterator of tasks is asked only when a worker has room.
    """

    def __init__(
        self,
        tasks: Iterator[TaskT],
        workers: Workers[TaskT, ReportT],
        *,
        max_failures: int,
        counts: QueueCounts | None = None,
        on_report: Callable[[TaskT, ReportT], None],
        on_poll: Callable[[], None] = lambda: None,
        stop_requested: Callable[[], bool] = lambda: False,
        fail_fast: bool = False,
    ) -> None:
        self._tasks, self._workers = tasks, workers
        self.counts = counts or QueueCounts()
        self._limit = max(1, max_failures)
        self._on_report, self._on_poll = on_report, on_poll
        self._stop_requested, self._fail_fast = stop_requested, fail_fast
        self._again: list[tuple[float, int, TaskT]] = []
        self._number = itertools.count()
        self._trouble: dict[Hashable, _Trouble] = {}
        self._in_flight = 0
        self._store_failures = 0
        self._exhausted = False
        self.stopped = False

    def run(self) -> None:
        """Returns when nothing is left to do, or nothing is in flight after a stop was requested.

        ``on_poll`` is called whenever something finished, and about once a second.

        Raises StoreError where the store stays unreachable.
        """
        while True:
            self.stopped = self.stopped or self._stop_requested()
            ending = self.stopped or (self._fail_fast and bool(self.counts.dead))
            if not ending:
                self._hand_out()
            idle = not self._in_flight and not self._again and self._exhausted
            if idle or (ending and not self._in_flight):
                return
            for finished in self._workers.wait(POLL_S):
                self._in_flight -= 1
                self._take(finished)
            self._on_poll()

    def _hand_out(self) -> None:
        room = self._workers.room()
        while room > 0 and (task := self._next()) is not None:
            self._workers.give(task)
            self._in_flight += 1
            room -= 1

    def _next(self) -> TaskT | None:
        if self._again and self._again[0][0] <= time.monotonic():
            return heapq.heappop(self._again)[2]
        if self._exhausted:
            return None
        task = next(self._tasks, None)
        self._exhausted = task is None
        return task

    def _take(self, finished: Finished[TaskT, ReportT]) -> None:
        if isinstance(finished.outcome, Failure):
            self._failed(finished.task, finished.outcome)
            return
        self._store_failures = 0
        self._trouble.pop(finished.task.key, None)
        self._on_report(finished.task, finished.outcome)

    def _failed(self, task: TaskT, failure: Failure) -> None:
        trouble = self._trouble.setdefault(task.key, _Trouble())
        if failure.kind == "store":
            # Not the task's fault: retried until the store is clearly gone.
            self._store_failures += 1
            if self._store_failures >= STORE_FAILURES:
                raise StoreError(f"{failure.message} ({STORE_FAILURES} times in a row)")
        trouble.failures += failure.kind == "task"
        trouble.deaths += failure.kind == "death"
        if trouble.failures + trouble.deaths // DEATHS_PER_FAILURE >= self._limit:
            log.warning("%s is given up: %s", task.key, failure.message)
            del self._trouble[task.key]
            self.counts.dead.append(DeadLetter(task, failure.message))
            return
        tries = trouble.failures + trouble.deaths + self._store_failures
        # A death is no reason to wait: another worker may be free.
        wait_s = 0.0 if failure.kind == "death" else RETRY.pause_s(tries)
        log.info("%s is retried: %s", task.key, failure.message)
        self.counts.retries += 1
        heapq.heappush(self._again, (time.monotonic() + wait_s, next(self._number), task))


def attempted(work: Callable[[TaskT], ReportT], task: TaskT) -> ReportT | Failure:
    """What ``work`` returns, or why it failed, in a line; only an exit or interrupt is raised."""
    try:
        return work(task)
    except Unreachable as error:
        return Failure("store", str(error))
    except Exception as error:
        return Failure("task", f"{type(error).__name__}: {error}")


class LocalWorkers(Generic[TaskT, ReportT]):
    """``Workers`` in threads of this process: what `--local` uses, and tests instead of actors."""

    def __init__(self, work: Callable[[TaskT], ReportT], in_flight: int = 2) -> None:
        self._work = work
        self._in_flight = in_flight
        self._pool = ThreadPoolExecutor(in_flight, "worker")
        self._under_way: dict[Future[ReportT | Failure], TaskT] = {}

    def room(self) -> int:
        return self._in_flight - len(self._under_way)

    def give(self, task: TaskT) -> None:
        self._under_way[self._pool.submit(attempted, self._work, task)] = task

    def wait(self, timeout_s: float) -> list[Finished[TaskT, ReportT]]:
        if not self._under_way:
            time.sleep(min(timeout_s, IDLE_S))
            return []
        done, _ = wait(self._under_way, timeout_s, FIRST_COMPLETED)
        return [Finished(self._under_way.pop(future), future.result()) for future in done]

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

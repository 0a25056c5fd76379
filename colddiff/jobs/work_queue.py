"""A work queue: tasks for workers with free capacity, with retries, backoff and dead letters."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from colddiff.background import in_context
from colddiff.errors import ColddiffError, StoreDenied, StoreError, Unreachable
from colddiff.retry import DENIALS, Backoff

log = logging.getLogger(__name__)

POLL_S = 1.0
STOP_POLL_S = 1.0
IDLE_S = 0.1
DEATHS_PER_FAILURE = 4
"""A dead worker says less about its task than an exception does: machines are preempted.

With ``fail_fast`` each death counts as a failure: it would otherwise take long to fail."""
LOSSES_PER_FAILURE = 10
"""The loss of a machine says nothing about its task, unless each machine that tries it is lost."""
STORE_FAILURES = 20
"""Consecutive failures of the store, without one success, before it counts as unreachable."""
RETRY = Backoff(first_s=1.0, longest_s=30.0)


class Task(Protocol):
    """One piece of work; ``key`` identifies it, also in messages."""

    @property
    def key(self) -> Hashable: ...


TaskT = TypeVar("TaskT", bound=Task)
ReportT = TypeVar("ReportT")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task failed: an error, the store, the death of its worker, or the loss of its machine.

    ``final`` is an error of ours (a spec, data, a checkpoint) that would recur on a retry;
    ``denied`` is a store that denies access to the worker.
    """

    kind: Literal["task", "final", "store", "denied", "death", "loss"]
    message: str


@dataclass(frozen=True, slots=True)
class Finished(Generic[TaskT, ReportT]):
    """The outcome of a task that a worker was given."""

    task: TaskT
    outcome: ReportT | Failure


@dataclass(frozen=True, slots=True)
class DeadLetter(Generic[TaskT]):
    """A task that is not retried (any more), and why; ``final`` if a retry would not help."""

    task: TaskT
    message: str
    final: bool = False


class Workers(Protocol[TaskT, ReportT]):
    """Workers that take tasks. If one dies, its tasks are returned as failures."""

    def room(self) -> int:
        """How many more tasks the workers accept now (back-pressure)."""

    def give(self, task: TaskT) -> None:
        """Gives a task to the worker with the most free capacity."""

    def wait(self, timeout_s: float) -> list[Finished[TaskT, ReportT]]:
        """Tasks that have finished; empty after ``timeout_s`` seconds without any."""

    def begun(self) -> Sequence[float]:
        """For each task that a worker has begun, how much of it is done, in a verb's unit.

        As far as it is known: of many workers, by what they said a while ago.
        """

    def close(self) -> None:
        """Ends the workers; their unfinished tasks are abandoned, which is harmless."""


@dataclass(slots=True)
class _FailureCounts:
    failures: int = 0
    deaths: int = 0
    losses: int = 0
    denials: int = 0


@dataclass(slots=True)
class QueueCounts:
    """Number of retries, the dead letters, and what the workers hold now."""

    retries: int = 0
    dead: list[DeadLetter[Any]] = field(default_factory=list)
    in_flight: int = 0
    """Tasks that workers hold; after a stop those that were abandoned."""
    stopping: bool = False
    """Whether a stop was requested, after which no task is given out."""


class WorkQueue(Generic[TaskT, ReportT]):
    """Gives tasks to workers until each is done or is a dead letter.

    A task that failed ``max_failures`` times (four deaths of its worker, or ten losses of its
    machine, count as one failure) becomes a dead letter; the others continue. With ``fail_fast``
    the first dead letter ends the run, each death counts as a failure, and a ``final`` failure is
    not retried. Without it, a ``final`` failure is retried like any other: it may be the fault of
    one machine only. The iterator of tasks is advanced only when a worker has free capacity.

    After a stop was requested, tasks in flight have ``finish_s()`` seconds to end, by default as
    long as they take; the others are abandoned.
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
        finish_s: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._tasks, self._workers = tasks, workers
        self.counts = counts or QueueCounts()
        self._limit = max(1, max_failures)
        self._on_report, self._on_poll = on_report, on_poll
        self._stop_requested, self._fail_fast = stop_requested, fail_fast
        self._deaths_per_failure = 1 if fail_fast else DEATHS_PER_FAILURE
        self._retries: list[tuple[float, int, TaskT]] = []
        """(when, tie-break, task) of tasks that wait for a retry, soonest first."""
        self._number = itertools.count()
        self._failures: dict[Hashable, _FailureCounts] = {}
        self._store_failures = 0
        self._exhausted = False
        self._ask_again = 0.0
        self._finish_s = finish_s
        self._ends = math.inf
        """When what is in flight is abandoned."""

    def run(self) -> None:
        """Returns when all tasks are settled, or none is waited for after a stop was requested.

        With ``fail_fast`` it also returns at the first dead letter, whatever is in flight.
        ``on_poll`` is called whenever a task finished, and about once a second.

        Raises StoreError if the store stays unreachable, StoreDenied if it denies the same task
        ``DENIALS`` times: each by another machine, where there are several.
        """
        while True:
            if not self.stopped and self._asked_to_stop():
                self.counts.stopping = True
                self._ends = time.monotonic() + self._finish_s()
            if not self.stopped:
                self._give_out()
            in_flight = self.counts.in_flight
            idle = not in_flight and not self._retries and self._exhausted
            if idle or (self.stopped and (not in_flight or time.monotonic() >= self._ends)):
                return
            for finished in self._workers.wait(POLL_S):
                self.counts.in_flight -= 1
                self._take(finished)
            self._on_poll()
            if self._fail_fast and self.counts.dead:
                return

    @property
    def stopped(self) -> bool:
        """Whether a stop was requested."""
        return self.counts.stopping

    def _asked_to_stop(self) -> bool:
        # A request to the store: not one for each of the many tasks that end within a second.
        now = time.monotonic()
        if now < self._ask_again:
            return False
        self._ask_again = now + STOP_POLL_S
        return self._stop_requested()

    def _give_out(self) -> None:
        room = self._workers.room()
        while room > 0 and (task := self._next()) is not None:
            self._workers.give(task)
            self.counts.in_flight += 1
            room -= 1

    def _next(self) -> TaskT | None:
        if self._retries and self._retries[0][0] <= time.monotonic():
            return heapq.heappop(self._retries)[2]
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
        self._failures.pop(finished.task.key, None)
        self._on_report(finished.task, finished.outcome)

    def _failed(self, task: TaskT, failure: Failure) -> None:
        counts = self._failures.setdefault(task.key, _FailureCounts())
        if failure.kind == "store":
            # Not the task's fault: retried until the store is clearly unreachable.
            self._store_failures += 1
            if self._store_failures >= STORE_FAILURES:
                raise StoreError(f"{failure.message} ({STORE_FAILURES} times in a row)")
        counts.denials += failure.kind == "denied"
        if counts.denials >= DENIALS:
            raise StoreDenied(failure.message)
        final = failure.kind == "final"
        counts.failures += final or failure.kind == "task"
        counts.deaths += failure.kind == "death"
        counts.losses += failure.kind == "loss"
        deaths = counts.deaths // self._deaths_per_failure + counts.losses // LOSSES_PER_FAILURE
        often = counts.failures + deaths >= self._limit
        if often or (final and self._fail_fast):
            why = "failed too often" if often else "would fail again"
            log.warning("%s: %s, not retried: %s", task.key, why, failure.message)
            del self._failures[task.key]
            self.counts.dead.append(DeadLetter(task, failure.message, final))
            return
        tries = counts.failures + counts.deaths + counts.denials + self._store_failures
        # After a death there is no need to back off: another worker may be free.
        wait_s = 0.0 if failure.kind in ("death", "loss") else RETRY.pause_s(tries)
        log.info("%s: retrying: %s", task.key, failure.message)
        self.counts.retries += 1
        heapq.heappush(self._retries, (time.monotonic() + wait_s, next(self._number), task))


def attempted(work: Callable[[TaskT], ReportT], task: TaskT) -> ReportT | Failure:
    """What ``work`` returns, or why it failed, in a line; only exits and interrupts are raised."""
    try:
        return work(task)
    except StoreDenied as error:
        return Failure("denied", str(error))
    except Unreachable as error:
        return Failure("store", str(error))
    except ColddiffError as error:
        return Failure("final", str(error))
    except Exception as error:
        return Failure("task", f"{type(error).__name__}: {error}")


class LocalWorkers(Generic[TaskT, ReportT]):
    """``Workers`` as threads of this process, for `--local` and tests.

    Args:
        work: does one task.
        in_flight: number of tasks at once.
        how_far: how much is done of each task that was begun, by its key.
        abandon: has ``work`` end soon, whatever is lost.
    """

    def __init__(
        self,
        work: Callable[[TaskT], ReportT],
        in_flight: int = 2,
        *,
        how_far: Callable[[], Mapping[str, float]] = dict,
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        self._work, self._how_far, self._abandon = work, how_far, abandon
        self._in_flight = in_flight
        self._pool = ThreadPoolExecutor(in_flight, "worker")
        self._in_progress: dict[Future[ReportT | Failure], TaskT] = {}

    def room(self) -> int:
        return self._in_flight - len(self._in_progress)

    def give(self, task: TaskT) -> None:
        self._in_progress[self._pool.submit(in_context(attempted), self._work, task)] = task

    def wait(self, timeout_s: float) -> list[Finished[TaskT, ReportT]]:
        if not self._in_progress:
            time.sleep(min(timeout_s, IDLE_S))
            return []
        done, _ = wait(self._in_progress, timeout_s, FIRST_COMPLETED)
        return [Finished(self._in_progress.pop(future), future.result()) for future in done]

    def begun(self) -> list[float]:
        far = self._how_far()
        keys = [str(task.key) for task in self._in_progress.values()]
        return [far[key] for key in keys if key in far]

    def close(self) -> None:
        self._abandon()
        self._pool.shutdown(cancel_futures=True)

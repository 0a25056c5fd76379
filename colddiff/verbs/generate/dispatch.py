"""The driver's queue: missing shards, handed to workers that ask, tried again, or given up."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from colddiff.data.sample_plan import SamplePlan, ShardTask
from colddiff.data.sample_set import BLOCK, num_blocks, stored_shards
from colddiff.errors import StoreError
from colddiff.ports import Store
from colddiff.retry import Backoff
from colddiff.verbs.generate.statistics import measured_shards
from colddiff.verbs.generate.worker import ShardReport

WAIT_S = 1.0
DEATHS_PER_FAILURE = 4
"""A worker that died says less about its shard than one that raised: machines come and go."""
STORE_FAILURES = 20
"""Failures of the store in a row, without one success, after which it is taken to be away."""
RETRY = Backoff(first_s=1.0, longest_s=30.0)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a shard was not made: its images (``shard``), the store, or the worker's death."""

    kind: Literal["shard", "store", "death"]
    message: str


@dataclass(frozen=True, slots=True)
class Finished:
    """What came of a shard that was handed out."""

    task: ShardTask
    outcome: ShardReport | Failure


class Crew(Protocol):
    """Workers that take shards. Where one dies, its shard comes back as a failure."""

    def room(self) -> int:
        """How many shards could be handed out now and would be begun soon."""

    def hand(self, task: ShardTask) -> None:
        """Gives a shard to the worker with the most room."""

    def wait(self, timeout_s: float) -> list[Finished]:
        """What ended; empty after ``timeout_s`` seconds without anything."""

    def close(self) -> None:
        """Ends the workers; what is under way is lost, and harmless."""


@dataclass(slots=True)
class Tally:
    """How far a job is. ``images`` and ``shards`` count what is committed, whoever made it."""

    images: int = 0
    shards: int = 0
    made: int = 0
    """Images made in this attempt."""
    retries: int = 0
    dead: list[DeadLetter] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A shard that was given up, and why."""

    task: ShardTask
    message: str


@dataclass(slots=True)
class _Trouble:
    failures: int = 0
    deaths: int = 0


def missing_shards(
    store: Store,
    plan: SamplePlan,
    num_samples: int,
    tally: Tally,
    statistics: Sequence[str] = (),
) -> Iterator[ShardTask]:
    """The shards of the plan that are not there, or too short; those there go into ``tally``.

    ``statistics``: folders where each must have its statistics; one that lacks them is measured.

    Memory and time do not depend on how many there are in all: numbers are arithmetic, and what
    exists is listed a block at a time, when the queue gets there.
    """
    num_shards = plan.num_shards(num_samples)
    for block in range(num_blocks(num_shards)):
        found = stored_shards(store, plan.writer, block)
        measured = measured_shards(store, statistics, block) if found else set()
        first = block * BLOCK
        for number in range(first, min(first + BLOCK, num_shards)):
            task = plan.task(number, num_samples)
            there = found.get(number)
            if there is None or there.count < task.count:
                yield task
            elif statistics and (number, there.sha256) not in measured:
                yield replace(task, measure=there.sha256)
            else:
                tally.images += task.count
                tally.shards += 1


class Dispatcher:
    """Hands missing shards to a crew until all are committed or given up.

    A shard that failed ``max_failures`` times (four deaths of its worker count as one failure)
    goes to the dead letters; the others go on.
    """

    def __init__(
        self,
        tasks: Iterator[ShardTask],
        crew: Crew,
        tally: Tally,
        *,
        max_failures: int,
        on_change: Callable[[Finished | None], None] = lambda finished: None,
        stop_requested: Callable[[], bool] = lambda: False,
        talk: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._tasks, self._crew, self.tally = tasks, crew, tally
        self._limit = max(1, max_failures)
        self._on_change, self._stop_requested, self._talk = on_change, stop_requested, talk
        self._again: list[tuple[float, int, ShardTask]] = []
        self._trouble: dict[int, _Trouble] = {}
        self._under_way = 0
        self._store_failures = 0
        self._exhausted = False
        self.stopped = False

    def run(self) -> Tally:
        """Returns when nothing is left to do, or nothing is under way after a stop was asked for.

        Raises StoreError where the store stays away.
        """
        while True:
            self.stopped = self.stopped or self._stop_requested()
            if not self.stopped:
                self._hand_out()
            idle = not self._under_way and not self._again and self._exhausted
            if idle or (self.stopped and not self._under_way):
                return self.tally
            ended = self._crew.wait(WAIT_S)
            for finished in ended:
                self._under_way -= 1
                self._take(finished)
                self._on_change(finished)
            if not ended:
                self._on_change(None)

    def _hand_out(self) -> None:
        room = self._crew.room()
        while room > 0 and (task := self._next()) is not None:
            self._crew.hand(task)
            self._under_way += 1
            room -= 1

    def _next(self) -> ShardTask | None:
        if self._again and self._again[0][0] <= time.monotonic():
            return heapq.heappop(self._again)[2]
        if self._exhausted:
            return None
        task = next(self._tasks, None)
        self._exhausted = task is None
        return task

    def _take(self, finished: Finished) -> None:
        if isinstance(finished.outcome, ShardReport):
            self._store_failures = 0
            self._trouble.pop(finished.task.number, None)
            self.tally.images += finished.task.count
            self.tally.made += finished.task.count * finished.outcome.written
            self.tally.shards += 1
            return
        self._failed(finished.task, finished.outcome)

    def _failed(self, task: ShardTask, failure: Failure) -> None:
        trouble = self._trouble.setdefault(task.number, _Trouble())
        if failure.kind == "store":
            # Not the shard's fault: tried again until the store is clearly gone.
            self._store_failures += 1
            if self._store_failures >= STORE_FAILURES:
                raise StoreError(f"{failure.message} ({STORE_FAILURES} times in a row)")
        trouble.failures += failure.kind == "shard"
        trouble.deaths += failure.kind == "death"
        if trouble.failures + trouble.deaths // DEATHS_PER_FAILURE >= self._limit:
            self._talk(f"{task.key} is given up: {failure.message}")
            del self._trouble[task.number]
            self.tally.dead.append(DeadLetter(task, failure.message))
            return
        tries = trouble.failures + trouble.deaths + self._store_failures
        wait_s = 0.0 if failure.kind == "death" else RETRY.pause_s(tries)
        self._talk(f"{task.key} is tried again: {failure.message}")
        self.tally.retries += 1
        heapq.heappush(self._again, (time.monotonic() + wait_s, task.number, task))

"""When the queue tries again: at once after a death, ever later after failures, never for nothing.

The workers are fakes and so is the clock, which moves when the queue waits and nothing ends.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from types import SimpleNamespace

import pytest

from colddiff.data.sample_plan import ShardTask
from colddiff.errors import StoreError
from colddiff.jobs import work_queue
from colddiff.jobs.work_queue import Failure, Finished, QueueCounts
from colddiff.retry import Backoff
from colddiff.stores.memory_store import MemoryStore
from colddiff.verbs.generate.worker import ShardReport
from tests.unit.generation.sets import plan
from tests.unit.generation.test_work_queue import FakeWorkers, Outcome, made, run


class TimedWorkers(FakeWorkers):
    """Notes when each shard was handed out; work takes no time, waiting for nothing does."""

    def __init__(self, patch: pytest.MonkeyPatch, outcome: Outcome, workers: int = 1) -> None:
        super().__init__(workers, outcome)
        self.now = 0.0
        self.handed: dict[int, list[float]] = defaultdict(list)
        patch.setattr(work_queue, "time", SimpleNamespace(monotonic=lambda: self.now))

    def give(self, task: ShardTask) -> None:
        super().give(task)
        self.handed[task.number].append(self.now)

    def wait(self, timeout_s: float) -> list[Finished[ShardTask, ShardReport]]:
        ended = super().wait(timeout_s)
        if not ended:
            self.now += timeout_s
            assert self.now < 3600, "nothing was handed out for an hour"
        return ended


def test_a_shard_whose_worker_died_is_tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome(task: ShardTask, tries: int) -> ShardReport | Failure:
        return Failure("death", "killed") if task.number == 1 and tries <= 5 else made(task)

    workers = TimedWorkers(monkeypatch, outcome)
    counts, queue = run(workers, MemoryStore(), plan(), 30)
    assert workers.handed[1] == [0.0] * 6
    assert (counts.images, queue.counts.retries) == (30, 5)


@pytest.mark.parametrize("kind", ["task", "store"])
def test_a_failure_waits_twice_as_long_each_time_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def outcome(task: ShardTask, tries: int) -> ShardReport | Failure:
        return Failure(kind, "no") if tries <= 7 else made(task)  # type: ignore[arg-type]

    workers = TimedWorkers(monkeypatch, outcome)
    counts, queue = run(workers, MemoryStore(), plan(), 10, max_failures=9)
    times = workers.handed[0]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert (counts.images, queue.counts.retries) == (10, 7)


def test_others_are_made_while_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome(task: ShardTask, tries: int) -> ShardReport | Failure:
        return Failure("task", "no") if task.number == 0 and tries == 1 else made(task)

    workers = TimedWorkers(monkeypatch, outcome)
    run(workers, MemoryStore(), plan(), 500)
    assert workers.handed.pop(0) == [0.0, 1.0]
    assert all(times == [0.0] for times in workers.handed.values())


def test_failures_of_the_store_count_in_a_row_and_a_success_ends_the_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hundred failures in all, of which never two follow each other."""

    def outcome(task: ShardTask, tries: int) -> ShardReport | Failure:
        return Failure("store", "away") if tries == 1 else made(task)

    workers = TimedWorkers(monkeypatch, outcome)
    workers.size = 1  # one at a time: a failure, and its second try before anything new
    monkeypatch.setattr(work_queue, "RETRY", Backoff(0.0, 0.0))
    counts, queue = run(workers, MemoryStore(), plan(), 1000)
    assert (counts.images, queue.counts) == (1000, QueueCounts(retries=100))


def test_failures_of_the_store_in_a_row_count_over_all_shards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers = TimedWorkers(monkeypatch, lambda task, tries: Failure("store", "away"), workers=50)
    with pytest.raises(StoreError, match=r"away \(20 times in a row\)"):
        run(workers, MemoryStore(), plan(), 1000)
    assert workers.tries.total() <= 50

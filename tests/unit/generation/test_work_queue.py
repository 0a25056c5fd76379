"""The work queue of a generation: everything once, retries, dead letters, memory that stays."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from colddiff.data.sample_plan import SamplePlan, ShardTask
from colddiff.data.sample_set import record_key
from colddiff.errors import ClusterError, DataError, SpecError, StoreDenied, StoreError
from colddiff.jobs import work_queue
from colddiff.jobs.work_queue import Failure, Finished, QueueCounts, WorkQueue, attempted
from colddiff.ports import ShardEntry, Store, StoredObject
from colddiff.retry import Backoff
from colddiff.stores.memory_store import MemoryStore
from colddiff.verbs.generate.missing import ShardCounts, missing_shards
from colddiff.verbs.generate.results import describe_dead
from colddiff.verbs.generate.worker import ShardReport
from tests.unit.generation.sets import plan

Outcome = Callable[[ShardTask, int], ShardReport | Failure]


def made(task: ShardTask, tries: int = 1) -> ShardReport:
    return ShardReport(task.number, task.count, 512, "0" * 64, True, 0.1, 0.1)


class FakeWorkers:
    """Workers without work: shards end in the order they were handed out, as ``outcome`` says."""

    def __init__(self, workers: int, outcome: Outcome = made) -> None:
        self.size = 2 * workers
        self._outcome = outcome
        self._held: deque[ShardTask] = deque()
        self.tries: Counter[int] = Counter()
        self.most = 0

    def room(self) -> int:
        return self.size - len(self._held)

    def give(self, task: ShardTask) -> None:
        self._held.append(task)
        self.most = max(self.most, len(self._held))

    def wait(self, timeout_s: float) -> list[Finished[ShardTask, ShardReport]]:
        ended = []
        for _ in range(min(len(self._held), 50)):
            task = self._held.popleft()
            self.tries[task.number] += 1
            ended.append(Finished(task, self._outcome(task, self.tries[task.number])))
        return ended

    def begun(self) -> list[float]:
        return []

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_queue, "RETRY", Backoff(0.0, 0.0))
    monkeypatch.setattr(work_queue, "STOP_POLL_S", 0.0)


def run(
    workers: FakeWorkers, store: Store, the_plan: SamplePlan, count: int, **options: object
) -> tuple[ShardCounts, WorkQueue[ShardTask, ShardReport]]:
    counts = ShardCounts()
    tasks = missing_shards(store, the_plan, count, counts)
    settings: dict[str, Any] = {"max_failures": 3} | options
    queue = WorkQueue(tasks, workers, on_report=counts.committed, **settings)
    queue.run()
    return counts, queue


def put(store: Store, task: ShardTask, size: int = 512) -> None:
    """A committed shard, as far as listing tells."""
    entry = ShardEntry(task.key, task.count, size, f"{task.number:064x}")
    store.put(record_key(task.number, entry), b"{}")
    store.put(task.key, b"x" * size)


def test_every_shard_is_handed_out_once() -> None:
    workers = FakeWorkers(3)
    done, queue = run(workers, MemoryStore(), plan(), 2345)
    assert workers.tries == Counter(range(235))
    assert (done.images, done.shards, done.made) == (2345, 235, 2345)
    assert queue.counts == QueueCounts()
    assert workers.most == 6


def test_a_stop_is_asked_for_once_a_second_however_many_tasks_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work_queue, "STOP_POLL_S", 1e6)
    asked = itertools.count()
    run(FakeWorkers(3), MemoryStore(), plan(), 2345, stop_requested=lambda: next(asked) < 0)
    assert next(asked) == 1


def test_only_what_is_missing_is_made() -> None:
    store, the_plan = MemoryStore(), plan()
    for number in (0, 1, 7, 1003):
        put(store, the_plan.task(number, 20_000))
    put(store, the_plan.task(500, 5003))  # a short tail of a smaller set
    store.put("shard-000009.tar", b"no record: not of this set")
    workers = FakeWorkers(2)
    done, _queue = run(workers, store, the_plan, 20_000)
    assert workers.tries == Counter(set(range(2000)) - {0, 1, 7, 1003})
    assert (done.images, done.made) == (20_000, 19_960)


def test_a_shard_that_fails_is_tried_again() -> None:
    def outcome(task: ShardTask, tries: int) -> ShardReport | Failure:
        unlucky = task.number % 3 == 0 and tries < 3
        return Failure("task", "unlucky") if unlucky else made(task)

    workers = FakeWorkers(2, outcome)
    done, queue = run(workers, MemoryStore(), plan(), 100)
    assert done.images == 100
    assert queue.counts == QueueCounts(retries=8)


def test_a_poison_shard_is_given_up_and_named_and_the_rest_is_made() -> None:
    def outcome(task: ShardTask, tries: int) -> ShardReport | Failure:
        return Failure("task", "boom") if task.number in (3, 9) else made(task)

    workers = FakeWorkers(2, outcome)
    done, queue = run(workers, MemoryStore(), plan(), 95)
    assert workers.tries[3] == workers.tries[9] == 3
    assert done.images == 95 - 15
    assert describe_dead(MemoryStore(), queue.counts.dead, done.images) == (
        "15 images failed, in shard-000003.tar (seeds 30..39: boom), shard-000009.tar "
        "(seeds 90..94: boom); the other 80 are in memory://store; submit the same job again to "
        "retry the failed ones"
    )


@pytest.mark.parametrize(("deaths", "survives"), [(11, True), (12, False)])
def test_workers_may_die_more_often_than_shards_may_fail(deaths: int, survives: bool) -> None:
    def outcome(task: ShardTask, tries: int) -> ShardReport | Failure:
        return Failure("death", "killed") if task.number == 1 and tries <= deaths else made(task)

    done, queue = run(FakeWorkers(1, outcome), MemoryStore(), plan(), 30)
    assert (done.images == 30) is survives
    assert len(queue.counts.dead) == (not survives)


@pytest.mark.parametrize(("losses", "survives"), [(9, True), (10, False)])
@pytest.mark.parametrize("fail_fast", [False, True])
def test_loss_of_a_machine_is_a_failure_only_where_each_that_tries_is_lost(
    losses: int, survives: bool, fail_fast: bool
) -> None:
    def outcome(task: ShardTask, tries: int) -> ShardReport | Failure:
        return Failure("loss", "gone") if task.number == 1 and tries <= losses else made(task)

    done, queue = run(
        FakeWorkers(1, outcome), MemoryStore(), plan(), 30, max_failures=1, fail_fast=fail_fast
    )
    assert (done.images == 30) is survives
    assert [letter.message for letter in queue.counts.dead] == ["gone"] * (not survives)


def test_with_fail_fast_a_death_counts_as_a_failure() -> None:
    workers = FakeWorkers(1, lambda task, tries: Failure("death", "killed"))
    workers.size = 1
    _done, queue = run(workers, MemoryStore(), plan(), 30, fail_fast=True)
    assert workers.tries.total() == 3
    assert [letter.message for letter in queue.counts.dead] == ["killed"]


@pytest.mark.parametrize(("fail_fast", "tries"), [(True, 1), (False, 3)])
def test_only_with_fail_fast_is_a_final_failure_not_retried(fail_fast: bool, tries: int) -> None:
    """Where all others are made anyway, another machine may do what this one cannot."""
    workers = FakeWorkers(1, lambda task, tries: Failure("final", "poison part"))
    _done, queue = run(workers, MemoryStore(), plan(), 10, fail_fast=fail_fast)
    assert workers.tries == {0: tries}
    assert queue.counts.retries == tries - 1
    assert [(letter.message, letter.final) for letter in queue.counts.dead] == [
        ("poison part", True)
    ]


def test_fail_fast_waits_for_nothing_else() -> None:
    class Slow(FakeWorkers):
        """Only the first of the tasks it holds ever ends."""

        def wait(self, timeout_s: float) -> list[Finished[ShardTask, ShardReport]]:
            assert not self.tries, "waited after the first dead letter"
            return super().wait(timeout_s)[:1]

    workers = Slow(2, lambda task, tries: Failure("final", "poison part"))
    _done, queue = run(workers, MemoryStore(), plan(), 100, fail_fast=True)
    assert [letter.task.number for letter in queue.counts.dead] == [0]


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (DataError("poison part"), Failure("final", "poison part")),
        (SpecError([("a.b", "is wrong")]), Failure("final", "a.b: is wrong")),
        (StoreError("away"), Failure("store", "away")),
        (ClusterError("gone"), Failure("store", "gone")),
        (StoreDenied("no key"), Failure("denied", "no key")),
        (ValueError("boom"), Failure("task", "ValueError: boom")),
    ],
)
def test_errors_of_ours_are_final_unless_a_service_is_unreachable(
    error: Exception, failure: Failure
) -> None:
    def work(task: ShardTask) -> ShardReport:
        raise error

    assert attempted(work, plan().task(0, 10)) == failure


def test_a_store_that_is_away_for_a_while_is_nobodys_fault() -> None:
    away = iter(range(15))

    def outcome(task: ShardTask, tries: int) -> ShardReport | Failure:
        return Failure("store", "away") if next(away, None) is not None else made(task)

    done, queue = run(FakeWorkers(1, outcome), MemoryStore(), plan(), 50)
    assert done.images == 50
    assert queue.counts == QueueCounts(retries=15)


def test_a_store_that_stays_away_or_is_full_ends_the_job() -> None:
    workers = FakeWorkers(2, lambda task, tries: Failure("store", "/out: the disk is full"))
    with pytest.raises(StoreError, match=r"/out: the disk is full \(20 times in a row\)"):
        run(workers, MemoryStore(), plan(), 10_000)


def test_a_store_that_denies_a_shard_twice_ends_the_job() -> None:
    """Of many shards at once each may meet the one machine that has no credentials."""

    def outcome(task: ShardTask, tries: int) -> ShardReport | Failure:
        return Failure("denied", "node x: no key") if tries == 1 else made(task)

    done, _ = run(FakeWorkers(10, outcome), MemoryStore(), plan(), 100)
    assert done.images == 100
    workers = FakeWorkers(1, lambda task, tries: Failure("denied", "node x: no key"))
    with pytest.raises(StoreDenied, match=r"^node x: no key$"):
        run(workers, MemoryStore(), plan(), 10_000)
    assert max(workers.tries.values()) == 2


def test_a_stop_lets_what_is_under_way_end() -> None:
    workers = FakeWorkers(2)
    done, queue = run(
        workers, MemoryStore(), plan(), 10_000, stop_requested=lambda: workers.tries.total() >= 8
    )
    assert queue.stopped
    assert done.made == 10 * workers.tries.total() == 80


def test_after_a_stop_what_takes_too_long_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(FakeWorkers):
        def wait(self, timeout_s: float) -> list[Finished[ShardTask, ShardReport]]:
            clock.now += timeout_s
            return []

    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(work_queue, "time", SimpleNamespace(monotonic=lambda: clock.now))
    asked = {"stop_requested": lambda: clock.now >= 5, "finish_s": lambda: 20.0}
    done, queue = run(Endless(2), MemoryStore(), plan(), 10_000, **asked)
    assert (queue.stopped, queue.counts.in_flight, done.shards) == (True, 4, 0)
    assert clock.now == 25


class FullStore(MemoryStore):
    """A store in which every third shard is there, without holding one; counts what it lists."""

    def __init__(self, the_plan: SamplePlan, count: int) -> None:
        super().__init__()
        self._plan, self._count = the_plan, count
        self.longest = self.pages = 0

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        folder, _, start = prefix.rpartition("shard-")
        block = int(start)
        self.pages += 1
        listed = 0
        for number in range(1000 * block, 1000 * block + 1000):
            if number % 3:
                continue
            listed += 1
            task = self._plan.task(number, self._count)
            entry = ShardEntry(task.key, task.count, 512, "0" * 64)
            yield StoredObject(record_key(number, entry) if folder else task.key, 512)
        self.longest = max(self.longest, listed)


def test_a_billion_images_on_a_thousand_workers_take_no_more_memory_than_a_million() -> None:
    peaks = {}
    for count in (10**6, 10**9):
        the_plan = replace(plan(), content={**plan().content, "shard_size": 50_000})
        store, workers = FullStore(the_plan, count), FakeWorkers(1000)
        workers.tries = _Forgetful()
        tracemalloc.start()
        done, _queue = run(workers, store, the_plan, count)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert done.images == count
        assert done.made == sum(
            the_plan.task(n, count).count for n in range(count // 50_000) if n % 3
        )
        # One page of each kind for a block of 1000 shards.
        assert store.pages == 2 * -(-(count // 50_000) // 1000)
        assert store.longest <= 1000
    assert peaks[10**9] < peaks[10**6] + 2 * 2**20
    assert peaks[10**9] < 8 * 2**20


class _Forgetful(Counter[int]):
    """Counts nothing, so that the test's own memory stays too."""

    def __setitem__(self, key: int, value: int) -> None: ...

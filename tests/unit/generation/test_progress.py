"""Progress within shards, and a stop that does not wait for shards that take long."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from colddiff.data.sample_plan import ShardTask
from colddiff.errors import Stopped
from colddiff.jobs.work_queue import LocalWorkers, QueueCounts
from colddiff.stores.memory_store import MemoryStore
from colddiff.verbs.generate import progress as module
from colddiff.verbs.generate.missing import ShardCounts
from colddiff.verbs.generate.progress import FINISH_S, GenerationProgress
from colddiff.verbs.generate.worker import ShardReport, ShardWorker
from tests.unit.generation.sets import all_tasks, halfway, maker, plan

Told = SimpleNamespace


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Progress of 200 images in shards of 50, whose clock, ``begun`` and counts a test sets."""
    found = Told(now=0.0, begun=[], counts=ShardCounts(), queue=QueueCounts(), written=[])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: found.now))

    def begun() -> list[float]:
        return list(found.begun)

    found.progress = GenerationProgress(
        *(found.counts, found.queue, 200, 50),
        begun=begun,
        write=found.written.append,
        track=lambda metrics, images: None,
    )
    return found


def after(told: Told, seconds: float, *begun: float) -> dict[str, Any]:
    """What is written after ``seconds`` more, where so much of shards is made."""
    told.now += seconds
    told.begun, told.queue.in_flight = begun, 2
    told.progress()
    return dict(told.written[-1])


def test_it_generates_once_a_worker_has_begun_and_moves_within_shards(told: Told) -> None:
    assert after(told, 30.0)["phase"] == "starting workers"
    first = after(told, 1.0, 0.0)
    assert (first["phase"], first["step"]) == ("generating", 0)
    assert first["detail"] == "0/4 shards, 2 in progress"
    status = after(told, 10.0, 20.0)
    # What the workers took to start is no part of the rate.
    assert (status["step"], status["images_per_s"], status["eta_s"]) == (20, 2.0, 90.0)
    told.counts.committed(ShardTask(0, 0, 50), ShardReport(0, 50, 1, "", True, 1.0, 1.0))
    status = after(told, 20.0, 10.0)
    assert (status["step"], status["images_per_s"], status["eta_s"]) == (60, 2.0, 70.0)


def test_a_set_that_is_made_between_two_looks_has_a_rate(told: Told) -> None:
    after(told, 30.0)
    told.counts.committed(ShardTask(0, 0, 50), ShardReport(0, 50, 1, "", True, 1.0, 1.0))
    assert after(told, 2.0)["images_per_s"] == 25.0
    told.now += 0.5
    told.progress.close()
    assert told.written[-1]["images_per_s"] == 20.0


def test_a_worker_that_dies_takes_what_it_had_made_and_no_rate_is_below_zero(told: Told) -> None:
    after(told, 1.0, 30.0)
    status = after(told, 1.0, 0.0)
    assert (status["step"], status["images_per_s"], status["eta_s"]) == (0, 0.0, None)


def test_it_looks_once_a_second_however_many_shards_end(told: Told) -> None:
    after(told, 1.0, 5.0)
    for _ in range(100):
        after(told, 0.005, 6.0)
    assert len(told.written) == 1


@pytest.mark.parametrize(("made", "waits"), [(40.0, FINISH_S), (4.0, 0.0)])
def test_after_a_stop_shards_are_waited_for_that_are_nearly_made(
    told: Told, made: float, waits: float
) -> None:
    assert told.progress.finish_s() == 0.0
    after(told, 1.0, 0.0)
    after(told, 10.0, made)
    assert told.progress.finish_s() == waits
    told.queue.stopping = True
    status = after(told, 1.0, made)
    assert status["phase"] == "stopping"
    assert "2 in progress (committed within 20 s, or made again later)" in status["detail"]
    told.progress.close()
    assert told.written[-1]["detail"] == "0/4 shards"


def test_a_worker_knows_how_much_of_a_shard_is_made_by_its_sampling_steps() -> None:
    seen: list[dict[str, float]] = []

    def R(x_t: Any, t: Any) -> Any:
        seen.append(worker.begun())
        return halfway(x_t, t)

    the_plan = plan()
    worker = ShardWorker(the_plan, maker(R=R), MemoryStore())
    (task,) = all_tasks(the_plan, 10)
    worker.make(task)
    made = [found[task.key] for found in seen]
    # Batches of 4, 4 and 2 images, each in three steps.
    assert made == pytest.approx([0, 4 / 3, 8 / 3, 4, 16 / 3, 20 / 3, 8, 26 / 3, 28 / 3])
    assert worker.begun() == {}
    worker.close()


def test_an_abandoned_shard_ends_at_its_next_step_and_leaves_nothing() -> None:
    store, the_plan = MemoryStore(), plan()
    calls = iter(range(99))

    def R(x_t: Any, t: Any) -> Any:
        if next(calls) == 4:
            worker.abandon()
        return halfway(x_t, t)

    worker = ShardWorker(the_plan, maker(R=R), store)
    (task,) = all_tasks(the_plan, 10)
    with pytest.raises(Stopped):
        worker.make(task)
    assert (next(calls), list(store.list()), worker.begun()) == (5, [], {})
    worker.close()


def test_threads_say_how_far_their_own_tasks_are() -> None:
    go, ended = threading.Event(), threading.Event()
    far = {"shard-000000.tar": 3.0, "shard-000009.tar": 7.0}
    workers: LocalWorkers[ShardTask, bool] = LocalWorkers(
        lambda task: go.wait(10), how_far=lambda: far, abandon=ended.set
    )
    workers.give(ShardTask(0, 0, 10))
    assert workers.begun() == [3.0]
    go.set()
    workers.close()
    assert ended.is_set()

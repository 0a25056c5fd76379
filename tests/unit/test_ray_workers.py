"""Actors of a work queue that die or never start; Ray is a fake, and so is the clock."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from colddiff.cluster import ray_workers, waiting
from colddiff.cluster.ray_workers import RayWorkers, WorkerActor
from colddiff.errors import StoreDenied
from colddiff.jobs.job import ResourcesSpec
from colddiff.jobs.runner import Capacity

Answer = Callable[[], Any]


@dataclass(eq=False)
class FakeCluster:
    """One actor after another; each call to an actor ends at once, as ``ready`` or ``work`` say."""

    ready: Answer = lambda: "machine"
    work: Answer = lambda: {"report": 1}
    now: float = 0.0
    asked: list[float] = field(default_factory=list)
    """When each ``ready`` was called."""
    begun: Answer = dict
    asked_how_far: list[float] = field(default_factory=list)
    """When each ``begun`` was called."""
    num_actors: int = 0
    lost: dict[str, float] = field(default_factory=dict)
    """Machines that were lost, and when Ray notices."""

    def lost_machines(self, machines: list[str]) -> list[str]:
        return [name for name in machines if self.lost.get(name, 1e9) <= self.now]

    def remote(self, data: Any) -> Any:
        self.num_actors += 1
        return SimpleNamespace(
            ready=SimpleNamespace(remote=self._ask),
            attempt=SimpleNamespace(remote=lambda task: _Call(self.work)),
            begun=SimpleNamespace(remote=lambda: self._ask_how_far()),
        )

    def _ask_how_far(self) -> Any:
        self.asked_how_far.append(self.now)
        return _Call(self.begun)

    def _ask(self) -> Any:
        self.asked.append(self.now)
        return _Call(self.ready)

    def wait(self, calls: list[Any], *, num_returns: int, timeout: float) -> tuple[Any, Any]:
        return calls[:num_returns], calls[num_returns:]

    def get(self, call: Any) -> Any:
        return call.answer()

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass(eq=False)
class _Call:
    answer: Answer


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    cluster = FakeCluster()
    monkeypatch.setattr(ray_workers, "_remote", lambda *_: cluster)
    fake_ray = SimpleNamespace(wait=cluster.wait, get=cluster.get, exceptions=ray.exceptions)
    monkeypatch.setattr(ray_workers, "ray", fake_ray)
    monkeypatch.setattr(ray_workers, "lost_machines", cluster.lost_machines)
    clock = SimpleNamespace(monotonic=lambda: cluster.now, sleep=cluster.sleep)
    monkeypatch.setattr(ray_workers, "time", clock)
    machine = {"CPU": 8.0, "GPU": 1.0}
    monkeypatch.setattr(waiting, "connected_capacity", lambda: Capacity((machine,)))
    free = SimpleNamespace(available_resources=lambda: {"CPU": 3.0})
    monkeypatch.setattr(waiting, "ray", free)
    return cluster


@dataclass
class Told:
    """What an attempt was told; the time goes on with the cluster's."""

    resolved: Any = field(
        default_factory=lambda: SimpleNamespace(
            job=SimpleNamespace(resources=ResourcesSpec(gpus=2, cpus=4)), to_dict=dict
        )
    )
    waits_for: str = ""
    gpus: float = 0.0

    @property
    def waits(self) -> bool:
        return bool(self.waits_for)

    def waiting(self, what: str) -> None:
        self.waits_for = what

    def hold_gpus(self, count: float) -> None:
        self.gpus = count


def one_worker(told: Told | None = None) -> RayWorkers[Any, Any]:
    return some_workers(1, told)


def some_workers(count: int, told: Told | None = None) -> RayWorkers[Any, Any]:
    attempt: Any = told or Told()
    actor: Any = WorkerActor
    return RayWorkers(
        actor, attempt, count, encode=lambda task: task, decode=lambda found: found, in_flight=1
    )


def restarting() -> Any:
    raise ray.exceptions.ActorUnavailableError("The actor is restarting", None)


def died() -> Any:
    raise ray.exceptions.ActorDiedError()


def wait_for(workers: RayWorkers[Any, Any], cluster: FakeCluster, seconds: float) -> None:
    end = cluster.now + seconds
    while cluster.now < end:
        workers.wait(1.0)


def told_within(
    workers: RayWorkers[Any, Any], cluster: FakeCluster, seconds: float
) -> list[tuple[float, str, str]]:
    """When tasks ended as failures, with their kinds and messages."""
    end, found = cluster.now + seconds, []
    while cluster.now < end:
        began = cluster.now
        failures = [finished.outcome for finished in workers.wait(1.0)]
        found += [(cluster.now, failure.kind, failure.message) for failure in failures]
        if cluster.now == began:
            cluster.now += 1.0  # a call had ended at once
    return found


def test_a_worker_that_restarts_is_asked_every_second(fake: FakeCluster) -> None:
    workers = one_worker()
    workers.wait(1.0)
    fake.work, fake.ready = died, restarting
    workers.give({})
    assert workers.wait(1.0) == []
    wait_for(workers, fake, 3.0)
    assert workers.room() == 0
    fake.ready = lambda: "machine"
    (finished,) = workers.wait(1.0)
    assert finished.outcome.kind == "death"
    assert workers.room() == 1
    assert fake.asked == [0.0, 0.0, 1.0, 2.0, 3.0]
    assert fake.num_actors == 1


def test_a_task_whose_machine_was_lost_says_so(fake: FakeCluster) -> None:
    workers = one_worker()
    workers.wait(1.0)
    fake.work, fake.ready, fake.lost = died, restarting, {"machine": 5.0}
    workers.give({})
    told = told_within(workers, fake, 9.0)
    # Ray notices only then, and only then is it known which of the two it was.
    assert told == [(5.0, "loss", "its machine was lost (machine)")]


def test_a_worker_that_stays_down_on_a_machine_that_is_there_died(fake: FakeCluster) -> None:
    workers = one_worker()
    workers.wait(1.0)
    fake.work, fake.ready = died, restarting
    workers.give({})
    ((when, kind, message),) = told_within(workers, fake, 30.0)
    assert (when, kind) == (20.0, "death")
    assert message.startswith("its worker died (")


def test_a_worker_that_never_came_up_is_replaced_after_a_longer_pause(fake: FakeCluster) -> None:
    fake.ready = died
    workers = one_worker()
    wait_for(workers, fake, 10.5)
    assert fake.asked == [0.0, 5.0, 10.0]
    assert fake.num_actors == 4


@pytest.mark.parametrize("came_up", [False, True])
def test_without_workers_the_attempt_waits_and_holds_no_gpu(
    fake: FakeCluster, caplog: pytest.LogCaptureFixture, came_up: bool
) -> None:
    caplog.set_level(logging.INFO, "colddiff")
    told = Told()
    if not came_up:
        fake.ready = restarting
    workers = one_worker(told)
    workers.wait(1.0)
    if came_up:
        fake.now += 1000.0
        workers.wait(1.0)
        assert told.gpus == 2.0
        fake.work, fake.ready = died, restarting
        workers.give({})
        workers.wait(1.0)
    wait_for(workers, fake, 9.0)
    assert (told.waits_for, told.gpus) == ("", 0.0)
    wait_for(workers, fake, 60.0)
    said = (
        "for 1 worker with 2 GPU and 4 CPU; the cluster has 8 CPU (3 free), 1 GPU (0 free): it "
        "cannot fit until machines are added"
    )
    assert told.waits_for == said
    assert caplog.messages == [f"waiting {said}"]
    fake.ready = lambda: "machine"
    wait_for(workers, fake, 3.0)
    assert (told.waits_for, told.gpus) == ("", 2.0)


def test_a_worker_that_starts_where_there_is_room_is_not_waited_for(
    fake: FakeCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "colddiff")
    there = SimpleNamespace(available_resources=lambda: {"CPU": 4.0, "GPU": 2.0})
    monkeypatch.setattr(waiting, "ray", there)
    told = Told()
    fake.ready = restarting
    wait_for(one_worker(told), fake, 60.0)
    assert (told.waits_for, caplog.messages) == ("", [])


def test_workers_are_asked_how_far_they_are_once_a_second(fake: FakeCluster) -> None:
    workers = one_worker()
    workers.wait(1.0)
    workers.give(SimpleNamespace(key="a"))
    fake.begun = lambda: {"a": 3.0, "of-an-earlier-task": 9.0}
    assert workers.begun() == []
    for now in (0.2, 0.4, 1.0, 1.2):
        fake.now = now
        found = workers.begun()
    assert (found, fake.asked_how_far) == ([3.0], [0.0, 1.0])
    workers.wait(1.0)
    assert workers.begun() == []  # it has ended, whatever was said of it before


def test_of_thousands_of_workers_a_few_are_asked_a_second_each_in_turn(fake: FakeCluster) -> None:
    begun, asked = ray_workers._BegunTasks(), []

    def actor(number: int) -> Any:
        def ask() -> Any:
            asked.append(number)
            return _Call(lambda: {"a": float(number)})

        return SimpleNamespace(begun=SimpleNamespace(remote=ask))

    actors = {number: actor(number) for number in range(40)}
    for _ in range(3):
        fake.now += 1.0
        begun.ask(actors)
    assert asked == [*range(40), *range(8)]
    assert begun.of(31) == {"a": 31.0}
    begun.forget(31)
    assert begun.of(31) == {}


def test_a_worker_that_does_not_answer_is_asked_again_after_a_while(fake: FakeCluster) -> None:
    workers = one_worker()
    workers.wait(1.0)
    wait, hang = fake.wait, [True]
    hung = SimpleNamespace(
        wait=lambda calls, **more: ([], calls) if hang[0] else wait(calls, **more),
        get=fake.get,
        exceptions=ray.exceptions,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_workers, "ray", hung)
        for _ in range(40):
            fake.now += 1.0
            workers.begun()
    assert fake.asked_how_far == [1.0, 32.0]


def denied() -> dict[str, str]:
    return {"kind": "denied", "message": "node x: no key"}


def test_where_the_store_denies_the_only_machine_the_job_ends_at_once(fake: FakeCluster) -> None:
    workers = one_worker()
    workers.wait(1.0)
    fake.work = denied
    workers.give({})
    (finished,) = workers.wait(1.0)
    assert finished.outcome.kind == "denied"
    assert workers.room() == 0
    with pytest.raises(StoreDenied, match=r"^node x: no key$"):
        workers.wait(1.0)
    assert fake.now == 0.0


def test_workers_of_a_machine_that_is_denied_get_no_more_tasks(fake: FakeCluster) -> None:
    """Its own others neither; a worker on another machine that comes up is used."""
    machines = iter(["bad", "bad"])
    fake.ready = lambda: next(machines, None) or restarting()
    workers = some_workers(3)
    workers.wait(1.0)
    assert workers.room() == 2
    fake.work = denied
    workers.give({})
    workers.wait(1.0)
    assert workers.room() == 0
    wait_for(workers, fake, 30.0)
    fake.ready = lambda: "good"
    wait_for(workers, fake, 2.0)
    assert workers.room() == 1
    # Not for ever: the one that is missing may have no machine.
    fake.ready, fake.work = restarting, died
    workers.give({})
    with pytest.raises(StoreDenied):
        wait_for(workers, fake, 100.0)

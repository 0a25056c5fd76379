"""The processes of a job spool what they log, and its driver delivers it: all, in time, once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from colddiff.errors import StoreError, TrackerError
from colddiff.stores.memory_store import MemoryStore
from colddiff.tracking import mlflow_outbox, mlflow_run
from colddiff.tracking.address import TrackingAddress
from colddiff.tracking.mlflow_outbox import MlflowOutbox
from colddiff.tracking.mlflow_service import client
from colddiff.tracking.relay import Relay
from colddiff.tracking.spool import RunHeader, Spool, now_ms, undelivered
from tests.unit.trackers.twins import EXPERIMENT, MlflowTwin, png, wait_for

LOSS = "train/loss_l1"


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds follow at once."""
    monkeypatch.setattr(Relay, "every_s", 0.01)
    monkeypatch.setattr(MlflowOutbox, "every_s", 0.01)
    monkeypatch.setattr(mlflow_outbox, "BUSY_S", 0.02)
    monkeypatch.setattr(mlflow_outbox, "IDLE_S", 0.02)


def outbox_of(mlflow: MlflowTwin, uri: str | None = None) -> MlflowOutbox:
    """A driver without a thread: it does a round when it is told to."""
    header = RunHeader(mlflow.job_id, EXPERIMENT, "test", now_ms())
    address = TrackingAddress(uri or mlflow.uri)
    return MlflowOutbox(address, Spool(mlflow.store, header), timeout_s=5.0)


def collected(outbox: MlflowOutbox) -> None:
    outbox.work(list, urgent=True)
    assert outbox.clean


def trained(mlflow: MlflowTwin, first: int, last: int) -> None:
    """A worker's steps, all of which are safe when it is killed."""
    time.sleep(0.002)  # a new process starts later
    worker = mlflow.join()
    for step in range(first, last + 1):
        worker.log_metrics({LOSS: step / 3}, step)
    assert worker.flush()
    assert worker.run_id == ""


def test_what_a_worker_logs_arrives_while_it_runs_and_its_end_is_not_that_of_the_run(
    mlflow: MlflowTwin, soon: None
) -> None:
    driver = mlflow.open()
    worker = mlflow.join()
    worker.log_metrics({LOSS: 0.5}, 1)
    worker.set_tags({"checkpoint.step": "1"})
    worker.log_artifact("note.txt", b"bytes")
    worker.log_image("grid", png(3), 1)
    wait_for(lambda: undelivered(mlflow.store, mlflow.job_id) == [])
    wait_for(lambda: ("grid", 1) in mlflow.read().images)
    run = mlflow.read()
    assert run.history(LOSS) == [(1, 0.5)]
    assert run.tags["checkpoint.step"] == "1"
    assert run.artifacts == {"note.txt": b"bytes"}
    worker.log_metrics({LOSS: 0.25}, 2)
    worker.close()
    assert mlflow.read().status == "RUNNING"
    driver.finish("FINISHED")
    mlflow.join().close()
    assert mlflow.read().status == "FINISHED"
    assert sorted(mlflow.read().history(LOSS)) == [(1, 0.5), (2, 0.25)]
    assert undelivered(mlflow.store, mlflow.job_id) == []


def test_at_the_end_nothing_is_left_although_no_listing_was_due(mlflow: MlflowTwin) -> None:
    driver = mlflow.open()
    trained(mlflow, 1, 3)
    driver.log_metrics({"eval/sampled/fid": 9.0}, 3)
    driver.finish("FINISHED")
    run = mlflow.read()
    assert sorted(run.history(LOSS)) == [(step, step / 3) for step in (1, 2, 3)]
    assert (run.status, run.history("eval/sampled/fid")) == ("FINISHED", [(3, 9.0)])
    assert undelivered(mlflow.store, mlflow.job_id) == []


@pytest.mark.parametrize("collects_between", [True, False])
def test_killed_workers_and_drivers_lose_and_repeat_nothing(
    mlflow: MlflowTwin, monkeypatch: pytest.MonkeyPatch, collects_between: bool
) -> None:
    first = outbox_of(mlflow)
    trained(mlflow, 1, 7)
    if collects_between:
        collected(first)
    trained(mlflow, 5, 9)  # resumed from the checkpoint of step 4

    def killed(spool: Spool, key: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # Delivered, and not deleted yet.
        patch.setattr(Spool, "discard", killed)
        with pytest.raises(KeyboardInterrupt):
            first.work(list, urgent=True)
    assert not first.clean
    left = undelivered(mlflow.store, mlflow.job_id)
    assert len(left) == 1 + (not collects_between)
    time.sleep(0.002)
    second = outbox_of(mlflow)
    trained(mlflow, 8, 12)
    collected(second)
    assert sorted(mlflow.read().history(LOSS)) == [(step, step / 3) for step in range(1, 13)]


def test_what_is_left_when_all_are_gone_is_replayed(mlflow: MlflowTwin) -> None:
    collected(outbox_of(mlflow))
    trained(mlflow, 1, 3)
    assert mlflow.replay() == 3
    assert sorted(mlflow.read().history(LOSS)) == [(step, step / 3) for step in (1, 2, 3)]


def test_an_outage_is_told_once_by_the_driver_and_workers_do_not_notice(
    mlflow: MlflowTwin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    driver = outbox_of(mlflow)
    collected(driver)

    def away(*_: Any, **__: Any) -> Any:
        raise TrackerError("tracker http://there does not respond")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow_run.MlflowRun, "deliver", away)
        patch.setattr(mlflow_outbox, "connect", away)
        for step in (1, 2, 3):
            trained(mlflow, step, step)
            driver.work(list, urgent=True)
            assert not driver.clean
    collected(driver)
    assert sorted(mlflow.read().history(LOSS)) == [(step, step / 3) for step in (1, 2, 3)]
    said = [line for line in caplog.messages if "track" in line]
    assert len(said) == 2
    assert "does not respond" in said[0]
    assert "entries are spooled in" in said[0]
    assert "is back; spooled entries have been delivered" in said[1]


def test_sessions_that_are_delivered_by_turns_read_the_history_once(
    mlflow: MlflowTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = outbox_of(mlflow)
    trained(mlflow, 1, 7)
    collected(driver)
    time.sleep(0.002)
    api, asked = type(client(mlflow.uri)), Counter[str]()
    for name in ("get_run", "get_metric_history"):
        real = getattr(api, name)

        def counted(self: Any, *words: Any, name: str = name, real: Any = real) -> Any:
            asked[name] += 1
            return real(self, *words)

        monkeypatch.setattr(api, name, counted)
    workers = [mlflow.join(), mlflow.join()]
    for step in range(5, 15):
        for worker in workers:
            worker.log_metrics({LOSS: step / 3}, step)
            assert worker.flush()
            collected(driver)
    assert asked["get_metric_history"] <= len(workers)
    assert asked["get_run"] <= len(workers)
    monkeypatch.undo()
    history = mlflow.read().history(LOSS)
    assert sorted({step for step, _ in history}) == list(range(1, 15))
    assert [step for step, _ in history if step < 8] == list(range(1, 8))


def test_the_storage_is_listed_seldom(mlflow: MlflowTwin, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[float] = []
    now = 1000.0
    backlog = Spool.backlog

    def counted(spool: Spool) -> list[str]:
        listed.append(now)
        return backlog(spool)

    monkeypatch.setattr(Spool, "backlog", counted)
    monkeypatch.setattr(mlflow_outbox, "time", SimpleNamespace(monotonic=lambda: now))
    driver = outbox_of(mlflow)
    for second in range(61):
        now = 1000.0 + second
        if second in (20, 24):
            trained(mlflow, second, second)
        driver.work(list, urgent=False)
    pauses = [round(after - before) for before, after in pairwise(listed)]
    assert pauses == [8, 8, 8, 4, 8, 8, 8, 8]


class Failing(MemoryStore):
    """A store that takes nothing while it is ``away``, and hangs while it ``hangs``."""

    def __init__(self) -> None:
        super().__init__("failing")
        self.away = False
        self.answers = threading.Event()
        self.answers.set()

    def put(self, key: str, data: bytes) -> None:
        self.answers.wait()
        if self.away:
            raise StoreError("the disk is full")
        super().put(key, data)


def test_what_the_storage_does_not_take_is_spooled_once_it_does(
    uri: str, soon: None, caplog: pytest.LogCaptureFixture
) -> None:
    store = Failing()
    mlflow = MlflowTwin(uri, store)
    worker = mlflow.join()
    store.away = True
    worker.log_metrics({LOSS: 1.0}, 1)
    assert not worker.flush()
    worker.log_metrics({LOSS: 2.0}, 2)
    assert not worker.flush()
    assert caplog.messages.count("tracking: the disk is full") == 1
    store.away = False
    assert worker.flush()
    store.answers.clear()
    worker.log_metrics({LOSS: 3.0}, 3)
    assert not worker.flush(timeout_s=0.05)
    store.answers.set()
    worker.close()
    assert mlflow.replay() >= 3
    assert sorted(mlflow.read().history(LOSS)) == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_flush_without_anything_new_writes_nothing(mlflow: MlflowTwin, soon: None) -> None:
    worker = mlflow.join()
    assert worker.flush()
    time.sleep(0.05)
    worker.close()
    assert list(mlflow.store.list()) == []

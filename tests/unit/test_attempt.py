"""An attempt ends with one verdict; its log outlives it; evaluations run beside the training."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from colddiff import retry
from colddiff.errors import ColddiffError, DivergedError, SpecError, Stopped, StoreError
from colddiff.jobs import driver
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.job import LimitsSpec
from colddiff.jobs.logs import logged
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.status import Status
from colddiff.retry import Backoff
from colddiff.stores.memory_store import MemoryStore
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.verbs.train.job import TrainJob


@pytest.fixture
def folder() -> JobFolder:
    return JobFolder(MemoryStore(), "train-x-00000000")


def attempt(folder: JobFolder, number: int = 1, gpus: float = 0.0, **fields: Any) -> Attempt:
    """An attempt at a training of nine steps, in ``folder``."""
    job = TrainJob(**{"num_steps": 9, **fields})
    resolved = ResolvedJob(folder.job_id, "x", job, "/nowhere", "", {}, 1.0, {}, {})
    return Attempt(resolved, number, gpus=gpus, folder=folder)


def raising(error: BaseException) -> Any:
    def work() -> dict[str, Any]:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "code", "state", "message"),
    [
        (lambda: {"step": 7}, 0, "done", ""),
        (raising(DivergedError("loss of step 3")), 1, "failed", "loss of step 3"),
        (raising(SpecError("wrong")), 1, "failed", "wrong"),
        (raising(Stopped("asked to")), 4, "stopped", "asked to"),
        (raising(KeyError("x")), 1, "failed", "KeyError: 'x'"),
    ],
)
def test_each_ending_has_its_state_message_and_exit_code(
    folder: JobFolder, work: Any, code: int, state: str, message: str
) -> None:
    assert attempt(folder).drive(work) == code
    status = folder.status()
    assert status
    assert (status.state, status.message, status.attempt) == (state, message, 1)
    assert folder.result() == ({"step": 7} if state == "done" else None)


@pytest.mark.parametrize("error", [RuntimeError("ActorUnschedulableError"), ColddiffError("died")])
def test_an_error_of_a_cluster_that_has_ended_is_no_failure(
    folder: JobFolder, error: Exception
) -> None:
    for number, code, state in ((1, 1, "lost"), (2, 4, "stopped")):
        folder.claim(number, {})
        if state == "stopped":
            folder.request_stop(number, 1.0)
        folder.write_status(Status(attempt=number))
        assert attempt(folder, number).drive(raising(error), lambda: True) == code
        status = folder.status()
        assert status
        assert (status.state, status.settled) == (state, state == "stopped")
        assert status.message.endswith("; submit the same job again to continue")
        assert str(error) not in status.message
    assert attempt(folder, 3).drive(raising(Stopped("asked to")), lambda: True) == 4


def test_it_is_of_who_submitted_it(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ray")
    # By a client, by the driver itself, and by a client of an earlier version.
    for number, claimant in enumerate(({"user": "ann"}, None, {}), start=1):
        if claimant is not None:
            folder.claim(number, claimant)
            folder.write_status(Status("queued", number, user=claimant.get("user", "")))
        attempt(folder, number).drive(dict)
        claim, status = folder.read_claim(number), folder.status()
        assert status
        assert status.user == claim.get("user", "") == ("ann", "ray", "")[number - 1]


def test_an_attempt_is_claimed_once(folder: JobFolder) -> None:
    attempt(folder).drive(dict)
    with pytest.raises(ColddiffError, match=r"attempt 1 of .* has or had another driver"):
        attempt(folder).drive(dict)


def test_a_superseded_attempt_is_not_begun(folder: JobFolder) -> None:
    assert folder.claim(2, {})
    with pytest.raises(ColddiffError, match=r"attempt 1 of .* has or had another driver"):
        attempt(folder).drive(dict)


def test_of_racing_drivers_of_an_unclaimed_attempt_one_runs(folder: JobFolder) -> None:
    gate, ran, codes = threading.Barrier(4), list[int](), list[int]()

    def work() -> dict[str, Any]:
        ran.append(1)
        return {}

    def race() -> None:
        gate.wait()
        with suppress(ColddiffError):
            codes.append(attempt(folder).drive(work))

    racers = [threading.Thread(target=race) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert (ran, codes) == ([1], [0])


def test_an_interrupt_ends_the_attempt_as_stopped_and_is_raised(folder: JobFolder) -> None:
    with pytest.raises(KeyboardInterrupt):
        attempt(folder).drive(raising(KeyboardInterrupt()))
    status = folder.status()
    assert status
    assert (status.state, status.message) == (
        "stopped", "interrupted; submit the same job again to continue",
    )  # fmt: skip


def test_rank_zeros_progress_reaches_the_status(folder: JobFolder) -> None:
    def work() -> dict[str, Any]:
        folder.write_progress(1, {"step": 5, "loss": 0.25, "images_per_s": 80.0})
        return {}

    attempt(folder).drive(work)
    status = folder.status()
    assert status
    assert (status.step, status.loss, status.num_steps) == (5, 0.25, 9)


def test_the_step_of_a_finished_attempt_is_exact(folder: JobFolder) -> None:
    def work() -> dict[str, Any]:
        folder.write_progress(1, {"step": 5})
        folder.write_outcome(1, {"step": 8, "stopped": True})
        raise Stopped("asked to")

    attempt(folder).drive(work)
    status = folder.status()
    assert status
    assert status.step == 8


def test_time_and_gpu_hours_add_up_over_attempts(folder: JobFolder) -> None:
    found = []
    for number in (1, 2):
        attempt(folder, number, gpus=2).drive(dict)
        status = folder.status()
        assert status
        assert status.gpu_hours == pytest.approx(2 * status.running_s / 3600)
        found.append(status)
    first, second = found
    assert second.running_s > first.running_s
    assert first.started is not None
    assert second.started == first.started


def test_a_reached_limit_asks_for_a_stop_and_names_itself(folder: JobFolder) -> None:
    asked = threading.Event()

    def work() -> dict[str, Any]:
        while not folder.stop_requested(1):
            asked.wait(0.05)
        raise Stopped("stopped after step 3")

    assert attempt(folder, limits=LimitsSpec(hours=1e-9)).drive(work) == 4
    status = folder.status()
    assert status
    assert status.message == (
        "limits.hours=1e-09 reached: stopped after step 3; submit the same job with a larger "
        "limits.hours to continue"
    )


def test_a_job_that_has_spent_its_limit_stops_before_its_first_heartbeat(
    folder: JobFolder,
) -> None:
    folder.write_status(Status(state="stopped", attempt=0, running_s=7200.0))
    asked: list[bool] = []

    def work() -> dict[str, Any]:
        asked.append(begun.stop_requested())
        raise Stopped("stopped after step 3")

    begun = attempt(folder, limits=LimitsSpec(hours=1.5))
    assert begun.drive(work) == 4
    assert asked == [True]


def test_a_driver_presumed_dead_leaves_its_successors_status_alone(folder: JobFolder) -> None:
    def work() -> dict[str, Any]:
        folder.claim(2, {})
        folder.write_status(Status(state="running", attempt=2, step=7))
        return {}

    attempt(folder).drive(work)
    status = folder.status()
    assert status
    assert (status.attempt, status.state, status.step) == (2, "running", 7)


class Away(MemoryStore):
    """A store that refuses the next ``refused`` writes of verdicts and results."""

    refused = 0

    def put(self, key: str, data: bytes) -> None:
        if self.refused and (key.endswith("result.json") or b'"done"' in data):
            self.refused -= 1
            raise StoreError("away")
        super().put(key, data)


def test_a_verdict_waits_for_a_store_that_is_away() -> None:
    store = Away()
    folder = JobFolder(store, "train-x-00000000")
    store.refused = 2
    assert attempt(folder).drive(lambda: {"step": 1}) == 0
    status = folder.status()
    assert status
    assert (status.state, folder.result()) == ("done", {"step": 1})
    assert store.refused == 0


def test_work_outlives_an_outage_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "SERVICE", Backoff(0.0, 0.0))
    away: list[str] = []
    refused: list[str] = []

    class Away(MemoryStore):
        def asked(self, key: str) -> None:
            if away and not key.endswith("status.json"):
                refused.append(key.rpartition("/")[2])
                if len(refused) == 6:
                    away.clear()
                raise StoreError(f"{key}: nobody answers")

        def put(self, key: str, data: bytes) -> None:
            self.asked(key)
            super().put(key, data)

        def size(self, key: str) -> int | None:
            self.asked(key)
            return super().size(key)

    folder = JobFolder(Away(), "train-x-00000000")
    tried = attempt(folder)

    def work() -> dict[str, Any]:
        monkeypatch.setattr(tried, "_update", lambda: None)  # no heartbeat in between
        away.append("now")
        tried.progress(step=5, num_steps=9)
        assert not tried.stop_requested()
        tried.reached(7)
        return {"step": 7}

    assert tried.drive(work) == 0
    assert refused == ["progress.json", "stop.json", *["outcome.json"] * 4]
    assert folder.outcome(1) == {"step": 7}


def test_who_sees_that_a_job_has_ended_finds_its_log_whole(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {"summary": lambda _: ["a table"], "score": lambda _: None}
    verb = SimpleNamespace(prepare=lambda _: None, run=lambda *_, **__: {}, unit="steps", **told)
    monkeypatch.setattr(driver, "VERBS", {"train": verb})
    monkeypatch.setattr(driver, "open_tracker", lambda _, **how: MemoryTracker())
    monkeypatch.setattr(driver, "describe_run", lambda *_: None)
    seen: list[tuple[str, str]] = []
    write = JobFolder.write_status

    def seeing(self: JobFolder, status: Status) -> None:
        seen.append((status.state, self.log(1).decode()))
        write(self, status)

    monkeypatch.setattr(JobFolder, "write_status", seeing)
    with logged(lambda text: folder.write_log(1, text)) as flush:
        begun = attempt(folder, tracking={"images": False})
        assert driver.drive(begun, on_ray=False, flush=flush) == 0
    state, log = seen[-1]
    assert state == "done"
    assert f"{folder.job_id} is done (0 of 9 steps)" in log
    assert "a table" in log
    assert log == folder.log(1).decode()


class InterruptedRun(MemoryTracker):
    """A tracker during whose first entry the user interrupts."""

    def log_params(self, params: Mapping[str, str]) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_just_after_the_run_was_opened_ends_the_run(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = InterruptedRun()
    verb = SimpleNamespace(prepare=lambda _: None, unit="steps")
    monkeypatch.setattr(driver, "VERBS", {"train": verb})
    monkeypatch.setattr(driver, "open_tracker", lambda _, **how: tracker)
    with pytest.raises(KeyboardInterrupt):
        driver.drive(attempt(folder), on_ray=False)
    assert tracker.run.status == "KILLED"


def test_sigterm_is_logged_without_a_promise_of_a_checkpoint(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An evaluation takes none."""
    caplog.set_level(logging.INFO, "colddiff")

    def terminated(started: Attempt, *_: object, **__: object) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        while not started.stop_requested():
            time.sleep(0.01)
        raise Stopped("asked to")

    verb = SimpleNamespace(prepare=terminated, unit="images")
    monkeypatch.setattr(driver, "VERBS", {"train": verb})
    assert driver.drive(attempt(folder), on_ray=False) == 4
    assert [line for line in caplog.messages if "SIGTERM" in line] == ["SIGTERM: stopping"]


@pytest.mark.parametrize("ending", [ColddiffError("superseded"), Stopped("asked to"), None])
def test_a_superseded_attempt_leaves_the_run_to_its_successor(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch, ending: Exception | None
) -> None:
    tracker = MemoryTracker()

    def run(started: Attempt, *_: object, **__: object) -> dict[str, Any]:
        started.tracker.log_metrics({"train/loss_l1": 0.5}, 1)
        folder.claim(2, {})
        if ending is not None:
            raise ending
        return {}

    told: dict[str, Any] = {"summary": lambda _: [], "score": lambda _: None}
    verb = SimpleNamespace(prepare=lambda _: None, run=run, unit="steps", **told)
    monkeypatch.setattr(driver, "VERBS", {"train": verb})
    monkeypatch.setattr(driver, "open_tracker", lambda _, **how: tracker)
    monkeypatch.setattr(driver, "describe_run", lambda *_: None)
    driver.drive(attempt(folder), on_ray=False)
    assert tracker.run.status == "RUNNING"
    assert tracker.run.history("train/loss_l1") == [(1, 0.5)]
    tracker.log_metrics({"train/loss_l1": 0.25}, 2)  # its session has ended
    assert len(tracker.run.metrics) == 1


def test_a_result_that_cannot_be_summarised_is_kept(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def summary(result: Mapping[str, Any]) -> list[str]:
        return [str(result["sheep"])]

    told: dict[str, Any] = {"summary": summary, "score": lambda _: None}
    verb = SimpleNamespace(prepare=lambda _: None, run=lambda *_, **__: {}, unit="steps", **told)
    monkeypatch.setattr(driver, "VERBS", {"train": verb})
    monkeypatch.setattr(driver, "open_tracker", lambda _, **how: MemoryTracker())
    monkeypatch.setattr(driver, "describe_run", lambda *_: None)
    assert driver.drive(attempt(folder), on_ray=False) == 0
    assert "the result cannot be summarised: KeyError: 'sheep'" in caplog.messages
    assert folder.result()

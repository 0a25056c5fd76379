"""A job that waits for machines says so; the time is no running time, and has a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from colddiff.errors import Stopped
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.job import LimitsSpec
from colddiff.jobs.status import AGAIN, note_of, progress_line, spent_line
from colddiff.stores.memory_store import MemoryStore
from tests.unit.test_attempt import attempt


@pytest.fixture
def folder() -> JobFolder:
    return JobFolder(MemoryStore(), "train-x-00000000")


@dataclass
class Clock:
    """The clock of attempts, which goes on only where a test says so; nothing beats meanwhile."""

    now: float = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("colddiff.jobs.attempt.HEARTBEAT_S", 1e6)
    monkeypatch.setattr("colddiff.jobs.attempt.time", clock)
    return clock


def test_waiting_counts_neither_as_running_nor_as_gpu_hours_and_has_a_limit(
    folder: JobFolder, clock: Clock
) -> None:
    waits = attempt(folder, gpus=2, limits=LimitsSpec(queue_hours=0.5))
    line = "for 2 workers with 1 GPU; the cluster has 0 GPU"

    def work() -> dict[str, Any]:
        for what in ("", line, line):
            assert not waits.stop_requested()
            waits.waiting(what)
            clock.now += 1800.0 if what else 3600.0
            waits._update()
            if waits.stop_requested():
                break
        now = folder.status()
        assert now
        assert progress_line(now) == f"waiting     0/9  0%  {line}"
        assert note_of(now) == line
        raise Stopped("stopped while it waited")

    assert waits.drive(work) == 4
    status = folder.status()
    assert status
    assert (status.state, status.message) == (
        "stopped", f"limits.queue_hours=0.5 reached: stopped while it waited; {AGAIN}",
    )  # fmt: skip
    assert (status.running_s, status.waiting_s, status.gpu_hours) == (3600.0, 1800.0, 2.0)
    assert spent_line(status) == "1:00:00 of running, 0:30:00 of waiting, 2 GPU hours"


def test_gpu_hours_count_while_workers_hold_gpus(folder: JobFolder, clock: Clock) -> None:
    holds = attempt(folder)

    def work() -> dict[str, Any]:
        for count in (0.0, 3.0, 0.0):
            holds.hold_gpus(count)
            clock.now += 3600.0
            holds._update()
        return {}

    holds.drive(work)
    assert (holds.status.running_s, holds.status.gpu_hours) == (3 * 3600.0, 3.0)


def test_a_phase_tells_how_far_it_is(folder: JobFolder) -> None:
    def work() -> dict[str, Any]:
        folder.write_progress(1, {"step": 9, "num_steps": 9, "eta_s": 0.0})
        evaluates.phase("evaluating", "64/256 images", 30.0)
        evaluates._update()
        return {}

    evaluates = attempt(folder)
    evaluates.drive(lambda: work() | {"line": progress_line(evaluates.status)})
    assert (folder.result() or {})["line"] == ("evaluating  9/9  100%  64/256 images  ETA 0:00:30")

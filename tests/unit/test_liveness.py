"""Whether an attempt lives: its cluster, its process, or a heartbeat that changes while watched."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from colddiff.cluster import operate
from colddiff.cluster.logs import stream_log
from colddiff.errors import ClusterError, RecordError
from colddiff.jobs import follow as following
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.follow import AttemptWatch, follow
from colddiff.jobs.in_process import InProcess
from colddiff.jobs.runner import DriverState
from colddiff.jobs.status import Status
from colddiff.jobs.submit import _running_attempt
from colddiff.stores.local_store import LocalStore
from tests.meanwhile import meanwhile

FOREIGN = {"host": "another-machine", "pid": 7}
RUNNING = Status(
    "running", attempt=1, step=3, num_steps=9, heartbeat=1.0, host="another-machine", pid=7
)
LOST_S = 1.2  # a dozen beats: threads of a loaded machine may be late
# Minutes and years ahead and behind, as the clock of the driver's machine may be.
SKEWS = [-3e7, -300.0, 300.0, 3e7]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobFolder:
    monkeypatch.setenv("COLDDIFF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(following, "LOST_AFTER_S", LOST_S)
    monkeypatch.setattr(following, "poll_seconds", lambda folder: 0.05)
    monkeypatch.setattr(following, "FILE_S", 0.05)
    monkeypatch.setattr(operate, "poll_seconds", lambda folder: 0.05)
    monkeypatch.setattr("colddiff.jobs.submit.poll_seconds", lambda folder: 0.05)
    monkeypatch.setattr(operate, "ASK_S", 0.2)
    made = JobFolder(LocalStore(tmp_path / "s"), "train-a-0")
    made.write_job({"id": "train-a-0", "verb": "train", "spec": {}})
    made.claim(1, FOREIGN)
    return made


class Known(InProcess):
    """A cluster that says of every attempt that its driver is in ``state``."""

    outlives_client = True

    def __init__(self, state: DriverState | None) -> None:
        self.state = state
        self.stopped: list[int] = []

    def find(self, folder: JobFolder, attempt: int) -> DriverState | None:
        return self.state

    def stop(self, folder: JobFolder, attempt: int) -> None:
        self.stopped.append(attempt)


@contextmanager
def beating(folder: JobFolder, skew_s: float) -> Iterator[None]:
    """A driver whose machine's clock is ``skew_s`` ahead of this one's."""

    def beat() -> None:
        folder.write_status(replace(RUNNING, heartbeat=time.time() + skew_s))

    beat()
    with meanwhile(beat, every_s=0.1):
        yield


def no_show(status: Status) -> None:
    """Nobody looks."""


@pytest.mark.parametrize("skew_s", SKEWS)
def test_a_driver_that_beats_lives_whatever_its_clock_says(
    folder: JobFolder, skew_s: float
) -> None:
    runner = Known(None)
    with beating(folder, skew_s):
        shown = operate.current(folder, None)
        assert shown is not None
        assert shown.state == "running"
        assert _running_attempt(folder, shown, 1, runner, no_show) == 1
        threading.Timer(2 * LOST_S, lambda: folder.claim(2, FOREIGN)).start()
        watch, until = AttemptWatch(folder, 1, None), time.monotonic() + 2 * LOST_S
        while time.monotonic() < until:
            assert not watch.look().ended
            time.sleep(0.05)
    assert runner.stopped == []


def test_who_follows_the_log_of_a_driver_that_died_is_told(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("colddiff.cluster.logs.poll_seconds", lambda folder: 0.05)
    folder.write_status(RUNNING)
    folder.write_log(1, b"step 3\n")
    assert b"".join(stream_log(folder, 1, None)) == b"step 3\n"
    assert "train-a-0 ended: lost (3 of 9 steps)" in caplog.text


@pytest.mark.parametrize("skew_s", SKEWS)
def test_a_driver_that_died_is_lost_after_the_same_time_whatever_its_clock_said(
    folder: JobFolder, skew_s: float
) -> None:
    dead = replace(RUNNING, heartbeat=time.time() + skew_s)
    for verdict in (
        lambda: follow(folder, 1, None, no_show).state,
        lambda: follow(folder, 1, Known(None), no_show).state,
        lambda: getattr(operate.current(folder, None), "state", None),
        lambda: "lost" if _running_attempt(folder, dead, 1, Known(None), no_show) is None else "",
    ):
        folder.write_status(dead)
        began = time.monotonic()
        assert verdict() == "lost"
        assert LOST_S <= time.monotonic() - began < 10 * LOST_S
        # Written, so that the next command does not watch again.
        lost = folder.status()
        assert lost is not None
        assert (lost.state, lost.step) == ("lost", 3)
        assert "submit the same job again" in lost.message


def test_a_written_loss_is_taken_back_by_a_driver_that_lives(folder: JobFolder) -> None:
    folder.write_status(replace(RUNNING, state="lost"))
    with beating(folder, 0.0):
        shown = operate.current(folder, None)
        assert shown is not None
        assert shown.state == "running"


def test_a_cluster_that_knows_the_driver_is_believed(folder: JobFolder) -> None:
    folder.write_status(RUNNING)
    watch = AttemptWatch(folder, 1, Known(DriverState(ended=False)))
    assert not watch.look().ended
    time.sleep(1.5 * LOST_S)
    seen = watch.look()
    assert (seen.ended, seen.alive, seen.hangs) == (False, True, True)
    killed = DriverState(ended=True, ending="killed", detail="signal 9")
    seen = AttemptWatch(folder, 1, Known(killed)).look()
    assert (seen.judged, seen.status.state) == (True, "lost")
    assert "signal 9" in seen.status.message


def test_a_driver_that_runs_without_a_heartbeat_is_ended_before_the_next_attempt(
    folder: JobFolder,
) -> None:
    folder.write_status(RUNNING)
    runner = Known(DriverState(ended=False))
    assert _running_attempt(folder, RUNNING, 1, runner, no_show) is None
    assert runner.stopped == [1]


def test_a_dashboard_that_is_away_leaves_it_to_the_heartbeat(folder: JobFolder) -> None:
    class Away(Known):
        def find(self, folder: JobFolder, attempt: int) -> DriverState | None:
            raise ClusterError("does not respond")

    with beating(folder, 0.0):
        watch, until = AttemptWatch(folder, 1, Away(None)), time.monotonic() + 2 * LOST_S
        while time.monotonic() < until:
            assert not watch.look().ended
            time.sleep(0.05)
    assert follow(folder, 1, Away(None), no_show).state == "lost"


def test_a_claim_without_a_status_is_waited_for_by_this_machines_clock(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "SUBMIT_S", LOST_S)
    began = time.monotonic()
    # Its time, hours ago or ahead, says nothing.
    assert _running_attempt(folder, None, 1, InProcess(), no_show) is None
    assert LOST_S <= time.monotonic() - began < 10 * LOST_S


def test_list_watches_all_jobs_at_once_and_a_damaged_one_hides_no_other(
    folder: JobFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [JobFolder(folder.store, f"train-a-{number}") for number in range(8)]
    for other in folders:
        other.write_job({"id": other.job_id})
        other.claim(1, FOREIGN)
        other.write_status(RUNNING)
    folders[3].store.put(folders[3].key("status.json"), b"{")
    began = time.monotonic()
    found = operate.all_current(folders, None)
    assert time.monotonic() - began < 4 * LOST_S
    assert isinstance(found.pop(3), RecordError)
    assert [getattr(status, "state", None) for status in found] == ["lost"] * 7


def test_the_cluster_of_a_queued_job_is_asked_at_once(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It has no heartbeat to watch, and a list of jobs waits for no longer than it must.
    monkeypatch.setattr(operate, "ASK_S", 1e9)
    alive = Known(DriverState(ended=False, ending=""))
    monkeypatch.setattr("colddiff.cluster.connect.jobs_of", lambda folder, address: alive)
    folder.write_status(Status("queued", attempt=1))
    (found,) = operate.all_current([folder], None)
    assert isinstance(found, Status)
    assert found.state == "queued"


def test_a_dashboard_that_hangs_does_not_hold_up_the_following(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()

    class Hangs(Known):
        def find(self, folder: JobFolder, attempt: int) -> DriverState | None:
            release.wait()
            return self.state

    monkeypatch.setattr(following, "ANSWER_S", 0.05)
    monkeypatch.setattr(following, "PROBE_S", 0.0)
    monkeypatch.setattr(following, "SAY_S", 0.1)
    watch = AttemptWatch(folder, 1, Hangs(DriverState(ended=True, ending="killed")))
    with beating(folder, 0.0):
        steps: list[int] = []
        while len(steps) < 3 or "does not answer" not in caplog.text:
            seen = watch.look()
            assert not seen.ended
            steps += [seen.status.step] * seen.beats
            time.sleep(0.05)
        assert "following the job through its storage" in caplog.text
        release.set()
        while not (seen := watch.look()).ended:
            time.sleep(0.05)
    assert seen.status.state == "lost"

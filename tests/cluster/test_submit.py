"""The idempotent submit, on a real cluster, with a driver of a few lines."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from colddiff.cluster import operate
from colddiff.cluster.logs import read_log
from colddiff.cluster.ray_jobs import RayJobs
from colddiff.cluster.stage import staged
from colddiff.errors import ColddiffError
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.runner import DriverState
from colddiff.jobs.status import Status
from colddiff.jobs.submit import Submission, bring_to_end
from colddiff.stores.local_store import LocalStore
from colddiff.verbs.train.job import TrainJob
from tests import in_process
from tests.cluster.conftest import RunningCluster
from tests.in_process import Done
from tests.kills import PATIENCE_S

pytestmark = pytest.mark.cluster
NEVER_S = 1e9
"""Of watching a heartbeat, in tests where a job is lost for another reason."""
COLDDIFF = (sys.executable, "-m", "colddiff.cli.main")

DRIVER = """
import json, os, signal, sys, time
import ray, torch
from colddiff.checkpoints.format import Checkpoints, Snapshot
from colddiff.cluster.waiting import await_workers
from colddiff.errors import Stopped
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.resolve import ResolvedJob
from pathlib import Path

resolved = ResolvedJob.from_dict(json.loads(Path(sys.argv[1]).read_text()))
attempt = Attempt(resolved, int(sys.argv[3]))
steps = resolved.job.num_steps
behaviour = (Path(resolved.storage) / "behaviour").read_text()
print("first words")
if behaviour == "crash":
    print("the last straw")
    sys.exit(3)

def work():
    if behaviour == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "hungry":
        ray.init(log_to_driver=False)
        await_workers(attempt, resolved.job)
    while behaviour == "deaf":
        time.sleep(0.1)
    while behaviour == "wait" and not attempt.stop_requested():
        time.sleep(0.1)
    attempt.progress(step=steps, num_steps=steps, loss=0.5)
    if behaviour == "wait":
        raise Stopped("with a checkpoint")
    state = {"job": resolved.job.to_dict()}
    snapshot = Snapshot(steps, {"model": {"w": torch.zeros(1)}}, state)
    Checkpoints(attempt.folder.store, attempt.folder.key("checkpoints")).save(snapshot)
    return {"step": steps}

sys.exit(attempt.drive(work))
"""


@contextmanager
def stage(resolved: ResolvedJob) -> Iterator[Path]:
    """The real staged folder, but for its driver: the one above."""
    with staged(resolved) as folder:
        (folder / "colddiff" / "cluster" / "driver.py").write_text(DRIVER)
        yield folder


@pytest.fixture(scope="module")
def jobs(cluster: RunningCluster) -> RayJobs:
    return RayJobs(cluster.cluster, stage)


@pytest.fixture(autouse=True)
def _home(cluster: RunningCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDDIFF_HOME", str(cluster.home.path))


def no_show(status: Status) -> None:
    """Nobody looks."""


class Case:
    """A job in a storage of its own, and what its driver is to do."""

    def __init__(self, place: Path, jobs: RayJobs) -> None:
        self.place, self.jobs = place, jobs
        self.announced: list[str] = []
        name = f"train-{place.name}"[:60]
        self.resolved = ResolvedJob(
            id=name,
            slug="case",
            job=TrainJob(data="nowhere", num_steps=5),
            storage=str(place),
            tracking_uri="",
            content={},
            created=time.time(),
            versions={},
            git={},
        )
        self.folder = JobFolder(LocalStore(place), name)

    def submit(
        self, behaviour: str, *, detach: bool = False, num_steps: int = 5, **fields: Any
    ) -> Submission:
        (self.place / "behaviour").write_text(behaviour)
        job = TrainJob(data="nowhere", num_steps=num_steps, **fields)
        return bring_to_end(
            replace(self.resolved, job=job),
            self.jobs,
            detach=detach,
            announce=self.announced.append,
        )

    def until(self, holds: Callable[[Status], bool]) -> Status:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            status = self.folder.status()
            if status is not None and holds(status):
                return status
            time.sleep(0.1)
        raise AssertionError(f"still {self.folder.status()}")


@pytest.fixture
def case(tmp_path: Path, jobs: RayJobs) -> Case:
    return Case(tmp_path, jobs)


def test_a_job_without_room_says_what_it_waits_for_and_ends_at_its_limit(case: Case) -> None:
    limits = {"queue_hours": 4 / 3600}
    case.submit("hungry", detach=True, resources={"gpus": 1}, limits=limits)
    waiting = case.until(lambda status: status.phase == "waiting")
    asked = "for 1 worker with 1 GPU and 1 CPU"
    assert waiting.detail.startswith(f"{asked}; the cluster has ")
    assert "0 GPU (0 free)" in waiting.detail
    assert waiting.detail.endswith("it cannot fit until machines are added")
    ended = case.submit("hungry", resources={"gpus": 1}, limits=limits)
    assert (ended.exit_code, ended.state) == (4, "stopped")
    assert (
        f"limits.queue_hours=0.00111111 reached: stopped while it waited {asked};" in ended.message
    )
    # There was room at once for what the cluster has.
    assert case.submit("hungry", resources={"cpus": 1}).exit_code == 0


def test_done_is_done_until_more_is_asked_for(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "colddiff")
    first = case.submit("finish")
    assert (first.state, first.exit_code, first.attempt) == ("done", 0, 1)
    assert first.result is not None
    assert json.loads(Path(first.result).read_text()) == {"step": 5}
    again = case.submit("finish")
    assert (again.state, again.exit_code, again.attempt) == ("done", 0, 1)
    assert "is done (5 of 5 steps)" in caplog.text
    more = case.submit("finish", num_steps=9)
    assert (more.state, more.attempt) == ("done", 2)
    assert case.announced == [case.resolved.id] * 3
    assert case.folder.job()["spec"]["num_steps"] == 9


def test_a_second_submit_attaches_and_stop_ends_both_with_a_checkpoint(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "colddiff")
    assert case.submit("wait", detach=True).exit_code == 0
    case.until(lambda status: status.state == "running")
    ends: list[Submission] = []
    follower = threading.Thread(target=lambda: ends.append(case.submit("wait", num_steps=7)))
    follower.start()
    time.sleep(1.5)
    ended = operate.stop(operate.find_job(case.resolved.id, str(case.place)), None, 30, no_show)
    follower.join(timeout=PATIENCE_S)
    assert ended is not None
    assert (ended.state, ended.message) == ("stopped", "with a checkpoint")
    assert [(end.state, end.exit_code, end.attempt) for end in ends] == [("stopped", 4, 1)]
    assert "num_steps: different in the running attempt" in caplog.text
    assert case.submit("finish").attempt == 2


def test_the_same_job_in_two_storages_is_two_jobs(
    case: Case, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two people with folders of their own submit one recipe to one cluster."""
    other = Case(tmp_path_factory.mktemp("other"), case.jobs)
    other.resolved = replace(case.resolved, storage=str(other.place))
    other.folder = JobFolder(LocalStore(other.place), case.resolved.id)
    case.submit("wait", detach=True)
    case.until(lambda status: status.state == "running")
    done = other.submit("finish")
    assert (done.state, done.attempt, done.folder) == ("done", 1, other.folder.uri)
    other.submit("wait", num_steps=9, detach=True)
    other.until(lambda status: status.state == "running")
    assert case.submit("wait", detach=True).attempt == 1
    ended = operate.stop(other.folder, None, 30, no_show)
    assert ended is not None
    assert (ended.state, ended.attempt) == ("stopped", 2)
    status = case.folder.status()
    assert status is not None
    assert (status.state, status.attempt) == ("running", 1)
    assert case.jobs.find(case.folder, 1) == DriverState(ended=False)
    operate.stop(case.folder, None, 30, no_show)
    # What an earlier version claimed is known by its own name.
    assert case.folder.claim(7, {"address": case.jobs.cluster.address})
    assert case.jobs._name(case.folder, 7) == f"{case.resolved.id}-7"


def test_two_submits_at_once_are_one_attempt(case: Case) -> None:
    ends: list[Submission] = []
    racers = [threading.Thread(target=lambda: ends.append(case.submit("finish"))) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=PATIENCE_S)
    assert [(end.state, end.exit_code) for end in ends] == [("done", 0)] * 3
    assert case.folder.attempts() == [1]


def test_a_driver_that_crashed_has_failed_with_its_last_words(case: Case) -> None:
    crashed = case.submit("crash")
    assert (crashed.state, crashed.exit_code) == ("failed", 1)
    assert "exit code 3" in crashed.message
    assert "the last straw" in crashed.message
    assert b"first words" in case.folder.log(1)
    assert case.submit("finish").attempt == 2


def test_a_driver_that_was_killed_is_lost_at_once(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colddiff.jobs.follow.LOST_AFTER_S", NEVER_S)
    killed = case.submit("die")
    assert (killed.state, killed.exit_code) == ("lost", 1)
    assert "signal 9" in killed.message
    assert case.submit("finish").state == "done"


def test_stop_ends_a_deaf_driver_by_force(case: Case) -> None:
    case.submit("deaf", detach=True)
    case.until(lambda status: status.state == "running")
    ended = operate.stop(case.folder, None, 1, no_show)
    assert ended is not None
    assert ended.state == "stopped"
    assert case.folder.status() == ended
    with pytest.raises(ColddiffError, match="no attempt 7"):
        read_log(case.folder, 7, None)


def test_interrupting_wait_leaves_the_job_running(
    case: Case, cluster: RunningCluster, colddiff_here: Callable[..., Done]
) -> None:
    case.submit("wait", detach=True)
    case.until(lambda status: status.state == "running")
    env = {**cluster.env, "COLDDIFF_STORAGE": str(case.place)}
    waiter = subprocess.Popen(
        [*COLDDIFF, "wait", case.resolved.id, "--json"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiter.stderr is not None
    while "running" not in (line := waiter.stderr.readline()) and "starting" not in line:
        assert waiter.poll() is None
    waiter.send_signal(signal.SIGINT)
    out, err = waiter.communicate(timeout=PATIENCE_S)
    assert waiter.returncode == 130
    assert "the job continues" in err
    assert json.loads(out)["state"] == "running"
    where = {"COLDDIFF_STORAGE": str(case.place)}
    stopped = colddiff_here("stop", case.resolved.id, **where)
    assert stopped.returncode == 0, stopped.stderr
    assert colddiff_here("wait", case.resolved.id, **where).returncode == 4
    assert "first words" in colddiff_here("logs", case.resolved.id, **where).stdout


def test_delete_wants_an_ended_job_and_takes_all_of_it(case: Case) -> None:
    case.submit("wait", detach=True)
    with pytest.raises(ColddiffError, match="colddiff stop"):
        operate.delete(case.folder)
    operate.stop(case.folder, None, 30, no_show)
    assert operate.delete(case.folder) > 3
    assert not list(case.folder.store.list("jobs/"))
    with pytest.raises(ColddiffError, match="no job"):
        operate.find_job(case.resolved.id, str(case.place))
    # Its numbers start again; the cluster still remembers an attempt 1 of that name.
    assert case.submit("finish").state == "done"


def test_what_is_staged_is_ours_alone_and_equal_each_time(case: Case) -> None:
    secret = case.place / "plugin.py"
    secret.write_text("x = 1\n")
    resolved = replace(
        case.resolved, job=TrainJob(data="nowhere", num_steps=5, plugins=(str(secret),))
    )
    trees = []
    for _ in range(2):
        with staged(resolved) as folder:
            assert oct(folder.stat().st_mode)[-3:] == "700"
            trees.append(
                {
                    str(path.relative_to(folder)): path.read_bytes()
                    for path in folder.rglob("*")
                    if path.is_file()
                }
            )
        assert not folder.exists()
    assert trees[0] == trees[1]
    assert {name.split("/")[0] for name in trees[0]} == {"colddiff", "plugins", "job.json"}
    assert not [name for name in trees[0] if "__pycache__" in name]
    (plugin,) = json.loads(trees[0]["job.json"])["spec"]["plugins"]
    assert trees[0][plugin] == b"x = 1\n"


def test_a_cluster_of_others_wants_its_token_and_a_storage_it_can_see(
    cluster: RunningCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in [name for name in os.environ if name.startswith(("COLDDIFF_", "RAY_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLDDIFF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path / "runs"))

    def submit(**more: str) -> Done:
        words = ("submit", "train", "quickstart", "--address", cluster.address)
        env = {"RAY_AUTH_TOKEN_PATH": "/nonexistent", **more}
        return in_process.colddiff_here(monkeypatch, capsys, *words, **env)

    stranger = submit()
    assert (stranger.returncode, stranger.stdout) == (3, "")
    assert "requires a token" in stranger.stderr
    guest = submit(RAY_AUTH_TOKEN_PATH=str(cluster.home.token_path))
    assert (guest.returncode, guest.stdout) == (2, "")
    assert "--shared-path" in guest.stderr
    assert not (tmp_path / "runs").exists()

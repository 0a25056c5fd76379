"""Submitting a job again, whatever became of the attempt before: dead, queued, superseded."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import colddiff
from colddiff.errors import ColddiffError
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.follow import FOREIGN_SUBMIT_S, SUBMIT_S, submit_seconds
from colddiff.jobs.in_process import InProcess, run
from colddiff.jobs.resolve import ResolvedJob, record_job, resolve
from colddiff.jobs.status import Status
from colddiff.jobs.submit import bring_to_end, running_where
from colddiff.spec import parse
from colddiff.verbs.generate.job import GenerateJob
from tests.unit.generation.trained import train_tiny

ELSEWHERE = {"address": "http://192.0.2.1:8265", "local": False}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tracker_database: Path) -> dict[str, str]:
    return train_tiny(tmp_path_factory.mktemp("trained"), tracker_database)


@pytest.fixture
def resolved(
    trained: dict[str, str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> ResolvedJob:
    """A generation of three images that has not been submitted, of an id of its own."""
    monkeypatch.setenv("COLDDIFF_STORAGE", trained["storage"])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first = sum(request.node.name.encode())
    fields = {"checkpoint": trained["job"], "num_samples": 3, "first_seed": first}
    return resolve(parse(GenerateJob, fields, "generate"), "again")


def dead_process() -> dict[str, Any]:
    """A claimant on this machine that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return {"host": os.uname().nodename, "pid": ended.pid}


class Cluster(InProcess):
    """A runner that outlives its client, and whose start does ``then``."""

    outlives_client = True

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then

    def start(self, resolved: ResolvedJob, attempt: int, accepted: Callable[[], None]) -> None:
        self._then()
        accepted()


class Here(Cluster):
    outlives_client = False


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_claimant_that_died_before_its_status_costs_no_wait(resolved: ResolvedJob) -> None:
    resolved.folder.claim(1, dead_process())
    began = time.monotonic()
    ended = bring_to_end(resolved, InProcess())
    assert (ended.state, ended.attempt) == ("done", 2)
    assert time.monotonic() - began < SUBMIT_S


@pytest.mark.parametrize("runner", [Here(interrupt), Cluster(interrupt)])
def test_an_interrupt_before_the_start_ends_the_attempt(
    resolved: ResolvedJob, runner: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "colddiff")
    ended = bring_to_end(resolved, runner)
    assert (ended.exit_code, ended.state) == (130, "stopped")
    assert "interrupted before it was started" in caplog.text
    assert "continues" not in caplog.text
    assert "submitted to" not in caplog.text
    with pytest.raises(ColddiffError, match="another driver"):
        # The cluster may have accepted it all the same.
        Attempt(resolved, 1).drive(dict)
    again = bring_to_end(resolved, InProcess())
    assert (again.state, again.attempt) == ("done", 2)


def test_an_interrupt_while_it_attaches_says_how_to_go_on(
    resolved: ResolvedJob, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the first look at a heartbeat, with and without a status of the other client."""
    caplog.set_level("INFO", "colddiff")
    resolved.folder.claim(1, ELSEWHERE)
    running = Status(state="running", attempt=1, heartbeat=1.0, host="elsewhere", pid=1)
    for status in (None, running):
        caplog.clear()
        if status is not None:
            resolved.folder.write_status(status)
        ended = bring_to_end(resolved, InProcess(), show=lambda status: interrupt())
        assert ended.exit_code == 130
        (line,) = caplog.messages
        assert line.startswith("interrupted; the job continues: `colddiff logs")
        assert f"`colddiff stop {resolved.id}` ends it" in line
    assert resolved.folder.attempts() == [1]


def test_an_attempt_that_was_superseded_is_not_a_success(resolved: ResolvedJob) -> None:
    def another_client() -> None:
        resolved.folder.claim(2, ELSEWHERE)
        resolved.folder.write_status(Status(state="queued", attempt=2, heartbeat=time.time()))

    ended = bring_to_end(resolved, Here(another_client))
    assert (ended.exit_code, ended.attempt) == (1, 2)
    assert "attempt 1 of" in ended.message
    assert "superseded by attempt 2, which is queued" in ended.message


def test_what_another_cluster_has_queued_is_followed_and_not_called_lost(
    resolved: ResolvedJob,
) -> None:
    folder = resolved.folder
    folder.claim(1, {**ELSEWHERE, **dead_process()})
    queued = Status(state="queued", attempt=1, num_steps=3, heartbeat=time.time() - 2 * SUBMIT_S)
    folder.write_status(queued)
    assert submit_seconds(folder, 1, InProcess()) == FOREIGN_SUBMIT_S

    def starts_at_last(status: Status) -> None:
        assert status.state == "queued"
        folder.write_status(replace(status, state="done", step=3))

    ended = bring_to_end(resolved, InProcess(), show=starts_at_last)
    assert (ended.state, ended.attempt, folder.attempts()) == ("done", 1, [1])


@pytest.mark.parametrize(("pid", "begins"), [(0, True), (7, False)])
def test_a_driver_begins_though_a_client_gave_it_up(
    resolved: ResolvedJob, pid: int, begins: bool
) -> None:
    folder = resolved.folder
    folder.claim(1, ELSEWHERE)
    folder.write_status(Status(state="lost", attempt=1, pid=pid))
    if begins:
        assert Attempt(resolved, 1).drive(dict) == 0
    else:
        with pytest.raises(ColddiffError, match="another driver"):
            Attempt(resolved, 1).drive(dict)


def test_a_finished_job_without_its_result_runs_again(resolved: ResolvedJob) -> None:
    job: Mapping[str, Any] = resolved.job.to_dict()
    first = run("generate", job, "again")
    resolved.folder.store.delete(resolved.folder.key("result.json"))
    again = run("generate", job, "again")
    assert (again["num_samples"], again["samples"]) == (first["num_samples"], first["samples"])
    assert resolved.folder.result() == again
    assert resolved.folder.attempts() == [1, 2]


def test_a_result_is_returned_again_without_another_attempt(resolved: ResolvedJob) -> None:
    first = colddiff.generate(resolved.job.to_dict(), name="again")
    assert first["summary"] == [f"3 images in {first['samples']}"]
    assert colddiff.generate(resolved.job.to_dict(), name="again") == first
    assert resolved.folder.attempts() == [1]


def test_the_same_job_by_another_name_is_said_once_and_done_all_the_same(
    resolved: ResolvedJob, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="colddiff")
    verb, _, _ = resolved.id.partition("-")
    _, _, behind = resolved.id.rpartition("-")
    other = replace(resolved, id=f"{verb}-another-{behind}", slug="another")
    assert bring_to_end(resolved, InProcess()).exit_code == 0
    assert "by another name" not in caplog.text
    caplog.clear()
    assert bring_to_end(other, InProcess()).exit_code == 0
    assert caplog.text.count(f"{resolved.id} is the same job by another name") == 1
    assert (other.folder.result() or {})["id"] == other.id


def test_the_client_of_another_cluster_is_told_where_the_job_runs(
    resolved: ResolvedJob, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder, ended = resolved.folder, threading.Event()
    folder.claim(1, {**ELSEWHERE, "host": "another-machine", "pid": 7})
    record_job(resolved, folder)
    status = Status("running", attempt=1, host="another-machine", pid=7)

    def beat() -> None:
        while not ended.wait(0.2):
            folder.write_status(replace(status, heartbeat=time.time()))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        found = bring_to_end(resolved, Cluster(unexpected), detach=True)
    finally:
        ended.set()
        thread.join()
    assert (found.state, found.attempt, found.exit_code) == ("running", 1, 0)
    assert "is already running (attempt 1, on the cluster at http://192.0.2.1:8265)" in caplog.text


@pytest.mark.parametrize(
    ("claim", "where"),
    [
        ({"host": "a", "pid": 7}, "in process 7 on a"),
        ({"host": "a", "pid": 7, "address": "http://b:8265"}, "on the cluster at http://b:8265"),
        (
            {"host": "a", "address": "http://127.0.0.1:1", "local": True},
            "on the cluster at http://127.0.0.1:1, the local one of a",
        ),
        ({}, "in process ? on a machine that its claim does not name"),
    ],
)
def test_where_an_attempt_runs_is_said(claim: dict[str, Any], where: str) -> None:
    assert running_where(claim) == where


def unexpected() -> None:
    raise AssertionError("it runs elsewhere, and is not started again")

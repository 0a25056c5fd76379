"""The parts of launching that need no cluster: verdicts, attempts, display, home."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import stat
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from colddiff.cli.live_line import live_line
from colddiff.cluster.address import Cluster, parse_address
from colddiff.cluster.home import ClusterRecord, Home
from colddiff.cluster.logs import added, read_log
from colddiff.cluster.operate import current, delete, stop
from colddiff.cluster.ray_jobs import driver_state, entrypoint
from colddiff.errors import ClusterError, ColddiffError, RecordError
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.follow import runs_here, settle
from colddiff.jobs.in_process import InProcess
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.runner import DriverState
from colddiff.jobs.status import Status, progress_line
from colddiff.jobs.submit import claim_attempt, is_covered
from colddiff.stores.local_store import LocalStore
from colddiff.verbs.train.job import TrainJob

RUNNING = Status("running", attempt=2, step=30, num_steps=90, heartbeat=1.0, phase="training")


LONG = b"".join(b"line %d\n" % number for number in range(1000))


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(LocalStore(tmp_path), "train-a-0")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_says_what_is_known() -> None:
    known = replace(RUNNING, loss=0.12345, images_per_s=812.4, eta_s=4983)
    assert progress_line(known) == "training    30/90  33%  loss 0.1235  812 img/s  ETA 1:23:03"
    assert progress_line(Status(phase="queued")) == "queued"
    assert progress_line(replace(known, state="done", step=90)) == "done        90/90  100%"


def test_a_terminal_gets_one_live_line_and_a_pipe_lines_that_differ() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        with live_line(stream) as display:
            logging.getLogger("colddiff.anywhere").info("hello")
            for step in (30, 31, 31, 32):
                display.show(replace(RUNNING, step=step))
            display.show(replace(RUNNING, step=32, phase="evaluating"))
    assert terminal.getvalue().count("\n") == 2
    assert terminal.getvalue().count("\r\x1b[2K") == 5
    # Further steps within seconds are not worth a line of a log file, another phase is.
    assert [line.split()[0] for line in pipe.getvalue().splitlines()] == [
        "hello",
        "training",
        "evaluating",
    ]


@pytest.mark.parametrize(
    ("driver", "state", "says"),
    [
        (driver_state("FAILED", 3, ""), "failed", "exit code 3.*its log: zero \\| one \\| two"),
        (
            driver_state("SUCCEEDED", 0, ""),
            "failed",
            "without writing a final status .exit code 0.",
        ),
        (driver_state("FAILED", -9, ""), "lost", "signal 9.*submit the same job again"),
        (driver_state("FAILED", 137, ""), "lost", "signal 9"),
        (driver_state("FAILED", None, "node died\nat 5"), "lost", "node died"),
        (driver_state("STOPPED", None, ""), "stopped", "stopped on request"),
        (None, "lost", "cluster is gone"),
    ],
)
def test_a_driver_without_a_verdict_gets_one(
    folder: JobFolder, driver: DriverState | None, state: str, says: str
) -> None:
    folder.write_status(RUNNING)
    folder.claim(2, {"address": "http://127.0.0.1:8265"})
    folder.write_log(2, b"zero\none\n\ntwo\n")
    verdict = settle(folder, 2, driver, None)
    assert (verdict.state, verdict.step) == (state, 30)
    assert re.search(says, verdict.message)
    assert folder.status() == verdict


class Printed(InProcess):
    """A runner that has a driver's output, as Ray's Jobs API has it."""

    def log(self, folder: JobFolder, attempt: int) -> str:
        return "Running entrypoint for job train-a-0-2: python\nbash: python: not found\n"


def test_of_a_driver_that_did_not_get_far_the_cluster_has_the_log(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_status(RUNNING)
    folder.claim(2, {"address": "http://127.0.0.1:8265"})
    monkeypatch.setattr("colddiff.cluster.connect.jobs_of", lambda *_: Printed())
    said, started = (
        b"bash: python: not found\n",
        b"Running entrypoint for job train-a-0-2: python\n",
    )
    assert read_log(folder, 2, None) == said
    assert read_log(folder, 2, None, debug=True) == started
    verdict = settle(folder, 2, driver_state("FAILED", 127, ""), Printed())
    assert verdict.message.endswith("(exit code 127); end of its log: bash: python: not found")
    assert (folder.log(2), folder.debug_log(2)) == (said, started)


def test_what_was_asked_to_stop_is_stopped_whatever_ended_it(folder: JobFolder) -> None:
    folder.write_status(replace(RUNNING, state="queued"))
    folder.request_stop(2, 1.0)
    assert settle(folder, 2, None, None).state == "stopped"


def test_a_queued_job_whose_cluster_is_gone_is_shown_as_lost(
    folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDDIFF_HOME", str(tmp_path / "home"))
    folder.write_status(replace(RUNNING, state="queued"))
    monkeypatch.setattr("colddiff.jobs.follow.LOST_AFTER_S", 0.5)
    shown = current(folder, None)
    assert shown is not None
    assert shown.state == "lost"


def test_a_verdict_stands(folder: JobFolder) -> None:
    done = replace(RUNNING, state="done", step=90)
    folder.write_status(done)
    assert settle(folder, 2, driver_state("FAILED", 1, ""), None) == done


def no_show(status: Status) -> None:
    """Nobody looks."""


def resolved_job(place: Path) -> ResolvedJob:
    return ResolvedJob(
        id="train-a-0",
        slug="a",
        job=TrainJob(num_steps=50),
        storage=str(place),
        tracking_uri="",
        content={},
        created=1.0,
        versions={},
        git={},
    )


def test_of_racing_submits_one_claims_the_attempt(folder: JobFolder, tmp_path: Path) -> None:
    job = resolved_job(tmp_path)
    gate = threading.Barrier(8)
    ours: list[bool] = []

    def race() -> None:
        gate.wait()
        ours.append(claim_attempt(folder, job, None, 1, InProcess()))

    racers = [threading.Thread(target=race) for _ in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(ours) == [False] * 7 + [True]
    assert folder.attempts() == [1]
    assert folder.job()["id"] == "train-a-0"


def test_a_new_attempt_keeps_what_was_spent_and_when_it_was_made(
    folder: JobFolder, tmp_path: Path
) -> None:
    job = resolved_job(tmp_path)
    assert claim_attempt(folder, job, None, 1, InProcess())
    before = replace(RUNNING, state="failed", attempt=1, running_s=7.0, loss=0.5, message="broke")
    later = replace(job, created=2.0)
    assert claim_attempt(folder, later, before, 2, InProcess(user="ann"))
    queued = folder.status()
    assert queued is not None
    assert folder.read_claim(2)["user"] == queued.user == "ann"
    assert (queued.state, queued.attempt, queued.running_s, queued.num_steps) == (
        "queued", 2, 7.0, 50,
    )  # fmt: skip
    assert (queued.loss, queued.message) == (None, "")
    assert folder.job()["created"] == 1.0


def test_done_covers_what_it_reached() -> None:
    done = Status("done", step=50, num_steps=50)
    assert is_covered(done, TrainJob(num_steps=50))
    assert is_covered(done, TrainJob(num_steps=20))
    assert not is_covered(done, TrainJob(num_steps=51))
    assert not is_covered(replace(done, state="stopped"), TrainJob(num_steps=20))


def test_a_job_that_no_cluster_is_known_to_run_cannot_be_forced(
    folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDDIFF_HOME", str(tmp_path / "home"))
    folder.write_status(replace(RUNNING, heartbeat=time.time()))
    with pytest.raises(ColddiffError, match="did not stop within 0 s"):
        stop(folder, None, 0, no_show)
    assert folder.stop_requested(2)


def test_a_lost_job_has_nothing_to_stop_though_its_cluster_does_not_respond(
    folder: JobFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("COLDDIFF_HOME", str(tmp_path / "home"))
    folder.claim(2, {"address": "http://127.0.0.1:9", "local": False})
    lost = replace(RUNNING, state="lost")
    folder.write_status(lost)
    with caplog.at_level(logging.INFO, "colddiff"):
        assert stop(folder, None, 60, no_show) == lost
    assert "train-a-0 is lost, so there is nothing to stop (no Ray cluster" in caplog.text
    assert "http://127.0.0.1:9 (from the job's record)" in caplog.text
    folder.write_status(replace(RUNNING, state="queued"))
    for address, source in ((None, "the job's record"), ("http://127.0.0.1:9", "--address")):
        with pytest.raises(ClusterError, match=rf"127.0.0.1:9 .from {source}."):
            stop(folder, address, 0, no_show)


def test_a_deletion_cut_short_leaves_no_checkpoint_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    folder = JobFolder(store, "train-a-0")
    folder.write_job({"id": "train-a-0"})
    for name in ("model.safetensors", "checkpoint.json"):
        store.put(folder.key("checkpoints/step_00000001", name), b"x")
    deleted: list[str] = []
    delete_one = store.delete

    def note(key: str) -> None:
        deleted.append(key.rpartition("/")[2])
        delete_one(key)

    monkeypatch.setattr(store, "delete", note)
    assert delete(folder) == 3
    # First what tells a list that it ended, last what makes it a job at all.
    assert deleted[:2] == ["train-a-0.json", "checkpoint.json"]
    assert deleted[-1] == "job.json"


@pytest.mark.parametrize(
    ("shown", "text", "new"),
    [
        (b"", b"abc", b"abc"),
        (b"abc", b"abcdef", b"def"),
        (b"abc", b"abc", b""),
        (b"ab" + LONG, LONG + b"gh", b"gh"),
        (b"abc", b"xyz", b"xyz"),
        (b"the cluster's own\na\nb\n", b"a\nb\nc\n", b"c\n"),
    ],
)
def test_only_what_is_new_of_a_log_is_shown(shown: bytes, text: bytes, new: bytes) -> None:
    assert added(shown, text) == new


def test_the_entrypoint_is_this_python_only_on_this_machine() -> None:
    command = "python -P -m colddiff.cluster.driver job.json --attempt 3"
    assert entrypoint(3, local=False) == command
    assert entrypoint(3, local=True).startswith(f"{sys.executable} -P ")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://host:1", "http://host:1"),
        ("https://host/ray/", "https://host/ray"),
        ("host:1", "http://host:1"),
        ("host", "http://host:8265"),
    ],
)
def test_addresses_are_completed(text: str, address: str) -> None:
    assert parse_address(text) == address


def test_loopback_is_told_from_elsewhere() -> None:
    assert Cluster("http://127.0.0.1:1").loopback
    assert Cluster("http://localhost:1").loopback
    assert not Cluster("http://10.0.0.1:1").loopback


def test_credentials_are_read_from_a_private_file_only(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert home.credentials() == {}
    home.make()
    home.credentials_path.write_text("# mine\nexport A=1\n B = 'x=y'\n\n")
    home.credentials_path.chmod(0o600)
    assert home.credentials() == {"A": "1", "B": "x=y"}
    home.credentials_path.write_text("A=1\nhush hush\n")
    with pytest.raises(ClusterError, match="line 2: expected NAME=value") as raised:
        home.credentials()
    assert "hush" not in str(raised.value)


def test_an_open_home_is_closed_and_keeps_its_token(tmp_path: Path) -> None:
    home = Home(tmp_path)
    tmp_path.chmod(0o755)
    token = home.token()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    home.token_path.chmod(0o644)
    assert home.token() == token
    assert stat.S_IMODE(home.token_path.stat().st_mode) == 0o600


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match="COLDDIFF_HOME"):
        Home(tmp_path / "file" / "home").make()


def test_a_record_survives_and_damage_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    record = ClusterRecord(pid=1, session="ab", address="http://127.0.0.1:1", dashboard_port=1)
    home.write_record(record)
    assert home.record() == record
    for damage, says in (
        ("{half", "is not JSON"),
        ("[]", "is not a JSON object"),
        ("{}", "pid is missing"),
        ('{"pid": "x"}', "pid is 'x'"),
        (json.dumps({**asdict(record), "session": "../x"}), "session is '../x'"),
        (json.dumps({**asdict(record), "ports": {"port": "1"}}), "ports.port is '1'"),
    ):
        home.record_path.write_text(damage)
        with pytest.raises(RecordError, match=rf"cluster\.json .*{re.escape(says)}.*delete it"):
            home.record()


@pytest.mark.parametrize("record", ["status", "claim"])
def test_a_driver_on_this_machine_is_known_by_its_process(folder: JobFolder, record: str) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    def runs(attempt: int, host: str, pid: int) -> bool | None:
        status = replace(RUNNING, attempt=attempt)
        if record == "status":
            status = replace(status, host=host, pid=pid)
        else:  # a process that runs its own attempt, before its first heartbeat
            folder.claim(attempt, {"host": host, "pid": pid})
        return runs_here(folder, status)

    here = os.uname().nodename
    assert runs(1, here, gone.pid) is False
    assert runs(2, here, os.getpid()) is True
    assert runs(3, "elsewhere", gone.pid) is None  # its heartbeat decides
    assert runs(4, "", 0) is None

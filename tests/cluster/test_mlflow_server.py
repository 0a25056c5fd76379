"""Tracking against a real `mlflow server` that is down at the start or killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

import colddiff
from colddiff.errors import TrackerError
from colddiff.spec import parse
from colddiff.stores.local_store import LocalStore
from colddiff.tracking.mlflow_outbox import replay
from colddiff.tracking.mlflow_service import client, initialise
from colddiff.tracking.mlflow_tracker import open_run
from colddiff.tracking.relay import join_run
from colddiff.tracking.session import Session
from colddiff.tracking.spool import undelivered
from colddiff.verbs.train.job import TrainJob
from tests.faulty_s3 import Proxy
from tests.kills import PATIENCE_S
from tests.machines import free_port
from tests.system import answers
from tests.unit.test_run import TINY

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = "server-tests"
STEPS = 60


class Server:
    """`infra/local/mlflow-server` on one port, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is not None:
            return
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [ROOT / "infra/local/mlflow-server", self.folder, str(self.port)],
                env={**os.environ, "PYTHON": sys.executable},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE_S
        while not answers(f"{self.uri}/health"):
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, how)
            self._process.wait(timeout=60)
            self._process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


class Job:
    """A job that is tracked on the server, with its storage on disk."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri = uri
        self.store = LocalStore(folder)
        self.id = f"train-server-{uuid4().hex[:8]}"

    def open(self) -> Session:
        return open_run(
            self.uri,
            EXPERIMENT,
            self.id,
            "a run",
            spool=self.store,
            timeout_s=10,
        )

    def join(self) -> Session:
        """A session of another process of the job."""
        return join_run(EXPERIMENT, self.id, "a run", spool=self.store)

    def check(self, run_id: str, status: str) -> None:
        """Every step is there once, and so is the one run."""
        api = client(self.uri)
        experiment = api.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        runs = api.search_runs([experiment.experiment_id], f"tags.`colddiff.job_id` = '{self.id}'")
        assert [run.info.run_id for run in runs] == [run_id]
        history = api.get_metric_history(run_id, "train/loss_l1")
        assert sorted((m.step, m.value) for m in history) == [(s, s / 7) for s in range(STEPS)]
        assert runs[0].info.status == status
        assert runs[0].data.params == {"seed": "0"}
        assert [file.path for file in api.list_artifacts(run_id)] == ["job.json"]
        assert undelivered(self.store, self.id) == []


@pytest.fixture
def job(server: Server, tmp_path: Path) -> Job:
    return Job(server.uri, tmp_path)


@contextmanager
def reached_at(port: int, server: Server) -> Iterator[None]:
    """Within ``with``, the server responds at a port where nobody did before.

    To a client that is a server which has started, and starting one takes ten seconds of CPU.
    """
    server.start()
    with Proxy(server.uri, lambda relay: relay.respond(relay.forward()), port):
        yield


def _log(tracker: Session, steps: range, pause_s: float = 0.0) -> None:
    for step in steps:
        tracker.log_metrics({"train/loss_l1": step / 7}, step)
        time.sleep(pause_s)


def test_down_at_the_start_and_up_later(
    server: Server, job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    server.kill()
    with pytest.raises(TrackerError, match="does not respond"):
        initialise(job.uri, EXPERIMENT)
    tracker = job.open()
    tracker.log_params({"seed": "0"})
    tracker.log_artifact("job.json", b"{}")
    _log(tracker, range(20))
    assert not tracker.flush()
    assert undelivered(job.store, job.id)
    server.start()
    _log(tracker, range(20, 40))
    assert tracker.flush(60)
    _log(tracker, range(40, STEPS))
    tracker.finish("FINISHED")
    job.check(tracker.run_id, "FINISHED")
    assert [line for line in caplog.messages if "is back" in line]


def test_killed_in_the_middle(server: Server, job: Job, caplog: pytest.LogCaptureFixture) -> None:
    server.start()
    tracker, worker = job.open(), job.join()
    run_id = tracker.run_id
    tracker.log_params({"seed": "0"})
    tracker.log_artifact("job.json", b"{}")
    _log(tracker, range(20), pause_s=0.05)
    server.kill()
    _log(tracker, range(20, 30), pause_s=0.2)
    _log(worker, range(30, 40), pause_s=0.2)
    # A worker does not notice: what it logs is spooled as ever.
    assert worker.flush()
    assert not tracker.flush()
    server.start()
    _log(worker, range(40, STEPS), pause_s=0.05)
    worker.close()
    assert tracker.flush(60)
    tracker.finish("FAILED")
    job.check(run_id, "FAILED")
    said = [line for line in caplog.messages if line.startswith("tracker ")]
    assert len(said) == len(set(said))
    assert ["is back; spooled" in line for line in said] == [False] * (len(said) - 1) + [True]


def test_a_job_that_never_met_its_server_is_replayed_when_it_is_submitted_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path / "runs"))
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    tracking = {"required": False, "experiment": EXPERIMENT}
    job = parse(TrainJob, {**TINY, "test_data": None, "log_every": 1, "tracking": tracking})
    result = colddiff.train(job, "away")
    store = LocalStore(tmp_path / "runs")
    assert undelivered(store, result["id"])
    with reached_at(port, server):
        for _ in range(2):
            assert colddiff.train(job, "away") == result
            assert undelivered(store, result["id"]) == []
    api = client(server.uri)
    experiment = api.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    tag = f"tags.`colddiff.job_id` = '{result['id']}'"
    (run,) = api.search_runs([experiment.experiment_id], tag)
    assert run.info.status == "FINISHED"
    history = api.get_metric_history(run.info.run_id, "train/loss_l1")
    assert sorted(row.step for row in history) == [1, 2, 3, 4]
    names = {file.path for file in api.list_artifacts(run.info.run_id)}
    assert {"job.json", "checkpoints.json"} <= names
    assert run.data.tags["checkpoint.uri"] == result["checkpoint"]


ATTEMPT = """
import sys, time
from colddiff.stores.local_store import LocalStore
from colddiff.tracking.mlflow_tracker import open_run
uri, experiment, job_id, folder, first = sys.argv[1:]
tracker = open_run(uri, experiment, job_id, "a run", spool=LocalStore(folder))
tracker.log_params({"seed": "0"})
tracker.log_artifact("job.json", b"{}")
for step in range(int(first), 60):
    tracker.log_metrics({"train/loss_l1": step / 7}, step)
    if step in (20, 40):
        print(step, tracker.flush(60), flush=True)
        time.sleep(0.5)
tracker.finish("FINISHED")
"""


def _attempt(job: Job, uri: str, first: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ATTEMPT, uri, EXPERIMENT, job.id, str(job.store.root), str(first)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_attempts_killed_with_and_without_a_tracker_lose_and_repeat_nothing(
    server: Server, job: Job
) -> None:
    server.start()
    nobody = f"http://127.0.0.1:{free_port()}"
    # Each is killed right after a flush, which is where a checkpoint would be committed, and the
    # next goes on from there: first without a tracker, then with one, then without one again.
    for uri, first, last, delivered in ((nobody, 0, 20, False), (job.uri, 15, 40, True)):
        with _attempt(job, uri, first) as attempt:
            assert attempt.stdout is not None
            for line in attempt.stdout:
                if line == f"{last} {delivered}\n":
                    attempt.kill()
        assert attempt.returncode == -signal.SIGKILL
    with _attempt(job, nobody, 35) as attempt:
        attempt.communicate(timeout=PATIENCE_S)
    assert attempt.returncode == 0
    assert undelivered(job.store, job.id)
    assert replay(job.store, job.id, job.uri) > 0
    (record,) = job.store.list(f"jobs/{job.id}/tracking/runs/")
    job.check(json.loads(job.store.get(record.key))["run_id"], "FINISHED")
    assert replay(job.store, job.id, job.uri) == 0


def test_runs_are_nested_on_a_server_that_was_away_meanwhile(
    server: Server, tmp_path: Path
) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    parent, child = Job(uri, tmp_path), Job(uri, tmp_path)
    below, above = child.open(), parent.open()
    below.set_parent(parent.id)
    below.set_tags({"colddiff.trial": "3", "mlflow.runName": "trial 3"})
    below.finish("FINISHED")
    above.log_metrics({"search/best": 7.5}, 1)
    with reached_at(port, server):
        assert above.flush(60)
        above.finish("FINISHED")
        assert replay(child.store, child.id, uri) > 0
    api = client(server.uri)
    experiment = api.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    tag = f"tags.`mlflow.parentRunId` = '{above.run_id}'"
    (run,) = api.search_runs([experiment.experiment_id], tag)
    assert (run.data.tags["colddiff.job_id"], run.info.run_name) == (child.id, "trial 3")
    assert run.info.status == "FINISHED"

"""One contract for all trackers, and what only MLflow has: a run over attempts, a spool, errors."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import colddiff.connect
from colddiff.adapters.local_store import LocalStore
from colddiff.adapters.memory_store import MemoryStore
from colddiff.adapters.memory_tracker import MemoryRun, MemoryTracker, MetricRow, NullTracker
from colddiff.adapters.mlflow_outbox import now_ms
from colddiff.adapters.mlflow_run import connect
from colddiff.adapters.mlflow_service import client
from colddiff.adapters.mlflow_tracker import MlflowTracker, initialise, open_run, replay
from colddiff.adapters.tracking_address import TrackingAddress
from colddiff.adapters.tracking_spool import RunHeader, Spool, undelivered
from colddiff.errors import TrackerError
from colddiff.ports import Store, Tracker

EXPERIMENT = "tests"


class MlflowTwin:
    """Attempts at one job, tracked in a real sqlite store, and what is there afterwards."""

    def __init__(self, uri: str, store: Store | None = None) -> None:
        self.uri = uri
        self.store = store or MemoryStore(uuid4().hex)
        self.job_id = f"train-test-{uuid4().hex[:8]}"
        self.said: list[str] = []

    def open(self, uri: str | None = None, **options: Any) -> MlflowTracker:
        known: dict[str, Any] = {"spool": self.store, "talk": self.said.append, "timeout_s": 20.0}
        return open_run(uri or self.uri, EXPERIMENT, self.job_id, "test", **(known | options))

    def replay(self) -> int:
        return replay(self.store, self.job_id, self.uri, talk=self.said.append)

    def runs(self) -> list[str]:
        api = client(self.uri)
        experiment = api.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        found = api.search_runs(
            [experiment.experiment_id], f"tags.`colddiff.job_id` = '{self.job_id}'"
        )
        return [run.info.run_id for run in found]

    def read(self) -> MemoryRun:
        api = client(self.uri)
        (run_id,) = self.runs()
        run = api.get_run(run_id)
        rows = [
            MetricRow(m.key, m.value, m.step, m.timestamp)
            for key in run.data.metrics
            for m in api.get_metric_history(run_id, key)
        ]
        folder = Path(run.info.artifact_uri)
        artifacts = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        tags = dict(run.data.tags)
        return MemoryRun(run_id, run.info.status, dict(run.data.params), tags, rows, artifacts)


class MemoryTwin:
    """The same in memory."""

    def __init__(self) -> None:
        self.run = MemoryRun()

    def open(self) -> Tracker:
        return MemoryTracker(self.run)

    def read(self) -> MemoryRun:
        return self.run


Twin = MlflowTwin | MemoryTwin


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    initialise(uri, EXPERIMENT, artifact_root=str(folder / "artifacts"))
    return uri


@pytest.fixture
def mlflow(uri: str) -> MlflowTwin:
    return MlflowTwin(uri)


@pytest.fixture(params=["memory", "mlflow"])
def twin(request: pytest.FixtureRequest) -> Twin:
    if request.param == "memory":
        return MemoryTwin()
    return MlflowTwin(request.getfixturevalue("uri"))


@pytest.fixture
def nobody() -> str:
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def mute() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


# --- the contract ---------------------------------------------------------------------------


def test_everything_that_is_logged_arrives(twin: Twin) -> None:
    tracker = twin.open()
    started = now_ms()
    tracker.log_params({"degradation.kind": "blur", "seed": "0"})
    tracker.log_metrics({"train/loss_l1": 0.25, "time/data_s": 1e-9}, step=10)
    tracker.log_metrics({"train/loss_l1": 0.125}, step=20)
    tracker.set_tags({"git": "abc"})
    tracker.set_tags({"git": "def"})
    tracker.log_artifact("grids/step_00000010.png", b"\x89PNG\x00")
    assert tracker.flush()
    run = twin.read()
    assert run.run_id == tracker.run_id
    assert run.params == {"degradation.kind": "blur", "seed": "0"}
    assert sorted(run.history("train/loss_l1")) == [(10, 0.25), (20, 0.125)]
    assert run.history("time/data_s") == [(10, 1e-9)]
    assert all(started <= row.time_ms <= now_ms() for row in run.metrics)
    assert run.tags["git"] == "def"
    assert run.artifacts == {"grids/step_00000010.png": b"\x89PNG\x00"}
    assert run.status == "RUNNING"
    tracker.finish("FINISHED")
    assert twin.read().status == "FINISHED"


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_the_next_attempt_goes_on_with_the_same_run(twin: Twin, status: str) -> None:
    first = twin.open()
    first.log_metrics({"train/loss_l1": 1.0}, step=1)
    first.finish(status)
    assert twin.read().status == status
    second = twin.open()
    assert second.run_id == first.run_id
    assert second.flush()
    assert twin.read().status == "RUNNING"
    second.log_metrics({"train/loss_l1": 0.5}, step=2)
    second.finish("FINISHED")
    assert sorted(twin.read().history("train/loss_l1")) == [(1, 1.0), (2, 0.5)]


def test_steps_repeated_after_a_kill_are_logged_once(twin: Twin) -> None:
    first = twin.open()
    for step in range(1, 8):
        first.log_metrics({"train/loss_l1": 1 / step, "time/data_s": 0.1}, step)
    assert first.flush()
    time.sleep(0.002)  # a new process starts later
    second = twin.open()
    for step in range(5, 11):
        second.log_metrics({"train/loss_l1": 1 / step, "time/data_s": 0.2}, step)
    second.finish("FINISHED")
    run = twin.read()
    assert sorted(run.history("train/loss_l1")) == [(step, 1 / step) for step in range(1, 11)]
    assert [step for step, _ in sorted(run.history("time/data_s"))] == list(range(1, 11))


def test_a_result_measured_anew_is_kept_and_an_equal_one_is_not_repeated(twin: Twin) -> None:
    first = twin.open()
    first.log_metrics({"eval/sampled/fid": 8.0, "eval/direct/fid": float("nan")}, step=100)
    assert first.flush()
    time.sleep(0.002)
    second = twin.open()
    second.log_metrics({"eval/sampled/fid": 8.0, "eval/direct/fid": float("nan")}, step=100)
    second.log_metrics({"eval/sampled/fid": 7.5}, step=100)
    second.finish("FINISHED")
    assert sorted(twin.read().history("eval/sampled/fid")) == [(100, 7.5), (100, 8.0)]
    assert len(twin.read().history("eval/direct/fid")) == 1


def test_a_param_that_changes_becomes_a_tag(twin: Twin) -> None:
    for workers in ("1", "2", "1"):
        tracker = twin.open()
        tracker.log_params({"workers": workers, "seed": "0"})
        assert tracker.flush()
        assert twin.read().params == {"workers": "1", "seed": "0"}
    assert twin.read().tags["param.workers"] == "1"
    tracker.log_params({"workers": "4"})
    tracker.finish("FINISHED")
    assert twin.read().tags["param.workers"] == "4"


def test_numbers_that_are_none_are_logged(twin: Twin) -> None:
    tracker = twin.open()
    tracker.log_metrics({"a": math.nan, "b": math.inf, "c": -math.inf}, step=0)
    tracker.finish("FAILED")
    values = {row.key: row.value for row in twin.read().metrics}
    assert math.isnan(values["a"])
    assert values["b"] > 1e308
    assert values["c"] < -1e308


def test_logging_after_the_end_is_left_out(twin: Twin, caplog: pytest.LogCaptureFixture) -> None:
    tracker = twin.open()
    tracker.finish("FINISHED")
    tracker.log_metrics({"train/loss_l1": 1.0}, step=1)
    tracker.log_params({"a": "b"})
    tracker.set_tags({"a": "b"})
    tracker.log_artifact("a", b"")
    tracker.finish("FAILED")
    run = twin.read()
    assert (run.metrics, run.params, run.artifacts) == ([], {}, {})
    assert "a" not in run.tags
    assert run.status == "FINISHED"


def test_the_other_ranks_tracker_does_nothing() -> None:
    tracker: Tracker = NullTracker()
    tracker.log_params({"a": "b"})
    tracker.log_metrics({"a": 1.0}, step=0)
    tracker.set_tags({"a": "b"})
    tracker.log_artifact("a", b"")
    assert tracker.flush()
    tracker.finish("FINISHED")
    assert tracker.run_id == ""


# --- MLflow while it is there -----------------------------------------------------------------


def test_more_than_one_request_holds(mlflow: MlflowTwin) -> None:
    tracker = mlflow.open()
    tracker.log_params({f"field.{i}": str(i) for i in range(250)})
    for step in range(2500):
        tracker.log_metrics({"train/loss_l1": step / 7}, step)
    tracker.finish("FINISHED")
    run = mlflow.read()
    assert len(run.params) == 250
    assert sorted(run.history("train/loss_l1")) == [(step, step / 7) for step in range(2500)]


def test_a_long_param_is_cut_and_says_so(mlflow: MlflowTwin) -> None:
    for _ in range(2):
        tracker = mlflow.open()
        tracker.log_params({"degradation.sigma.values": "1.25, " * 2000})
        tracker.finish("FINISHED")
    (value,) = mlflow.read().params.values()
    assert len(value) == 6000
    assert value.endswith("... [cut, 12000 characters]")
    assert "param.degradation.sigma.values" not in mlflow.read().tags


def test_what_mlflow_refuses_is_set_aside_and_the_rest_arrives(mlflow: MlflowTwin) -> None:
    tracker = mlflow.open()
    for step in range(20):
        tracker.log_metrics({"good": float(step), "bad\nname": float(step)}, step)
    tracker.log_params({"good": "1", "x" * 300: "1"})
    tracker.log_artifact("../escape", b"no")
    tracker.finish("FINISHED")
    run = mlflow.read()
    assert len(run.history("good")) == 20
    assert run.params == {"good": "1"}
    assert run.artifacts == {}
    refused = [o.key for o in mlflow.store.list(f"jobs/{mlflow.job_id}/tracking/refused/")]
    assert len(refused) == 22
    assert any("tracker refuses metric 'bad\\nname'" in line for line in mlflow.said)


def test_artifacts_that_cannot_be_stored_do_not_hold_up_numbers(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colddiff.adapters.mlflow_run.UPLOAD_PAUSES_S", (0.0, 0.01))
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (tmp_path / "file").write_text("in the way")
    for number, root in enumerate((f"{tmp_path}/file", "s3://bucket/artifacts")):
        experiment = f"{EXPERIMENT}-nowhere-{number}-{uuid4().hex[:8]}"
        initialise(uri, experiment, artifact_root=root)
        store, said = MemoryStore(), list[str]()
        tracker = open_run(uri, experiment, "train-a-1", "a", spool=store, talk=said.append)
        tracker.log_artifact("grid.png", b"grid")
        tracker.log_metrics({"train/loss_l1": 1.0}, step=1)
        assert tracker.flush()
        tracker.log_metrics({"train/loss_l1": 0.5}, step=2)
        tracker.finish("FINISHED")
        assert len(client(uri).get_metric_history(tracker.run_id, "train/loss_l1")) == 2
        assert any("'grid.png'" in line for line in said)
        assert len(list(store.list("jobs/train-a-1/tracking/refused/"))) == 1


def test_two_processes_of_an_attempt_share_the_run(mlflow: MlflowTwin) -> None:
    driver = mlflow.open()
    worker = mlflow.open(join=True)
    assert worker.run_id == driver.run_id
    worker.log_metrics({"train/loss_l1": 1.0}, step=1)
    driver.log_metrics({"eval/sampled/fid": 9.0}, step=1)
    worker.close()
    assert driver.flush()
    assert mlflow.read().status == "RUNNING"
    driver.finish("FINISHED")
    assert {row.key for row in mlflow.read().metrics} == {"train/loss_l1", "eval/sampled/fid"}


def test_joining_leaves_an_ended_run_ended(mlflow: MlflowTwin) -> None:
    mlflow.open().finish("FINISHED")
    mlflow.open(join=True).close()
    assert mlflow.read().status == "FINISHED"


def test_a_run_whose_creator_was_killed_is_found_by_its_tag(mlflow: MlflowTwin) -> None:
    first = mlflow.open()
    first.close()
    for stored in list(mlflow.store.list(f"jobs/{mlflow.job_id}/tracking/runs/")):
        mlflow.store.delete(stored.key)
    second = mlflow.open()
    second.close()
    assert second.run_id == first.run_id
    assert mlflow.runs() == [first.run_id]


def test_processes_that_open_a_job_at_once_get_one_run(mlflow: MlflowTwin) -> None:
    found: list[str] = []
    together = threading.Barrier(4)

    def join() -> None:
        spool = Spool(mlflow.store, RunHeader(mlflow.job_id, EXPERIMENT, "test", now_ms()))
        together.wait()
        found.append(connect(TrackingAddress(mlflow.uri), spool, timeout_s=20).run_id)

    threads = [threading.Thread(target=join) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert [found[0]] * 4 == found
    assert mlflow.runs() == [found[0]]


def test_equal_job_ids_in_two_stores_are_two_runs(uri: str) -> None:
    one, other = MlflowTwin(uri), MlflowTwin(uri)
    other.job_id = one.job_id
    first, second = one.open(), other.open()
    first.close()
    second.close()
    assert first.run_id != second.run_id


def test_a_run_deleted_in_mlflow_is_replaced(mlflow: MlflowTwin) -> None:
    tracker = mlflow.open()
    tracker.log_metrics({"train/loss_l1": 1.0}, step=1)
    assert tracker.flush()
    first = tracker.run_id
    client(mlflow.uri).delete_run(first)
    tracker.log_metrics({"train/loss_l1": 0.5}, step=2)
    assert not tracker.flush()
    assert tracker.flush()
    assert tracker.run_id != first
    assert mlflow.read().history("train/loss_l1") == [(2, 0.5)]
    tracker.finish("FINISHED")


def test_an_end_that_mlflow_does_not_know_is_a_mistake(mlflow: MlflowTwin) -> None:
    tracker = mlflow.open()
    with pytest.raises(ValueError, match="FINISHED, FAILED, KILLED, not 'DONE'"):
        tracker.finish("DONE")
    tracker.finish("KILLED")


# --- MLflow while it is away ------------------------------------------------------------------


def _log_ten_steps(tracker: Tracker) -> None:
    tracker.log_params({"seed": "0"})
    for step in range(10):
        tracker.log_metrics({"train/loss_l1": step / 3}, step)
    tracker.log_artifact("grid.png", bytes(range(256)))


def test_down_from_start_to_end_and_replayed_later(mlflow: MlflowTwin, nobody: str) -> None:
    started = now_ms()
    tracker = mlflow.open(nobody)
    assert tracker.run_id == ""
    _log_ten_steps(tracker)
    tracker.finish("FINISHED")
    ended = now_ms()
    assert any("does not answer" in line and "follows" in line for line in mlflow.said)
    assert undelivered(mlflow.store, mlflow.job_id)
    assert mlflow.runs() == []
    time.sleep(0.1)

    assert mlflow.replay() == 14  # a param, ten metrics, an artifact, running, finished
    run = mlflow.read()
    assert sorted(run.history("train/loss_l1")) == [(step, step / 3) for step in range(10)]
    assert all(started <= row.time_ms <= ended for row in run.metrics)
    assert run.artifacts == {"grid.png": bytes(range(256))}
    assert run.status == "FINISHED"
    info = client(mlflow.uri).get_run(run.run_id).info
    assert started <= info.start_time <= info.end_time <= ended
    assert undelivered(mlflow.store, mlflow.job_id) == []
    assert mlflow.replay() == 0


def test_a_replay_killed_in_the_middle_repeats_nothing(mlflow: MlflowTwin, nobody: str) -> None:
    for attempt in range(3):
        tracker = mlflow.open(nobody)
        for step in range(4 * attempt, 10):
            tracker.log_metrics({"train/loss_l1": step / 3}, step)
        assert not tracker.flush()
        tracker.set_tags({"attempt": str(attempt)})
        tracker.close()
        time.sleep(0.002)
    kept = {key: mlflow.store.get(key) for key in undelivered(mlflow.store, mlflow.job_id)}
    assert len(kept) >= 6
    assert mlflow.replay() > 0
    once = mlflow.read()
    # As after a kill between the last delivery and the deletion of what was delivered.
    for key, data in kept.items():
        mlflow.store.put(key, data)
    assert mlflow.replay() > 0
    twice = mlflow.read()
    assert sorted(once.history("train/loss_l1")) == [(step, step / 3) for step in range(10)]
    assert sorted(map(repr, twice.metrics)) == sorted(map(repr, once.metrics))
    assert twice.tags["attempt"] == "2"


def test_the_next_attempt_delivers_what_the_last_one_could_not(
    mlflow: MlflowTwin, nobody: str
) -> None:
    down = mlflow.open(nobody)
    for step in range(6):
        down.log_metrics({"train/loss_l1": step / 3}, step)
    down.set_tags({"phase": "first"})
    down.close()
    time.sleep(0.002)  # a new process starts later
    up = mlflow.open()
    up.set_tags({"phase": "second"})
    for step in range(3, 10):
        up.log_metrics({"train/loss_l1": step / 3}, step)
    up.finish("FINISHED")
    run = mlflow.read()
    assert sorted(run.history("train/loss_l1")) == [(step, step / 3) for step in range(10)]
    assert run.tags["phase"] == "second"
    assert undelivered(mlflow.store, mlflow.job_id) == []


def test_logging_does_not_wait_for_a_server_that_hangs(mlflow: MlflowTwin, mute: str) -> None:
    tracker = mlflow.open(mute, timeout_s=0.5)
    started = time.perf_counter()
    for step in range(1000):
        tracker.log_metrics({"train/loss_l1": float(step)}, step)
    assert time.perf_counter() - started < 0.5
    started = time.perf_counter()
    assert not tracker.flush(timeout_s=0.05)
    assert time.perf_counter() - started < 1.0
    # Durable although the request still hangs: a kill loses nothing.
    assert undelivered(mlflow.store, mlflow.job_id)
    tracker.close()
    mlflow.replay()
    assert len(mlflow.read().history("train/loss_l1")) == 1000


def test_a_damaged_spooled_object_does_not_hold_up_the_rest(
    mlflow: MlflowTwin, nobody: str
) -> None:
    tracker = mlflow.open(nobody)
    tracker.log_metrics({"train/loss_l1": 1.0}, step=1)
    tracker.close()
    prefix = f"jobs/{mlflow.job_id}/tracking"
    for name, data in {"0-a/1.jsonl": b"\xff", "0-a/2.jsonl": b"{}", "0-a/3.jsonl": b"[]"}.items():
        mlflow.store.put(f"{prefix}/spool/{name}", data)
    mlflow.replay()
    assert mlflow.read().history("train/loss_l1") == [(1, 1.0)]
    assert len(list(mlflow.store.list(f"{prefix}/refused/"))) == 3
    assert sum("not a spooled tracking object" in line for line in mlflow.said) == 3


def test_credentials_are_never_said(mlflow: MlflowTwin, nobody: str) -> None:
    secret = nobody.replace("http://", "http://ada:s3cr3t@")
    tracker = mlflow.open(secret)
    tracker.finish("FINISHED")
    with pytest.raises(TrackerError) as caught:
        initialise(secret, EXPERIMENT)
    said = [*mlflow.said, str(caught.value), repr(TrackingAddress(secret))]
    stored = b"".join(mlflow.store.get(o.key) for o in mlflow.store.list())
    assert len(said) >= 3
    assert not any("s3cr3t" in line or "ada" in line for line in [*said, stored.decode()])


# --- first use --------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_one_line_with_the_way_out(nobody: str) -> None:
    with pytest.raises(TrackerError, match=r"tracking\.required=false") as caught:
        initialise(nobody, EXPERIMENT, timeout_s=2)
    assert caught.value.exit_code == 3
    assert nobody in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_hangs_is_given_up_in_time(mute: str) -> None:
    started = time.perf_counter()
    with pytest.raises(TrackerError, match="does not answer"):
        initialise(mute, EXPERIMENT, timeout_s=0.3)
    assert time.perf_counter() - started < 5


def test_a_database_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "not.db").write_text("not a database, whatever its name says" * 10)
    for place in ("file/mlflow.db", "not.db"):
        with pytest.raises(TrackerError, match=place) as caught:
            initialise(f"sqlite:///{tmp_path / place}", EXPERIMENT, timeout_s=1)
        assert "\n" not in str(caught.value)


def test_an_experiment_that_was_deleted_says_how_to_go_on(uri: str) -> None:
    number = initialise(uri, "deleted")
    assert initialise(uri, "deleted") == number
    client(uri).delete_experiment(number)
    with pytest.raises(TrackerError, match=r"restore it .* or set tracking\.experiment=NAME"):
        initialise(uri, "deleted")


def test_artifacts_go_where_the_experiment_was_told(mlflow: MlflowTwin, tmp_path: Path) -> None:
    database = Path(mlflow.uri.removeprefix("sqlite:///"))
    tracker = mlflow.open()
    tracker.log_artifact("note.txt", b"here")
    tracker.finish("FINISHED")
    found = database.parent.glob("artifacts/*/artifacts/note.txt")
    assert [path.read_bytes() for path in found] == [b"here"]
    assert not Path("mlruns").exists()


SET_UP = """
import sys
from colddiff.adapters.mlflow_service import initialise, load_mlflow
load_mlflow(sys.argv[1])
print("loaded", flush=True)
initialise(sys.argv[1], "tests")
print("ready", flush=True)
"""


def _set_up(database: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SET_UP, f"sqlite:///{database}"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_kill_during_set_up_leaves_nothing_behind(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    killed = _set_up(database)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "loaded\n"
    _wait_for(lambda: any(p.stat().st_size > 200_000 for p in tmp_path.glob("mlflow.db.setup")))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not database.exists()
    again = _set_up(database)
    stdout, stderr = again.communicate(timeout=120)
    assert stdout == "loaded\nready\n"
    assert stderr == ""  # nor does mlflow chatter
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["mlflow.db", "mlflow.db.lock"]


@pytest.mark.slow
def test_processes_that_open_a_fresh_database_at_once_all_live(tmp_path: Path) -> None:
    processes = [_set_up(tmp_path / "new" / "mlflow.db") for _ in range(4)]
    for process in processes:
        stdout, stderr = process.communicate(timeout=240)
        assert (process.returncode, stdout, stderr) == (0, "loaded\nready\n", "")


def test_a_store_on_disk_holds_the_spool(uri: str, nobody: str, tmp_path: Path) -> None:
    twin = MlflowTwin(uri, LocalStore(tmp_path))
    tracker = twin.open(nobody)
    _log_ten_steps(tracker)
    tracker.finish("KILLED")
    again = MlflowTwin(uri, LocalStore(tmp_path))
    again.job_id = twin.job_id
    assert again.replay() > 0
    assert len(again.read().history("train/loss_l1")) == 10
    assert again.read().status == "KILLED"


def test_credentials_come_from_the_environment_and_stay_there(
    uri: str, nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, job_id = str(tmp_path), f"train-connect-{uuid4().hex[:8]}"
    secret = nobody.replace("http://", "http://ada:s3cr3t@")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", secret)
    submitted_with = colddiff.connect.tracking_uri(storage)
    assert submitted_with == nobody
    tracker = colddiff.connect.open_tracker(storage, submitted_with, EXPERIMENT, job_id)
    assert isinstance(tracker, MlflowTracker)
    assert tracker.address.uri == secret
    _log_ten_steps(tracker)
    tracker.finish("FINISHED")
    stored = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert stored
    assert not any("s3cr3t" in text for text in stored)
    with pytest.raises(TrackerError, match="does not answer"):
        colddiff.connect.replay_tracking(storage, submitted_with, job_id)
    # Another address than the environment's is taken as it is.
    assert colddiff.connect.replay_tracking(storage, uri, job_id) == 14
    assert colddiff.connect.replay_tracking(storage, uri, job_id) == 0


def _wait_for(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)

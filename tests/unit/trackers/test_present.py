"""MLflow while it answers: one run per job, over attempts and processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from uuid import uuid4

import pytest

from colddiff.errors import TrackerError
from colddiff.retry import Backoff
from colddiff.stores.local_store import LocalStore
from colddiff.stores.memory_store import MemoryStore
from colddiff.tracking.address import TrackingAddress
from colddiff.tracking.mlflow_outbox import MlflowOutbox
from colddiff.tracking.mlflow_run import connect
from colddiff.tracking.mlflow_service import client, initialise
from colddiff.tracking.mlflow_tracker import open_run
from colddiff.tracking.open import open_tracker, replay_tracking, tracking_uri
from colddiff.tracking.session import Session
from colddiff.tracking.spool import Entry, RunHeader, Spool, now_ms
from tests.forked import Forked
from tests.unit.trackers.twins import EXPERIMENT, MlflowTwin, log_ten_steps, png, wait_for


def test_more_than_one_request_holds(mlflow: MlflowTwin) -> None:
    tracker = mlflow.open()
    tracker.log_params({f"field.{i}": str(i) for i in range(250)})
    for step in range(1100):  # a request holds 1000
        tracker.log_metrics({"train/loss_l1": step / 7}, step)
    tracker.finish("FINISHED")
    run = mlflow.read()
    assert len(run.params) == 250
    assert sorted(run.history("train/loss_l1")) == [(step, step / 7) for step in range(1100)]


def test_a_picture_that_is_delivered_again_stands_once(mlflow: MlflowTwin) -> None:
    mlflow.open().finish("FINISHED")
    spool = Spool(mlflow.store, RunHeader(mlflow.job_id, EXPERIMENT, "test", now_ms()))
    run = connect(TrackingAddress(mlflow.uri, None), spool, timeout_s=20.0)
    picture = Entry.image("grid", png(9), 10, now_ms())
    for _ in range(2):
        assert run.deliver([picture], since_ms=now_ms()) == []
    found = client(mlflow.uri).list_artifacts(run.run_id, "images")
    assert sorted(item.path.rpartition(".")[2] for item in found) == ["png", "webp"]
    refused = run.deliver([Entry.image("grid", b"no PNG", 20, now_ms())], since_ms=now_ms())
    assert len(refused) == 1


def test_a_long_param_is_cut_and_says_so(mlflow: MlflowTwin) -> None:
    for _ in range(2):
        tracker = mlflow.open()
        tracker.log_params({"degradation.sigma.values": "1.25, " * 2000})
        tracker.finish("FINISHED")
    (value,) = mlflow.read().params.values()
    assert len(value) == 6000
    assert value.endswith("... [cut, 12000 characters]")
    assert "param.degradation.sigma.values" not in mlflow.read().tags


def test_what_mlflow_refuses_is_set_aside_and_the_rest_arrives(
    mlflow: MlflowTwin, caplog: pytest.LogCaptureFixture
) -> None:
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
    assert any("tracker rejects metric 'bad\\nname'" in line for line in caplog.messages)


def test_artifacts_that_cannot_be_stored_do_not_hold_up_numbers(
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("colddiff.tracking.mlflow_run.UPLOAD", Backoff(0.01, 0.01))
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (tmp_path / "file").write_text("in the way")
    for number, root in enumerate((f"{tmp_path}/file", "s3://bucket/artifacts")):
        experiment = f"{EXPERIMENT}-nowhere-{number}-{uuid4().hex[:8]}"
        initialise(uri, experiment, artifact_root=root)
        store = MemoryStore()
        caplog.clear()
        tracker = open_run(uri, experiment, "train-a-1", "a", spool=store)
        tracker.log_artifact("grid.png", b"grid")
        tracker.log_metrics({"train/loss_l1": 1.0}, step=1)
        assert tracker.flush()
        tracker.log_metrics({"train/loss_l1": 0.5}, step=2)
        tracker.finish("FINISHED")
        assert len(client(uri).get_metric_history(tracker.run_id, "train/loss_l1")) == 2
        assert any("'grid.png'" in line for line in caplog.messages)
        assert len(list(store.list("jobs/train-a-1/tracking/refused/"))) == 1


UNAWAITED = """
import sys
from colddiff.stores.local_store import LocalStore
from colddiff.tracking.mlflow_tracker import open_run
store = LocalStore(sys.argv[2])
driver = open_run(sys.argv[1], "tests", "train-a-1", "a", spool=store, wait=False)
print("reached" if driver.run_id else "returned", flush=True)
driver.log_metrics({"eval/sampled/fid": 9.0}, step=1)
driver.finish("FINISHED")
print(driver.run_id)
"""


def test_without_waiting_a_session_returns_before_mlflow_is_imported(
    tmp_path: Path, tracker_database: Path
) -> None:
    uri = f"sqlite:///{shutil.copy(tracker_database, tmp_path / 'mlflow.db')}"
    done = subprocess.run(
        [sys.executable, "-c", UNAWAITED, uri, str(tmp_path / "store")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
    )
    returned, run_id = done.stdout.splitlines()
    assert returned == "returned"
    run = client(uri).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"eval/sampled/fid": 9.0}
    assert len(client(uri).search_runs([run.info.experiment_id])) == 1


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
from colddiff.tracking.mlflow_service import initialise, load_mlflow
load_mlflow(sys.argv[1])
print("loaded", flush=True)
initialise(sys.argv[1], "tests")
print("ready", flush=True)
"""


def set_up(uri: str) -> None:
    sys.argv[1:] = [uri]
    exec(SET_UP)


@pytest.mark.slow
def test_a_kill_during_set_up_leaves_nothing_behind(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    killed = Forked(set_up, f"sqlite:///{database}")
    wait_for(lambda: any(p.stat().st_size > 200_000 for p in tmp_path.glob("mlflow.db.setup")))
    killed.send_signal(signal.SIGKILL)
    assert killed.communicate()[0] == "loaded\n"
    assert not database.exists()
    again = subprocess.run(
        [sys.executable, "-W", "error", "-c", SET_UP, f"sqlite:///{database}"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout == "loaded\nready\n"
    assert again.stderr == ""  # nor does mlflow chatter
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["mlflow.db", "mlflow.db.lock"]


@pytest.mark.slow
def test_processes_that_open_a_fresh_database_at_once_all_live(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    processes = [Forked(set_up, uri) for _ in range(4)]
    for process in processes:
        stdout, stderr = process.communicate(timeout=240)
        # On a busy machine those that come later say what they wait for.
        others = [line for line in stderr.splitlines() if not line.startswith("waiting for ")]
        assert (process.returncode, stdout, others) == (0, "loaded\nready\n", [])


def test_a_store_on_disk_holds_the_spool(uri: str, nobody: str, tmp_path: Path) -> None:
    twin = MlflowTwin(uri, LocalStore(tmp_path))
    tracker = twin.open(nobody)
    log_ten_steps(tracker)
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
    submitted_with = tracking_uri(storage)
    assert submitted_with == nobody
    tracker = open_tracker(storage, submitted_with, EXPERIMENT, job_id)
    assert isinstance(tracker, Session)
    assert isinstance(tracker._outbox, MlflowOutbox)
    assert tracker._outbox.address.uri == secret
    log_ten_steps(tracker)
    tracker.finish("FINISHED")
    stored = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert stored
    assert not any("s3cr3t" in text for text in stored)
    with pytest.raises(TrackerError, match="does not respond"):
        replay_tracking(storage, submitted_with, job_id)
    # Another address than the environment's is taken as it is.
    assert replay_tracking(storage, uri, job_id) == 14
    assert replay_tracking(storage, uri, job_id) == 0


def test_an_interrupt_while_the_run_is_opened_ends_the_run(
    mlflow: MlflowTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = Session.flush

    def interrupted(tracker: Session, timeout_s: float = 30.0) -> bool:
        flush(tracker, timeout_s)
        monkeypatch.setattr(Session, "flush", flush)
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "flush", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mlflow.open()
    assert mlflow.read().status == "KILLED"

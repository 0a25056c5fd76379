"""MLflow runs of attempts that died end when the loss is known, and go on when the job does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from colddiff.jobs import follow as following
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.follow import AttemptWatch, settle
from colddiff.jobs.runner import DriverState
from colddiff.jobs.status import Status
from colddiff.stores.local_store import LocalStore
from colddiff.tracking.spool import undelivered
from tests.unit.trackers.twins import EXPERIMENT, MlflowTwin

RUNNING = Status("running", attempt=1, step=3, num_steps=9, heartbeat=1.0, host="elsewhere", pid=7)


@pytest.fixture
def tracked(tmp_path: Path, tracker_database: Path) -> tuple[MlflowTwin, JobFolder]:
    """A job with a run, whose driver died without ending either."""
    store = LocalStore(tmp_path / "s")
    database = tmp_path / "s" / "mlflow.db"
    database.parent.mkdir(exist_ok=True)
    database.write_bytes(tracker_database.read_bytes())
    twin = MlflowTwin(f"sqlite:///{database}", store)
    folder = JobFolder(store, twin.job_id)
    spec = {"tracking": {"experiment": EXPERIMENT}}
    folder.write_job({"id": twin.job_id, "verb": "train", "spec": spec, "tracking_uri": twin.uri})
    folder.claim(1, {"host": "elsewhere", "pid": 7})
    tracker = twin.open()
    tracker.log_metrics({"train/loss_l1": 1.0}, 1)
    tracker.close()  # of the session, as when its process dies after a flush
    folder.write_status(RUNNING)
    return twin, folder


def state_of(twin: MlflowTwin) -> str:
    return twin.read().status


Tracked = tuple[MlflowTwin, JobFolder]


@pytest.mark.parametrize(
    ("driver", "job", "run"),
    [
        (None, "lost", "FAILED"),
        (DriverState(ended=True, ending="killed", detail="signal 9"), "lost", "FAILED"),
        (DriverState(ended=True, ending="exited", detail="exit code 1"), "failed", "FAILED"),
        (DriverState(ended=True, ending="stopped"), "stopped", "KILLED"),
    ],
)
def test_it_ends_with_the_verdict_and_goes_on_with_the_next_attempt(
    tracked: Tracked, driver: DriverState | None, job: str, run: str
) -> None:
    twin, folder = tracked
    assert state_of(twin) == "RUNNING"
    assert settle(folder, 1, driver, None).state == job
    assert state_of(twin) == run
    assert undelivered(folder.store, twin.job_id) == []
    again = twin.open()
    again.flush()
    assert state_of(twin) == "RUNNING"
    again.finish("FINISHED")
    assert state_of(twin) == "FINISHED"


def test_it_ends_where_nobody_knows_the_driver_but_by_its_silence(
    tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin, folder = tracked
    monkeypatch.setattr(following, "LOST_AFTER_S", -1.0)
    assert AttemptWatch(folder, 1, None).look().status.state == "lost"
    assert state_of(twin) == "FAILED"


def test_it_ends_later_where_the_tracker_is_away(
    tracked: Tracked, caplog: pytest.LogCaptureFixture
) -> None:
    twin, folder = tracked
    nobody = "http://127.0.0.1:1"
    folder.write_job({**folder.job(), "tracking_uri": nobody})
    assert settle(folder, 1, None, None).state == "lost"
    assert f"{twin.job_id}: its tracking run has not ended yet" in caplog.text
    assert state_of(twin) == "RUNNING"
    assert twin.replay() == 1
    assert state_of(twin) == "FAILED"


def test_a_database_of_another_machine_is_not_made_here(tracked: Tracked, tmp_path: Path) -> None:
    twin, folder = tracked
    elsewhere = tmp_path / "elsewhere" / "mlflow.db"
    folder.write_job({**folder.job(), "tracking_uri": f"sqlite:///{elsewhere}"})
    settle(folder, 1, None, None)
    assert not elsewhere.parent.exists()
    assert len(undelivered(folder.store, twin.job_id)) == 1


def test_a_job_without_a_run_gets_none(tmp_path: Path) -> None:
    folder = JobFolder(LocalStore(tmp_path), "train-a-0")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    folder.write_job({"id": "train-a-0", "verb": "train", "spec": {}, "tracking_uri": uri})
    folder.claim(1, {"host": "elsewhere", "pid": 7})
    folder.write_status(replace(RUNNING, state="queued"))
    assert settle(folder, 1, None, None).state == "lost"
    assert not (tmp_path / "mlflow.db").exists()
    assert undelivered(folder.store, "train-a-0") == []

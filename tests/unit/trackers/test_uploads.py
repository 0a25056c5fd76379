"""Artifacts that cannot be uploaded: set aside where the tracker answers, else kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from colddiff.errors import TrackerError
from colddiff.retry import Backoff
from colddiff.tracking import mlflow_run
from colddiff.tracking.mlflow_run import MlflowRun
from colddiff.tracking.mlflow_service import client
from colddiff.tracking.spool import Entry
from tests.unit.trackers.twins import MlflowTwin

RUN = SimpleNamespace(
    info=SimpleNamespace(run_id="r", status="RUNNING", lifecycle_stage="active"),
    data=SimpleNamespace(params={}, tags={}, metrics={}),
)
ARTIFACT = Entry.artifact("a.txt", b"text", 1)


class Api:
    """A tracker whose place for artifacts does not answer, and which may go away meanwhile."""

    def __init__(self, *, goes_away: bool) -> None:
        self.goes_away, self.away = goes_away, False

    def get_run(self, run_id: str) -> Any:
        if self.away:
            raise ConnectionError("nobody answers")
        return RUN

    def log_artifact(self, run_id: str, path: str, folder: str | None) -> None:
        self.away = self.goes_away
        raise ConnectionError("no way to the artifacts")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_run, "UPLOAD", Backoff(0.0, 0.0))


def test_a_place_for_artifacts_that_does_not_answer_holds_nothing_up() -> None:
    run = MlflowRun(Api(goes_away=False), "http://tracker", RUN, str)
    [found] = run.deliver([ARTIFACT], since_ms=1)
    assert found.entry == ARTIFACT
    assert "no way to the artifacts" in found.reason
    assert not found.for_good


def test_what_a_tracker_that_is_away_did_not_take_is_not_set_aside() -> None:
    run = MlflowRun(Api(goes_away=True), "http://tracker", RUN, str)
    with pytest.raises(TrackerError, match="nobody answers"):
        run.deliver([ARTIFACT], since_ms=1)


def test_what_had_no_place_is_uploaded_once_there_is_one(
    mlflow: MlflowTwin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    api, broken = type(client(mlflow.uri)), ["the bucket does not answer"]
    upload = api.log_artifact

    def log_artifact(self: Any, *words: Any) -> None:
        if broken:
            raise ConnectionError(broken[0])
        upload(self, *words)

    def set_aside() -> list[str]:
        return [item.key for item in mlflow.store.list(f"jobs/{mlflow.job_id}/tracking/refused/")]

    monkeypatch.setattr(api, "log_artifact", log_artifact)
    tracker = mlflow.open()
    for text in (b"old", b"new"):
        tracker.log_artifact("a.txt", text)
        tracker.flush()
    tracker.log_artifact("b.txt", b"b")
    tracker.flush()
    assert len(set_aside()) == 2  # a kill loses neither
    assert any("cannot keep artifact 'a.txt' (" in line for line in caplog.messages)
    broken.clear()
    tracker.log_artifact("b.txt", b"newer")
    tracker.flush()
    assert mlflow.read().artifacts == {"b.txt": b"newer"}
    tracker.finish("FINISHED")
    assert mlflow.read().artifacts == {"a.txt": b"new", "b.txt": b"newer"}
    assert set_aside() == []

"""MLflow while it does not answer: nothing lost, nothing twice, nobody waits."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from colddiff import slow_calls
from colddiff.errors import TrackerError
from colddiff.tracking.address import TrackingAddress
from colddiff.tracking.mlflow_service import client, initialise, translated
from colddiff.tracking.spool import Entry, RunHeader, decode, now_ms, undelivered
from tests.unit.trackers.twins import EXPERIMENT, MlflowTwin, log_ten_steps


def test_down_from_start_to_end_and_replayed_later(
    mlflow: MlflowTwin, nobody: str, caplog: pytest.LogCaptureFixture
) -> None:
    started = now_ms()
    tracker = mlflow.open(nobody)
    assert tracker.run_id == ""
    log_ten_steps(tracker)
    tracker.finish("FINISHED")
    ended = now_ms()
    said = f"tracker {nobody} does not respond (Connection refused); entries are spooled in "
    assert [line for line in caplog.messages if "respond" in line] == [
        f"{said}{mlflow.store.uri} until it is back"
    ]
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


def test_an_outage_is_made_up_for_in_a_few_requests(
    mlflow: MlflowTwin, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = mlflow.open(nobody)
    for step in range(20):
        down.log_metrics({"train/loss_l1": step / 3}, step)
        assert not down.flush()
    down.close()
    assert len(undelivered(mlflow.store, mlflow.job_id)) >= 20
    api, sizes = type(client(mlflow.uri)), list[int]()
    send = api.log_batch

    def counted(self: Any, run_id: str, metrics: Any = (), **more: Any) -> Any:
        sizes.append(len(metrics))
        return send(self, run_id, metrics=metrics, **more)

    monkeypatch.setattr(api, "log_batch", counted)
    assert mlflow.replay() > 20
    assert sizes == [20]
    assert len(mlflow.read().history("train/loss_l1")) == 20
    assert undelivered(mlflow.store, mlflow.job_id) == []


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


def test_what_an_earlier_version_spooled_is_read() -> None:
    header = {"job_id": "train-a-1", "experiment": "e", "run_name": "a", "start_ms": 7, "tags": {}}
    entry = {"kind": "metric", "key": "train/loss_l1", "value": "0.5", "time_ms": 8, "step": 3}
    lines = [json.dumps({"format": 1, **header}), json.dumps(entry)]
    found = decode("spool/0-a/0.jsonl", "\n".join(lines).encode())
    assert found == (
        RunHeader("train-a-1", "e", "a", 7),
        [Entry.metric("train/loss_l1", 0.5, 3, 8)],
    )


def test_a_damaged_spooled_object_does_not_hold_up_the_rest(
    mlflow: MlflowTwin, nobody: str, caplog: pytest.LogCaptureFixture
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
    assert sum("not a spooled tracking object" in line for line in caplog.messages) == 3


def test_credentials_are_never_said(
    mlflow: MlflowTwin, nobody: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = nobody.replace("http://", "http://lovelace:s3cr3t@")
    tracker = mlflow.open(secret)
    tracker.finish("FINISHED")
    with pytest.raises(TrackerError) as caught:
        initialise(secret, EXPERIMENT)
    said = [*caplog.messages, str(caught.value), repr(TrackingAddress(secret))]
    stored = b"".join(mlflow.store.get(o.key) for o in mlflow.store.list())
    assert len(said) >= 3
    assert not any("s3cr3t" in line or "lovelace" in line for line in [*said, stored.decode()])


def test_a_server_that_is_not_there_is_one_line_with_the_way_out(nobody: str) -> None:
    with pytest.raises(TrackerError, match=r"tracking\.required=false") as caught:
        initialise(nobody, EXPERIMENT, timeout_s=2)
    assert caught.value.exit_code == 3
    assert nobody in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_hangs_is_given_up_in_time(mute: str) -> None:
    started = time.perf_counter()
    with pytest.raises(TrackerError, match="does not respond"):
        initialise(mute, EXPERIMENT, timeout_s=0.3)
    assert time.perf_counter() - started < 5


def test_a_server_that_hangs_is_named_while_it_is_waited_for(
    mute: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(slow_calls, "SAY_S", 0.3)
    monkeypatch.setattr(slow_calls, "LOOK_S", 0.1)
    monkeypatch.setattr(slow_calls.SLOW_CALLS, "_said", {})
    with pytest.raises(TrackerError, match="does not respond"):
        initialise(mute, EXPERIMENT, timeout_s=2.0)
    assert f"waiting for tracker {mute} (whether it responds)" in caplog.text


def test_a_database_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "not.db").write_text("not a database, whatever its name says" * 10)
    for place in ("file/mlflow.db", "not.db"):
        with pytest.raises(TrackerError, match=place) as caught:
            initialise(f"sqlite:///{tmp_path / place}", EXPERIMENT, timeout_s=1)
        assert "\n" not in str(caught.value)


class _OldServer(BaseHTTPRequestHandler):
    """A server that is healthy, and has none of the calls of today's MLflow."""

    def answer(self) -> None:
        healthy = self.path == "/health"
        body = b"OK" if healthy else b"<title>404 Not Found</title>"
        self.send_response(200 if healthy else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_server_that_is_too_old_is_one_line_with_the_way_out() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _OldServer) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        with pytest.raises(TrackerError, match=r"has no /api/\S+: .*too old.*upgrade the server"):
            initialise(f"http://127.0.0.1:{server.server_address[1]}", EXPERIMENT)
        server.shutdown()


def test_a_request_that_nobody_answers_is_one_short_line(nobody: str) -> None:
    api = client(nobody)
    with pytest.raises(TrackerError) as raised, translated(nobody):
        api.get_experiment_by_name("colddiff")
    assert str(raised.value) == f"tracker {nobody} does not respond (Connection refused)"

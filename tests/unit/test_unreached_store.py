"""A job whose nodes do not reach its store ends with one line that says where to set what."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayTaskError
from ray.train import WorkerGroupError

from colddiff.cluster import driver
from colddiff.cluster.local_cluster import MARKER
from colddiff.cluster.nodes.places import denied_node_named, refuse_other_store, unreached
from colddiff.cluster.ray_jobs import driver_state
from colddiff.cluster.ray_workers import WorkerActor
from colddiff.errors import ColddiffError, StoreDenied, StoreError
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.follow import settle
from colddiff.jobs.in_process import InProcess
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.status import Status
from colddiff.stores.local_store import LocalStore
from colddiff.stores.open import open_store, probed
from colddiff.stores.s3_store import S3Store
from colddiff.verbs.evaluate.job import EvaluateJob
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.on_ray import answer_of
from colddiff.verbs.train.ray_restarts import _reason

STORAGE = "s3://bucket/runs"
DENIED = "read jobs/x: no credentials for https://s3; set AWS_ACCESS_KEY_ID"
AT_START = "jobs have the environment of `ray start`: set it there, on each node"


@pytest.fixture
def denied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Arguments of a driver that never reaches its store."""
    for name in ("init", "nodes"):
        monkeypatch.setattr(ray, name, lambda **_: [])
    monkeypatch.setattr("colddiff.jobs.logs.printed", lambda *_: nullcontext(lambda: None))
    monkeypatch.setattr("colddiff.jobs.logs.log_to_stderr", lambda: None)
    monkeypatch.delenv(MARKER, raising=False)

    def size(self: S3Store, key: str) -> int:
        raise StoreError(DENIED)

    monkeypatch.setattr(S3Store, "size", size)
    return arguments(tmp_path, STORAGE)


def arguments(folder: Path, storage: str) -> list[str]:
    resolved = ResolvedJob("train-x-00000000", "x", TrainJob(), storage, "", {}, 1.0, {}, {})
    (folder / "job.json").write_text(json.dumps(resolved.to_dict()))
    return [str(folder / "job.json"), "--attempt", "1"]


def test_it_is_the_last_line_of_its_log_and_all_that_its_client_says(
    denied: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert driver.main(denied) == 1
    (line,) = capsys.readouterr().err.splitlines()
    expected = f"the cluster's nodes cannot reach {STORAGE}: {DENIED}; {AT_START}"
    assert line == f"colddiff: error: {expected}"

    class Printed(InProcess):
        def log(self, folder: JobFolder, attempt: int) -> str:
            return f"waiting for https://s3\n2026-11-28 00:06:55Z {line}\n(raylet) bye\n"

    monkeypatch.undo()
    folder = JobFolder(LocalStore(tmp_path), "train-x-00000000")
    verdict = settle(folder, 1, driver_state("FAILED", 1, ""), Printed())
    assert (verdict.state, verdict.message) == ("failed", expected)


def test_a_driver_with_another_store_of_that_address_writes_nothing_to_it(
    denied: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("colddiff.jobs.logs.printed", lambda *_: pytest.fail("it writes a log"))
    storage = tmp_path / "runs"
    assert driver.main(arguments(tmp_path, str(storage))) == 1
    (line,) = capsys.readouterr().err.splitlines()
    lacks = f"{storage} lacks train-x-00000000, which was submitted to it"
    assert line.startswith(f"colddiff: error: {lacks}")
    assert not list(storage.rglob("*")), "not even a log"


def test_a_driver_that_had_begun_says_the_error_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MARKER, raising=False)
    attempt: Any = Attempt(
        ResolvedJob("train-x-0", "x", TrainJob(), STORAGE, "", {}, 1.0, {}, {}), 1
    )
    other = ColddiffError("attempt 1 has\nanother driver")
    assert driver.last_words(attempt, other) == "attempt 1 has another driver"
    assert driver.last_words(attempt, StoreError(DENIED)).endswith(AT_START)
    monkeypatch.setenv(MARKER, "0")
    assert "`colddiff cluster stop`" in driver.last_words(attempt, StoreError(DENIED))
    attempt._status = Status("running", attempt=1)
    assert driver.last_words(attempt, StoreError(DENIED)) == DENIED


def test_a_worker_without_credentials_names_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MARKER, raising=False)
    monkeypatch.setattr("colddiff.cluster.ray_workers.log_to_stderr", lambda: None)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.3")

    class Denied(WorkerActor):
        def open(self, resolved: ResolvedJob) -> None:
            raise StoreDenied(DENIED)

        def work(self, opened: None, task: dict[str, Any]) -> None:
            raise AssertionError

    job = EvaluateJob(checkpoint="x")
    resolved = ResolvedJob("evaluate-x-00000000", "x", job, STORAGE, "", {}, 1.0, {}, {})
    expected = f"node 10.0.0.3 cannot reach {STORAGE}: {DENIED}; {AT_START}"
    found = Denied(resolved.to_dict()).attempt({})
    assert found == {"kind": "denied", "message": expected}
    # The workers of a training say it whole, and its driver passes it on.
    with pytest.raises(StoreDenied) as caught, denied_node_named(STORAGE):
        raise StoreDenied(DENIED)
    failed = WorkerGroupError("workers failed", {0: caught.value})
    assert _reason(failed) == expected
    # What another one says is true of the store, not of the node.
    with pytest.raises(StoreError, match=r"^responds 503$"), denied_node_named(STORAGE):
        raise StoreError("responds 503")


def test_the_line_of_a_node_says_where_to_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MARKER, raising=False)

    def refused(*_: object) -> None:
        raise StoreError(DENIED)

    monkeypatch.setattr("colddiff.stores.open.check_writable", refused)
    (store, tracker) = unreached(STORAGE, "http://127.0.0.1:9", make=False)
    assert store == f"store: {DENIED}; {AT_START}"
    assert tracker.endswith(AT_START)


@pytest.mark.parametrize("in_s3", [False, True], ids=["a path", "S3"])
def test_another_store_of_the_same_address_is_told(
    in_s3: bool, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines have a folder of one path each, or name two services of S3."""
    monkeypatch.delenv(MARKER, raising=False)
    storage, way = str(tmp_path), "or a path that all machines share"
    if in_s3:
        storage = f"s3://{request.getfixturevalue('s3_service').new_bucket()}"
        way = f"must name one service for who submits and for all nodes; {AT_START}"
    tracker = f"sqlite:///{tmp_path}/mlflow.db"
    with probed(storage) as mark:
        assert unreached(storage, tracker, make=False, mark=mark) == []
    (line,) = unreached(storage, tracker, make=False, mark=mark)
    assert line.startswith(f"store: {storage} lacks what was just written to it: ")
    assert line.endswith(way)
    folder = JobFolder(open_store(storage), "train-a-00000001")
    with pytest.raises(ColddiffError) as error:
        refuse_other_store(folder, storage)
    assert f"{storage} lacks train-a-00000001, which was submitted to it" in str(error.value)
    assert list(folder.store.list()) == [], "nothing is written to a store that is the wrong one"
    folder.write_job({"id": folder.job_id})
    refuse_other_store(folder, storage)


def test_an_evaluation_that_is_denied_fails_with_the_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def get(task: object) -> None:
        said = RayTaskError("run", "Traceback (most recent call last): ...", StoreDenied(DENIED))  # type: ignore[no-untyped-call]
        raise said.as_instanceof_cause()  # type: ignore[no-untyped-call]

    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(StoreDenied) as caught:
        answer_of("task")
    assert str(caught.value) == DENIED

"""`colddiff delete`: what of a job's work stays elsewhere is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import Status
from colddiff.stores.local_store import LocalStore
from tests.in_process import Done, colddiff_here

JOB = "generate-a-00000001"
Delete = Callable[..., Done]


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def delete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Delete:
    def run(*words: str) -> Done:
        return colddiff_here(monkeypatch, capsys, "delete", JOB, "--yes", *words)

    return run


def made(storage: Path, out: Path | None, *, images: bool = True) -> Path:
    """A generate job that is done, and its samples."""
    folder = JobFolder(LocalStore(storage), JOB)
    folder.write_job({"id": JOB, "spec": {"out": out and str(out)}})
    folder.write_status(Status("done", attempt=1, step=9, num_steps=9, heartbeat=1.0))
    place = out or storage / "samples" / JOB
    if images:
        LocalStore(place).put("manifest.json", b"{}")
    return place


@pytest.mark.parametrize("out", [None, "mine"])
def test_images_that_are_left_are_named(
    storage: Path, tmp_path: Path, delete: Delete, out: str | None
) -> None:
    place = made(storage, tmp_path / out if out else None)
    assert f"still in {place}: `rm -r {place}` deletes it" in delete().stderr
    assert (place / "manifest.json").exists()
    made(storage, tmp_path / out if out else None)
    assert json.loads(delete("--json").stdout)["left"] == str(place)


def test_a_job_that_waits_is_to_be_stopped_before_anything_is_asked(
    storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made(storage, None)
    folder = JobFolder(LocalStore(storage), JOB)
    monkeypatch.setattr("colddiff.cluster.operate.current", lambda *_: Status("running", 1))
    done = colddiff_here(monkeypatch, capsys, "delete", JOB)
    assert done.returncode == 1
    assert f"{JOB} is running; run `colddiff stop {JOB}` first" in done.stderr
    monkeypatch.setattr("colddiff.cluster.operate.current", lambda *_: folder.status())
    done = colddiff_here(monkeypatch, capsys, "delete", JOB)
    assert (done.returncode, "add --yes" in done.stderr) == (2, True)


def test_jobs_that_are_made_from_it_are_named(storage: Path, delete: Delete) -> None:
    specs = {
        "evaluate-b-00000002": {"samples": f"{storage}/samples/{JOB}"},
        "evaluate-c-00000003": {"checkpoint": f"{JOB}@best"},
        "search-d-00000004": {
            "base": {"checkpoint": f"s3://b/jobs/{JOB}/checkpoints/step_00000001"}
        },
        "evaluate-e-00000005": {"samples": f"{storage}/samples/{JOB}0"},
    }
    for job_id, spec in specs.items():
        JobFolder(LocalStore(storage), job_id).write_job({"id": job_id, "spec": spec})
    made(storage, None)
    users = "evaluate-b-00000002, evaluate-c-00000003, search-d-00000004"
    line = f"made from {JOB}, and without it once it is deleted: {users}"
    assert line in delete().stderr.splitlines()
    made(storage, None)
    assert json.loads(delete("evaluate-c-00000003", "--json").stdout.splitlines()[0])[
        "made_from_it"
    ] == ["evaluate-b-00000002", "search-d-00000004"]


def test_the_jobs_that_it_ran_are_said_to_stay(storage: Path, delete: Delete) -> None:
    tracking = {"parent": JOB, "tags": {f"colddiff.{JOB.partition('-')[0]}": JOB}}
    for job_id, spec in {"train-a-00000002": tracking, "train-b-00000003": {}}.items():
        JobFolder(LocalStore(storage), job_id).write_job({"id": job_id, "spec": {"tracking": spec}})
    made(storage, None)
    line = "the 1 job that it ran stays, in `colddiff list --all`: train-a-00000002"
    assert line in delete().stderr.splitlines()
    made(storage, None)
    assert json.loads(delete("--json").stdout)["ran"] == ["train-a-00000002"]


def test_nothing_is_said_where_nothing_is_left(storage: Path, delete: Delete) -> None:
    made(storage, None, images=False)
    done = delete()
    assert (done.returncode, "still in" in done.stderr) == (0, False)


def test_a_place_that_cannot_be_read_keeps_no_job_from_being_deleted(
    storage: Path, delete: Delete
) -> None:
    made(storage, None)
    record = {"id": JOB, "spec": {"out": "nothing://like/that"}}
    (storage / "jobs" / JOB / "job.json").write_text(json.dumps(record))
    assert delete().returncode == 0
    assert not (storage / "jobs" / JOB / "status.json").exists()

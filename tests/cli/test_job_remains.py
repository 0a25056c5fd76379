"""What is left of jobs: empty folders of other tools, and steps that were trained again."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import Status
from colddiff.machine.processes import this_claimant
from colddiff.stores.local_store import LocalStore
from tests.in_process import Done, colddiff_here


class Colddiff:
    """The command on a storage with one job that failed."""

    def __init__(
        self, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str], storage: Path
    ) -> None:
        self._patch, self._captured = patch, captured
        patch.setenv("COLDDIFF_STORAGE", str(storage))
        self.folder = JobFolder(LocalStore(storage), "train-a-01234567")
        self.folder.write_job({"id": self.folder.job_id})
        self.folder.claim(1, {"host": "here", "pid": 1})
        self.folder.write_status(Status("failed", attempt=1, step=3, num_steps=9, heartbeat=1.0))

    def __call__(self, *words: str) -> Done:
        return colddiff_here(self._patch, self._captured, *words)


@pytest.fixture
def colddiff(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Colddiff:
    return Colddiff(monkeypatch, capsys, tmp_path / "runs")


def test_status_says_how_many_steps_were_trained_again(colddiff: Colddiff) -> None:
    folder = colddiff.folder
    assert "trained again" not in colddiff("status", folder.job_id).stdout
    for steps in (0, 4, 1):
        folder.take_fencing_token(1, {"step": 2, "repeated_steps": steps})
    told = colddiff("status", folder.job_id).stdout
    assert "2 restarts after a kill: 5 steps trained again" in told
    assert json.loads(colddiff("status", folder.job_id, "--json").stdout)["repeated_steps"] == 5


def test_status_of_a_job_that_was_stopped_keeps_what_it_found_and_says_how_to_go_on(
    colddiff: Colddiff, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = colddiff.folder
    folder.write_reports(1, ["step 100: rmse 0.2", "step 200: rmse 0.1"])
    with monkeypatch.context() as patch:
        words = ["submit", "train", "my blur.yaml", "num_steps=400", "data=https://x/y?token=abc"]
        patch.setattr("sys.argv", ["/opt/bin/colddiff", *words, "--address=http://me:pw@host:1"])
        folder.claim(2, this_claimant())
    score: dict[str, Any] = {"score": 0.1, "score_metric": "eval/sampled/rmse"}
    status = Status("stopped", attempt=2, step=230, num_steps=400, **score)
    folder.write_status(status)
    told = colddiff("status", folder.job_id).stdout.splitlines()
    assert "  step 200: rmse 0.1" in told
    assert "  best so far: rmse 0.1" in told
    data = "'data=https://x/y?token=***'"
    command = f"colddiff submit train 'my blur.yaml' num_steps=400 {data}"
    assert f"  again: {command} --address=http://***@host:1" in told
    # What is done has nothing to go on with, and another program no command.
    folder.write_status(replace(status, state="done"))
    assert "again: " not in colddiff("status", folder.job_id).stdout
    assert "command" not in this_claimant()


def test_a_job_without_its_workers_waits_in_every_word(colddiff: Colddiff) -> None:
    folder = colddiff.folder
    line = "for 2 workers with 1 GPU; the cluster has 1 GPU (0 free)"
    here: dict[str, Any] = {"host": os.uname().nodename, "pid": os.getpid()}  # a driver that lives
    folder.write_status(Status("running", attempt=1, phase="waiting", detail=line, **here))
    first, *_ = colddiff("status", folder.job_id).stdout.splitlines()
    assert first == f"{folder.job_id}: waiting, attempt 1"
    assert folder.job_id in colddiff("list", "--state", "waiting").stdout
    assert f"{folder.job_id} is waiting" in colddiff("delete", folder.job_id, "--yes").stderr


def test_several_jobs_at_once(colddiff: Colddiff) -> None:
    first, store = colddiff.folder, colddiff.folder.store
    ids = [first.job_id, "train-a-00000002", "train-a-00000003"]
    other, running = (JobFolder(store, job_id) for job_id in ids[1:])
    here: dict[str, Any] = {"host": os.uname().nodename, "pid": os.getpid()}
    for folder, status in (
        (other, Status("stopped", attempt=1, message="asked to")),
        (running, Status("running", attempt=1, **here)),
    ):
        folder.write_job({"id": folder.job_id})
        folder.claim(1, here)
        folder.write_status(status)
    told = colddiff("status", *ids, ids[0]).stdout.splitlines()
    assert [line for line in told if ", attempt" in line] == [
        f"{job_id}: {state}, attempt 1"
        for job_id, state in zip(ids, ("failed", "stopped", "running"), strict=True)
    ]
    found = colddiff("status", *ids, "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in found] == ids
    for waited, code in ((ids[:2], 1), (ids[1:2], 4)):
        assert colddiff("wait", *waited).returncode == code
    # A word that is wrong stops none.
    assert colddiff("stop", ids[2], "train-a-00000009").returncode == 2
    assert not running.stop_requested(1)
    done = colddiff("delete", "--yes", ids[2], *ids[:2])
    assert (done.returncode, f"{ids[2]} is running" in done.stderr) == (1, True)
    assert [row["id"] for row in json.loads(colddiff("list", "--json").stdout)] == ids[2:]


def test_jobs_that_are_stopped_together_are_asked_at_once(
    colddiff: Colddiff, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = JobFolder(colddiff.folder.store, "train-a-00000002")
    second.write_job({"id": second.job_id})
    second.write_status(Status("running", attempt=1))
    asked: list[bool] = []

    def stop(folder: JobFolder, *_: object) -> Status | None:
        asked.append(second.stop_requested(1))
        return folder.status()

    monkeypatch.setattr("colddiff.cluster.operate.stop", stop)
    assert colddiff("stop", colddiff.folder.job_id, second.job_id).returncode == 0
    assert asked == [True, True]


def test_empty_folders_of_other_tools_go_with_their_job(colddiff: Colddiff) -> None:
    job_id = colddiff.folder.job_id
    stray = Path(colddiff.folder.uri) / "ray" / "left by another tool"
    stray.mkdir(parents=True)
    assert colddiff("delete", job_id, "--yes").returncode == 0
    assert not stray.exists()
    assert json.loads(colddiff("list", "--json").stdout) == []


def test_a_job_whose_record_is_gone_can_be_deleted_by_its_whole_id(colddiff: Colddiff) -> None:
    folder, other = colddiff.folder, JobFolder(colddiff.folder.store, "train-a-0123456789")
    other.write_job({"id": other.job_id})
    folder.store.delete(folder.key("job.json"))
    told = colddiff("status", folder.job_id).stderr
    assert f"{folder.uri} lacks its job.json: put it back, or delete what is left by" in told
    assert f"`colddiff delete {folder.job_id}`" in told
    done = colddiff("delete", folder.job_id, "--yes")
    assert done.returncode == 0, done.stderr
    assert not Path(folder.uri).exists()
    assert other.job()["id"] == other.job_id


def test_those_that_an_earlier_version_left_can_be_deleted(colddiff: Colddiff) -> None:
    job_id = colddiff.folder.job_id
    colddiff("delete", job_id, "--yes")
    (Path(colddiff.folder.uri) / "ray" / "left by another tool").mkdir(parents=True)
    unknown = colddiff("status", job_id)
    assert unknown.returncode == 2
    assert "did you mean" not in unknown.stderr
    assert colddiff("delete", job_id, "--yes").stderr.startswith("deleted empty folders")
    assert json.loads(colddiff("list", "--json").stdout) == []
    assert colddiff("delete", job_id, "--yes").returncode == 2

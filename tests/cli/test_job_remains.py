"""What is left of jobs: empty folders of other tools, and steps that were trained again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import Status
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


def test_a_job_without_its_workers_waits_in_every_word(colddiff: Colddiff) -> None:
    folder = colddiff.folder
    line = "for 2 workers with 1 GPU; the cluster has 1 GPU (0 free)"
    here = {"host": os.uname().nodename, "pid": os.getpid()}  # a driver that lives
    folder.write_status(Status("running", attempt=1, phase="waiting", detail=line, **here))
    first, *_ = colddiff("status", folder.job_id).stdout.splitlines()
    assert first == f"{folder.job_id}: waiting, attempt 1"
    assert folder.job_id in colddiff("list", "--state", "waiting").stdout
    assert f"{folder.job_id} is waiting" in colddiff("delete", folder.job_id, "--yes").stderr


def test_empty_folders_of_other_tools_go_with_their_job(colddiff: Colddiff) -> None:
    job_id = colddiff.folder.job_id
    stray = Path(colddiff.folder.uri) / "ray" / "left by another tool"
    stray.mkdir(parents=True)
    assert colddiff("delete", job_id, "--yes").returncode == 0
    assert not stray.exists()
    assert json.loads(colddiff("list", "--json").stdout) == []


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

"""A whole study in this process: every training once, killed, stopped, with one that fails."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import colddiff
from colddiff.errors import Stopped
from colddiff.jobs.folder import JobFolder
from colddiff.tracking.mlflow_service import client
from colddiff.verbs.study.table import best_mean
from tests.in_process import colddiff_here
from tests.unit.study.tiny_study import (
    LR,
    TRAIN,
    attempts,
    folder_of,
    members_in,
    tiny_study,
    trained,
    write_study,
)

Here = tuple[pytest.MonkeyPatch, pytest.CaptureFixture[str]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    return monkeypatch, capsys


def runs_of(storage: Path) -> dict[str, Any]:
    """All tracking runs, by the id of their job."""
    api = client(f"sqlite:///{storage}/mlflow.db")
    experiment = api.get_experiment_by_name("colddiff")
    assert experiment is not None
    runs = api.search_runs([experiment.experiment_id])
    return {run.data.tags["colddiff.job_id"]: run for run in runs}


def test_a_study_trains_what_nobody_has_trained_and_reports_all(
    storage: Path, tmp_path: Path, here: Here
) -> None:
    job = write_study(tmp_path / "tiny.yaml")
    alone = colddiff_here(
        *here, "submit", "train", job, "seed=1", "optimizer.lr=0.002", "--local"
    ).stdout.strip()
    before = (storage / "jobs" / alone / "result.json").read_bytes()

    done = colddiff_here(*here, "submit", "study", job, "--local")
    assert done.returncode == 0, done.stderr
    assert "1 of 4 already done, 0 resumed\n" in done.stderr
    assert "taken as it is" not in done.stderr
    assert done.stderr.count("are too few for") == 1, "true of all four"
    # Progress is told by the metric that stands for so few images, as `JOB@best` is.
    assert re.findall(r"of 4 jobs: \S+: (\S+) ", done.stderr) == ["eval/sampled/rmse"] * 3
    study = folder_of(storage)
    assert done.stdout == f"{study.job_id}\n"
    result = study.result()
    assert result
    members = result["members"]
    assert [(m["entry"], m["seed"], m["state"]) for m in members] == [
        (0, 0, "done"),
        (0, 1, "done"),
        (1, 0, "done"),
        (1, 1, "done"),
    ]
    assert members == members_in(storage)
    assert members[3]["id"] == alone
    assert (members[3]["overrides"], members[3]["differs"]) == ({LR: 2e-3}, {LR: 2e-3})
    assert (storage / "jobs" / alone / "result.json").read_bytes() == before
    assert attempts(storage) == {member["id"]: [1] for member in members}
    for member in members:
        own = JobFolder(study.store, member["id"]).result()
        assert own
        assert member["metrics"] == own["metrics"]

    runs = runs_of(storage)
    parent = runs[study.job_id]
    assert (parent.info.status, parent.data.metrics["study/jobs"]) == ("FINISHED", 4)
    _, best = best_mean(result["over_seeds"]) or ("", 0.0)
    assert parent.data.metrics["study/best"] == result["metrics"]["study/best"] == best > 0
    nested = {i for i, run in runs.items() if run.data.tags.get("colddiff.study") == study.job_id}
    assert nested == trained(storage) - {alone}
    assert {runs[i].data.tags["mlflow.parentRunId"] for i in nested} == {parent.info.run_id}

    for shown in (done.stderr, (storage / "jobs" / study.job_id / "study.md").read_text()):
        assert "mean of 2" in shown
        assert "tiny optimizer.lr=0.002" in shown
    again = colddiff_here(*here, "submit", "study", job, "seeds=[0, 1]", "--local")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert f"{study.job_id} is done (4 of 4 jobs)" in again.stderr
    assert "mean of 2" in again.stderr
    assert "4/4 jobs" in colddiff_here(*here, "list").stdout
    assert study.attempts() == [1]
    assert attempts(storage) == {member["id"]: [1] for member in members}

    # More steps are the same study, whose trainings go on; a lost training is trained again.
    more = colddiff_here(*here, "submit", "study", job, "overrides.num_steps=5", "--local")
    assert (more.returncode, more.stdout) == (0, done.stdout)
    assert "0 of 4 already done, 4 resumed\n" in more.stderr
    assert {member["step"] for member in members_in(storage)} == {5}
    (storage / "jobs" / alone / "checkpoints" / "step_00000005" / "checkpoint.json").unlink()
    mended = colddiff_here(*here, "submit", "study", job, "overrides.num_steps=5", "--local")
    assert mended.returncode == 0, mended.stderr
    assert "3 of 4 already done, 1 resumed\n" in mended.stderr
    assert attempts(storage)[alone] == [1, 2, 3]

    fewer = "overrides.evaluation.num_images=12"
    unlike = colddiff_here(*here, "submit", "study", job, "seeds=[1, 2]", fewer, "--local")
    assert unlike.returncode == 0, unlike.stderr
    assert "2 of 4 already done, 0 resumed\n" in unlike.stderr
    assert unlike.stderr.count(" is taken as it is: evaluated otherwise than asked\n") == 2
    assert "mean of" not in unlike.stderr


def test_a_study_that_was_killed_and_stopped_repeats_nothing(
    storage: Path, tmp_path: Path, here: Here
) -> None:
    job = write_study(tmp_path / "tiny.yaml", seeds=[3, 5, 8])
    words = [sys.executable, "-m", "colddiff.cli.main", "submit", "study", str(job), "--local"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, env=dict(os.environ))
        while not list(storage.glob("jobs/train-*/checkpoints/*/checkpoint.json")):
            assert process.poll() is None, log.read_text()
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert re.fullmatch(r"train-tiny-\w+ at step \d/4", folder_of(storage).progress(1)["detail"])
    begun = {folder.name for folder in storage.glob("jobs/train-*") if has_checkpoint(folder)}

    def stop_after_one() -> None:
        while "1 of 6 jobs: " not in str(folder_of(storage).reports(2)):
            time.sleep(0.01)
        folder_of(storage).request_stop(2, 60)

    stopper = threading.Thread(target=stop_after_one)
    stopper.start()
    stopped = colddiff_here(*here, *words[3:])
    stopper.join()
    assert stopped.returncode == 4, stopped.stderr
    found = re.search(r"(\d) of 6 already done, (\d) resumed\n", stopped.stderr)
    assert found
    assert int(found[1]) + int(found[2]) == len(begun)
    assert re.search(
        r"stopped with [1-5] of 6 jobs done; submit the same job again", stopped.stderr
    )
    states = {member["id"]: member["state"] for member in members_in(storage)}
    assert "done" in states.values()
    assert "waiting" in states.values()
    tried = attempts(storage)

    done = colddiff_here(*here, *words[3:])
    assert done.returncode == 0, done.stderr
    finished = sum(state == "done" for state in states.values())
    assert f"{finished} of 6 already done, " in done.stderr
    assert {m["state"] for m in members_in(storage)} == {"done"}
    assert trained(storage) == {m["id"] for m in members_in(storage)}
    for job_id, state in states.items():
        if state == "done":
            assert attempts(storage)[job_id] == tried[job_id]
    assert set(runs_of(storage)) == {folder_of(storage).job_id, *trained(storage)}


def has_checkpoint(folder: Path) -> bool:
    return bool(list(folder.glob("checkpoints/*/checkpoint.json")))


def test_a_training_that_fails_is_named_and_the_others_go_on(
    storage: Path, tmp_path: Path, here: Here
) -> None:
    entries = [{"overrides": {LR: 1e30}}, {}, {"overrides": [f"{LR}=0.002"]}]
    job = write_study(tmp_path / "tiny.yaml", jobs=entries, seeds=1)
    failed = colddiff_here(*here, "submit", "study", job, "--local")
    assert failed.returncode == 1
    members = members_in(storage)
    assert [member["state"] for member in members] == ["failed", "done", "done"]
    assert "not finite" in members[0]["message"]
    last = failed.stderr.splitlines()[-1]
    assert f"1 of 3 jobs failed (2 done): {members[0]['id']}: " in last
    assert "submit the same study again to try those that failed" in last
    assert "tiny optimizer.lr=0.002" in failed.stderr
    assert folder_of(storage).result() is None
    assert folder_of(storage).status().step == 2  # type: ignore[union-attr]

    assert colddiff_here(*here, "submit", "study", job, "--local").returncode == 1
    assert attempts(storage) == {m["id"]: [1, 2][: 1 + (m is members[0])] for m in members}


def test_gpu_hours_are_those_that_the_study_took(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colddiff.jobs.in_process.idle_gpu_line", lambda gpus: None)
    train = {**TRAIN, "resources": {"gpus": 1}, "num_steps": 2}
    entries = [{"train": train, "name": "tiny"}]
    before = colddiff.train({**train, "seed": 0}, "tiny")
    colddiff.study(tiny_study(jobs=entries), "tiny")
    study = folder_of(storage)
    hours = {}
    for job_id in [study.job_id, *trained(storage)]:
        status = JobFolder(study.store, job_id).status()
        assert status
        hours[job_id] = status.gpu_hours
    assert hours[before["id"]] > 0
    assert hours[study.job_id] == pytest.approx(
        sum(hours[job_id] for job_id in trained(storage)) - hours[before["id"]]
    )
    # Limits are looked at with each heartbeat, and these trainings take less time than one.
    monkeypatch.setattr("colddiff.jobs.attempt.HEARTBEAT_S", 0.1)
    with pytest.raises(Stopped, match=r"limits\.gpu_hours=1e-09 reached: stopped with [2-4] of 5"):
        colddiff.study(tiny_study(jobs=entries, seeds=5, limits={"gpu_hours": 1e-9}), "another")
    assert json.loads((storage / "jobs" / before["id"] / "status.json").read_text())["attempt"] == 1

"""A whole search in this process: every trial once, killed, extended, with trials that fail."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import colddiff
from colddiff.errors import ColddiffError, Stopped
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.folder import JobFolder, list_jobs
from colddiff.jobs.resolve import resolve
from colddiff.jobs.segments.segment import JobSegment, run_segment
from colddiff.spec import parse
from colddiff.stores.open import open_store
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.planner import Planner
from colddiff.verbs.search.trials import read_trials
from colddiff.verbs.search.work import prepare
from tests.conftest import S3Service
from tests.in_process import colddiff_here, terminated_once
from tests.kills import PATIENCE_S
from tests.unit.search.nested_runs import history, nested_runs
from tests.unit.search.tiny_search import (
    BASE,
    DRAWN,
    folder_of,
    tiny_search,
    trained,
    trials_of,
    write_search,
)

T = "degradation.num_timesteps"
RATIO = "degradation.sigma.ratio"
STRAIGHT: dict[str, Any] = {"scheduler": "none", "rungs": [1.0]}


def search(**fields: Any) -> dict[str, Any]:
    return colddiff.search(tiny_search(**{"metric": "eval/sampled/fd_lenet", **fields}), "tiny")


def rows_of(storage: Path) -> dict[int, dict[str, Any]]:
    folder = folder_of(storage)
    board = json.loads(folder.store.get(folder.key("leaderboard.json")))
    return {row["number"]: row for row in board["rows"]}


def test_a_search_with_its_confirmation(
    storage: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    result = search(num_trials=4, confirm_seeds=2, confirm_best=1, **DRAWN)
    trials, rows = trials_of(storage), rows_of(storage)
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert trials[0].point == {T: 6, RATIO: 4.0}
    assert len({trial.job_id for trial in trials}) == 4
    assert all(abs(t.end_rmse / result["end_rmse"] - 1) <= 1e-3 for t in trials if t.end_rmse)
    # The best and the base go to the end, the others stop at the first rung.
    steps = sorted((row["steps"], row["state"]) for row in rows.values())
    assert steps == [(2, "passed over"), (2, "passed over"), (4, "done"), (4, "done")]
    assert (rows[0]["base"], rows[0]["state"]) == (True, "done")
    (confirmed,) = result["confirmed"]
    assert (confirmed["n"], confirmed["trial"] != 0) == (2, True)
    assert len(trained(storage)) == 4 + 2 * 2
    # Of the search alone: its trials draw none.
    assert [path.parent.name for path in storage.glob("jobs/*/pictures")] == [result["id"]]

    run, children = nested_runs(storage)
    assert run.info.status == "FINISHED"
    assert run.data.params["metric"] == "eval/sampled/fd_lenet"
    assert run.data.params[f"space.{T}"] == "6 to 12, log scale"
    evaluated = {path.name for path in storage.glob("jobs/evaluate-*")}
    assert set(result["jobs"]) == trained(storage) | evaluated
    assert {child.data.tags["colddiff.job_id"] for child in children} == set(result["jobs"])
    assert {child.data.tags["colddiff.search"] for child in children} == {result["id"]}
    fewer = [child for child in children if "colddiff.calls" in child.data.tags]
    assert {child.data.tags["colddiff.job_id"] for child in fewer} == evaluated
    assert "trial 0 (base), 3 network calls" in {child.info.run_name for child in fewer}
    children = [child for child in children if child not in fewer]
    asked = [child for child in children if "colddiff.confirmation_seed" not in child.data.tags]
    assert [child.data.tags["colddiff.job_id"] for child in asked] == [t.job_id for t in trials]
    assert asked[0].info.run_name == "trial 0 (base)"
    assert {child.info.status for child in children} == {"FINISHED"}
    again = [
        child.data.tags["colddiff.confirmation_seed"] for child in children if child not in asked
    ]
    assert sorted(again) == ["1", "1", "2", "2"]
    best = history(storage, run, "search/best")
    # Six results, of which the second is the base's at the last rung, and the last the best's.
    assert [step for step, _ in best] == [2, 3, 4, 5, 6]
    assert best[-1][1] == result["metrics"]["search/best"] == min(value for _, value in best)
    assert history(storage, run, "search/trials") == [(n, 1 + (n == 6)) for n in range(2, 7)]

    folder = storage / "jobs" / result["id"]
    sentence = f"trial {confirmed['trial']}, test eval/sampled/fd_lenet"
    assert sentence in (folder / "leaderboard.md").read_text()
    assert '<tr class="base">' in (folder / "leaderboard.html").read_text()
    # Of 16 images, which are fewer than its features; the submission said so.
    ranked = "metric: trials are ranked by eval/sampled/fd_lenet, but 16 images are too few"
    assert ranked in caplog.text
    assert ranked in (folder / "leaderboard.md").read_text()
    assert ranked in (folder / "leaderboard.html").read_text()
    dry = colddiff_here(
        monkeypatch, capsys, "submit", "train", folder / "best.yaml", "--dry-run", "--json"
    )
    assert dry.returncode == 0, dry.stderr
    best = json.loads(dry.stdout)["train"]
    assert best["degradation"]["num_timesteps"] == trials[result["best"]["trial"]].point[T]
    assert "digits" in best["data"]
    assert "split" not in best["data"]


def test_a_search_that_was_ended_goes_on_with_the_same_trials(
    tmp_path: Path,
    storage: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Killed, then terminated, then left alone."""
    fields = {"num_trials": 3, **STRAIGHT}
    job = write_search(tmp_path / "tiny.yaml", **fields, **DRAWN)
    words = [sys.executable, "-m", "colddiff.cli.main", "submit", "search", str(job), "--local"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, env=dict(os.environ))
        deadline = time.monotonic() + PATIENCE_S
        while not list(storage.glob("jobs/search-*/trials/0001.json")):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        process.kill()
        assert process.wait(PATIENCE_S) == -signal.SIGKILL, log.read_text()
    begun = trials_of(storage)
    assert len(begun) < 3
    assert not list(storage.glob("jobs/search-*/pictures/*"))

    with terminated_once(lambda: bool(list(storage.glob("jobs/search-*/trials/0002.json")))):
        stopped = colddiff_here(monkeypatch, capsys, *words[3:])
    assert stopped.returncode == 4, stopped.stderr
    assert "of 3 trials resumed" in stopped.stderr
    drawn = {path.name for path in storage.glob("jobs/search-*/pictures/*")}
    assert drawn >= {"paths.png", "map.png", "rungs.png"}
    begun_again = trials_of(storage)
    assert begun_again[: len(begun)] == begun

    again = colddiff_here(monkeypatch, capsys, *words[3:], "tracking.images=false")
    assert again.returncode == 0, again.stderr
    assert "of 3 trials resumed" in again.stderr
    trials = trials_of(storage)
    assert trials[: len(begun_again)] == begun_again
    assert trained(storage) == {trial.job_id for trial in trials}
    assert all(row["state"] == "done" for row in rows_of(storage).values())
    run, children = nested_runs(storage)  # one parent over all attempts
    assert run.info.status == "FINISHED"
    asked = [child for child in children if "colddiff.calls" not in child.data.tags]
    assert [child.data.tags["colddiff.job_id"] for child in asked] == [t.job_id for t in trials]
    assert run.data.metrics["search/trials"] == 3

    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(storage / "data", undisturbed / "data")
    assert [(t.point, t.scale, t.job_id) for t in trials] == planned(undisturbed, **fields)


def test_more_trials_and_a_confirmation_extend_a_finished_search(storage: Path) -> None:
    first = search(num_trials=2, **STRAIGHT)
    records = {trial.number: trial for trial in trials_of(storage)}
    assert search(num_trials=2, **STRAIGHT) == first
    more = search(num_trials=3, **STRAIGHT)
    assert (more["id"], more["trials"]) == (first["id"], 3)
    assert [trial == records.get(trial.number) for trial in trials_of(storage)] == [
        True,
        True,
        False,
    ]
    assert len(trained(storage)) == 3
    assert more["confirmed"] == []
    confirmed = search(num_trials=3, confirm_seeds=1, **STRAIGHT)["confirmed"]
    assert [comparison["n"] for comparison in confirmed] == [1]


def test_a_search_without_its_tracker_is_nested_once_that_is_back(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    away = {
        "num_trials": 2,
        "tracking": {"required": False, "system_every_s": None, "images": False},
        **STRAIGHT,
    }
    result = search(**away)
    assert result["tracking"]["run_id"] == ""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert search(**away) == result
    run, children = nested_runs(storage)
    assert run.info.status == "FINISHED"
    trials = [child for child in children if child.data.tags["colddiff.job_id"] in trained(storage)]
    assert {child.data.tags["colddiff.job_id"] for child in trials} == trained(storage)
    assert len(history(storage, trials[1], "eval/sampled/fd_lenet")) == 1


def test_a_trial_that_fails_is_a_row_with_its_reason(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rates = {"choices": [2e-3, 1e30]}
    job = {"over": ["optimizer.lr"], "ranges": {"optimizer.lr": rates}, "searcher": "grid"}
    search(**job, **STRAIGHT)
    rows = rows_of(storage)
    (failed,) = [row for row in rows.values() if row["state"] == "failed"]
    assert failed["point"] == {"optimizer.lr": 1e30}
    assert "not finite" in failed["reason"]
    assert sorted(row["state"] for row in rows.values()) == ["done", "done", "failed"]
    assert "not finite" in (folder_text(storage, "leaderboard.md"))
    # True of all its jobs, and of what ranks them: each is said once.
    said = [line.partition(":")[0] for line in caplog.messages if "too few for" in line]
    assert said == ["evaluation", "metric"]


def test_too_many_failures_in_a_row_end_the_search(storage: Path) -> None:
    rates = {"choices": [1e29, 1e30]}
    job = {"over": ["optimizer.lr"], "ranges": {"optimizer.lr": rates}, "searcher": "grid"}
    with pytest.raises(
        ColddiffError, match=r"2 trials in a row failed, max_failures=1 are allowed"
    ):
        search(**job, max_failures=1, **STRAIGHT)


def test_a_base_that_fails_ends_the_search(storage: Path) -> None:
    with pytest.raises(ColddiffError, match=r"the base failed.*not finite"):
        search(base={"optimizer": {"lr": 1e30}}, **STRAIGHT)
    assert len(trials_of(storage)) == 1
    assert rows_of(storage)[0]["state"] == "failed"


def planned(storage: Path, **fields: Any) -> list[tuple[Any, ...]]:
    """What a search that nobody disturbs asks for, where no result matters: nothing is trained."""
    resolved = resolve(parse(SearchJob, tiny_search(**fields)), "tiny", storage=str(storage))
    attempt = Attempt(resolved, 1)
    planner = Planner(attempt, prepare(attempt))
    while planner.next() is not None:
        pass
    return [(t.point, t.scale, t.job_id) for t in trials_of(storage)]


def folder_text(storage: Path, name: str) -> str:
    folder = folder_of(storage)
    return folder.store.get(folder.key(name)).decode()


PLUGIN = '''
"""A blur of the user's own."""

from typing import Literal

from colddiff.degradations import DEGRADATIONS
from colddiff.degradations.blur import BlurSpec


@DEGRADATIONS.register
class OwnBlurSpec(BlurSpec):
    """Severity t is t chained Gaussian blurs."""

    kind: Literal["own_blur"] = "own_blur"
'''


@pytest.mark.usefixtures("unloaded_plugins")
def test_a_degradation_of_the_users_own_is_searched(
    tmp_path: Path,
    storage: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "own.py").write_text(PLUGIN)
    base = {"degradation": {**BASE["degradation"], "kind": "own_blur"}, "plugins": ["own.py"]}
    job = write_search(tmp_path / "tiny.yaml", base=base, num_trials=2, **STRAIGHT)
    done = colddiff_here(monkeypatch, capsys, "submit", "search", job, "--local")
    assert done.returncode == 0, done.stderr
    assert [trial.job["plugins"] for trial in trials_of(storage)] == [[], []]
    sha256 = hashlib.sha256(PLUGIN.encode()).hexdigest()
    for job_id in [folder_of(storage).job_id, *trained(storage)]:
        assert (storage / "jobs" / job_id / "plugins" / f"{sha256}.py").exists()
    best = storage / "jobs" / folder_of(storage).job_id / "best.yaml"
    dry = colddiff_here(monkeypatch, capsys, "submit", "train", best, "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    train = json.loads(dry.stdout)["train"]
    assert train["degradation"]["kind"] == "own_blur"
    assert train["plugins"] == [str(best.parent / "plugins" / f"{sha256}.py")]


def test_gpu_hours_are_those_of_all_trials(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colddiff.jobs.in_process.idle_gpu_line", lambda gpus: None)
    gpu = {"resources": {"gpus": 1}, "base": {"workers": 2}}
    search(num_trials=2, confirm_seeds=1, **gpu, **STRAIGHT)
    jobs = [JobFolder(folder_of(storage).store, job_id) for job_id in trained(storage)]
    assert len(jobs) == 4
    spent = [status.gpu_hours for job in jobs if (status := job.status())]
    status = folder_of(storage).status()
    assert status
    assert status.gpu_hours == pytest.approx(sum(spent))
    assert min(spent) > 0
    with pytest.raises(Stopped, match=r"limits\.gpu_hours=1e-09 reached: stopped"):
        search(num_trials=4, limits={"gpu_hours": 1e-9}, **gpu, **STRAIGHT)
    search(num_trials=4, limits={"gpu_hours": 1}, **gpu, **STRAIGHT)


def test_a_search_in_s3(
    s3_service: S3Service, tracker_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(tracker_database, tmp_path / "mlflow.db")
    place = f"s3://{s3_service.new_bucket()}/runs"
    monkeypatch.setenv("COLDDIFF_STORAGE", place)
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    # Pictures are drawn in other tests: here they would be thousands of requests.
    result = search(num_trials=1, **STRAIGHT)
    more = search(num_trials=2, **STRAIGHT)
    assert (more["id"], more["trials"]) == (result["id"], 2)
    folder = JobFolder(open_store(place), result["id"])
    trials = read_trials(folder)
    ids = {job_id for job_id in list_jobs(folder.store) if job_id.startswith("train-")}
    assert {trial.job_id for trial in trials} == ids
    assert len(ids) == 2
    assert more["best_yaml"] == f"{place}/jobs/{result['id']}/best.yaml"
    best = yaml.safe_load(folder.store.get(folder.key("best.yaml")))["train"]
    assert best["data"].startswith(place)
    # A process that trains one trial after the other keeps no session of an earlier one.
    assert "mlflow-tracker" not in {thread.name for thread in threading.enumerate()}


def test_a_training_whose_driver_died_meanwhile_is_taken_over(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a search killed with its trial on another machine: found alive, then lost."""
    search(num_trials=1, **STRAIGHT)
    (job_id,) = trained(storage)
    folder = JobFolder(folder_of(storage).store, job_id)
    before = folder.status()
    assert before
    folder.write_status(replace(before, state="running", heartbeat=time.time(), host="elsewhere"))
    monkeypatch.setattr("colddiff.jobs.follow.LOST_AFTER_S", 2.0)
    resolved = resolve(parse(SearchJob, tiny_search(num_trials=1, **STRAIGHT)), "tiny")
    (trial,) = trials_of(storage)
    slug = job_id.removeprefix("train-").rpartition("-")[0]
    segment = JobSegment("trial 0 to step 4", slug, trial.job, 4)
    assert run_segment(segment, resolved, lambda: False) == ""
    assert folder.attempts() == [1, 2]

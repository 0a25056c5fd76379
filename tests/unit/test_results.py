"""What a finished job tells, for every verb and in the same words wherever it is told."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

import pytest

from colddiff.jobs.attempt import Attempt
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.follow import follow
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.results import log_verdict, result_lines, score_of, untold
from colddiff.jobs.status import Status
from colddiff.jobs.verb import VERBS
from colddiff.stores.memory_store import MemoryStore
from colddiff.verbs.train.job import TrainJob

METRICS = {
    "eval/degraded/fd_lenet": 420.0,
    "eval/direct/fd_lenet": 51.25,
    "eval/sampled/fd_lenet": 38.5,
    "eval/sampled/rmse": 0.0912,
    "eval/floor/fd_lenet": 4.5,
}


def test_a_run_is_named_without_a_password_and_with_what_opens_it() -> None:
    def told(uri: str, run_id: str | None = "0af1") -> str:
        result = {**RESULTS["train"], "tracking": {"uri": uri, "run_id": run_id}}
        (line,) = (x for x in result_lines("train-x-00000000", result) if x.startswith("MLflow"))
        return line

    assert told("http://me:secret@mlflow:5000") == "MLflow: run 0af1 at http://***@mlflow:5000"
    opened = "by `mlflow ui --backend-store-uri sqlite:////my-runs/mlflow.db`"
    assert told("sqlite:////my-runs/mlflow.db") == f"MLflow: run 0af1 {opened}"
    assert told("sqlite:////my-runs/mlflow.db", None) == f"MLflow: its run {opened}"
    assert told("sqlite:////my runs/m.db").endswith("'sqlite:////my runs/m.db'`")
    assert told("postgresql://me:secret@db/mlflow").endswith(" at postgresql://***@db/mlflow")


def member(seed: int, metrics: dict[str, float]) -> dict[str, Any]:
    """A training of a study."""
    about = {"entry": 0, "name": "digits", "differs": {}, "seed": seed, "measured": "a"}
    return {**about, "state": "done", "message": "", "step": 4, "num_steps": 4, "metrics": metrics}


RESULTS: dict[str, dict[str, Any]] = {
    "train": {
        "checkpoint": "/runs/jobs/train-x/checkpoints/step_00000250",
        "metrics": METRICS,
        "pictures": [f"/runs/pictures/{n}.png" for n in range(12)],
        "best": {"step": 200, "metric": "eval/sampled/fd_lenet", "value": 37.25},
    },
    "evaluate": {"checkpoint": "/runs/c", "metrics": METRICS, "pictures": ["/runs/grid.png"]},
    "generate": {
        "samples": "/runs/samples/generate-x",
        "num_samples": 64,
        "metrics": {"generate/fd_lenet": 12.5},
    },
    "search": {
        "trials": 12,
        "metric": "eval/sampled/fd_lenet",
        "metrics": {"search/best": 31.5, "search/trials": 4.0},
        "best": {"trial": 5, "job": "train-x", "point": {"degradation.num_timesteps": 9}},
        "base": 40.25,
        "confirmation": ["trial 5, test eval/sampled/fd_lenet: -9: beats the base at 3 of 3 seeds"],
        "page": "/runs/jobs/search-x/leaderboard.html",
        "best_yaml": "/runs/jobs/search-x/best.yaml",
    },
    "study": {
        "jobs": ["train-x-00000000", "train-x-00000001"],
        "members": [member(0, METRICS), member(1, {**METRICS, "eval/sampled/fd_lenet": 39.5})],
        "over_seeds": [
            {
                "entry": 0,
                "n": 2,
                "measured": "a",
                "mean": {**METRICS, "eval/sampled/fd_lenet": 39.0},
            }
        ],
        "metrics": {"study/jobs": 2.0},
        "table": "/runs/jobs/study-x/study.md",
    },
}
TELLS = {
    "train": ["38.5*", "Algorithm 2", "best: step 200, eval/sampled/fd_lenet 37.25", "@best"],
    "evaluate": ["38.5*", "0.0912", "/runs/grid.png", "submit generate checkpoint=/runs/c"],
    "generate": ["64 images in /runs/samples/generate-x", "generate/fd_lenet 12.5", "reference="],
    "search": [
        "trial 5, degradation.num_timesteps=9",
        "31.5 (the base 40.25)",
        "3 of 3 seeds",
        "with pictures: /runs/jobs/search-x/leaderboard.html",
        "submit train /runs/jobs/search-x/best.yaml",
    ],
    "study": ["digits", "mean of 2", "Algorithm 2", "39.5", "/runs/jobs/study-x/study.md"],
}
SCORES = {"train": 37.25, "evaluate": 38.5, "generate": 12.5, "search": 31.5, "study": 39.0}


def test_every_verb_tells_its_result() -> None:
    assert RESULTS.keys() == VERBS.keys()


def test_a_report_that_no_browser_opens_is_followed_by_how_to_open_it() -> None:
    way = "  open it: colddiff report evaluate-x-00000000 --out DIR"
    for page, told in (("s3://b/report.html", True), ("/runs/report.html", False)):
        lines = result_lines("evaluate-x-00000000", RESULTS["evaluate"] | {"report": page})
        assert (lines[lines.index(f"report: {page}") + 1] == way) == told


@pytest.mark.parametrize("verb", RESULTS)
def test_numbers_pictures_and_what_to_do_next(verb: str) -> None:
    told = "\n".join(result_lines(f"{verb}-x-00000000", RESULTS[verb]))
    for text in TELLS[verb]:
        assert text in told
    assert told.index("next:") > 0


@pytest.mark.parametrize("verb", RESULTS)
def test_the_metric_that_stands_for_a_job(verb: str) -> None:
    score = VERBS[verb].score(RESULTS[verb])
    assert score is not None
    assert score[1] == SCORES[verb]


def test_the_table_of_a_training_says_of_which_step_it_is() -> None:
    result = {**RESULTS["train"], "id": "train-x-00000000", "step": 250}
    told = result_lines("train-x-00000000", result)
    assert told[0] == (
        "evaluation at step 250, the last; the best is step 200: "
        "`colddiff report train-x-00000000@best --out DIR`"
    )
    result["step"] = 200
    assert result_lines("train-x-00000000", result)[0] == "evaluation at step 200, the best"
    del result["best"]
    assert result_lines("train-x-00000000", result)[0] == "evaluation at step 200"
    result["metrics"] = {}
    assert result_lines("train-x-00000000", result)[0].startswith("checkpoint: ")


@pytest.mark.parametrize("verb", RESULTS)
def test_what_to_do_next_is_done_where_the_job_ran(verb: str) -> None:
    for here in (False, True):
        told = result_lines(f"{verb}-x-00000000", {**RESULTS[verb], "local": here})
        submits = [line.partition("    #")[0] for line in told if "colddiff submit" in line]
        assert submits
        assert [line.endswith(" --local") for line in submits] == [here] * len(submits)
        assert not any("restore" in line and "--local" in line for line in told)


def test_a_checkpoint_of_a_job_here_is_named_in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "/runs/jobs/train-x-00000001/checkpoints/step_00000250"
    for storage, name in (("/runs", "train-x-00000001@step=250"), ("/others", address)):
        monkeypatch.setenv("COLDDIFF_STORAGE", storage)
        told = result_lines("evaluate-x-00000000", {**RESULTS["evaluate"], "checkpoint": address})
        steps = [line for line in told if "colddiff " in line]
        assert all(f"{name} " in line for line in steps)


def test_of_many_pictures_the_first_are_named() -> None:
    told = result_lines("train-x-00000000", RESULTS["train"])
    assert sum(line.endswith(".png") for line in told) == 8
    assert "  ... and 4 more beside them" in told


def test_numbers_are_those_that_the_driver_wrote() -> None:
    """The columns of a plugin's sampler are named where the plugin is loaded."""
    told = result_lines("train-x-00000000", {**RESULTS["train"], "summary": ["a table"]})
    assert told[0] == "a table"
    assert not any("Algorithm" in line for line in told)


def test_a_verb_of_another_version_has_its_summary_told() -> None:
    assert result_lines("resample-x-00000000", {"summary": ["7 sheep"]}) == ["7 sheep"]


def test_what_a_result_of_another_version_lacks_is_named() -> None:
    assert "(result.json has no 'best')" in result_lines("search-x-00000000", {})


def test_where_the_base_is_best_it_is_said_what_the_confirmed_trial_is() -> None:
    sentence = "trial 2, test rmse: +0.01 against the base"
    of_others = "trial 2 is the best of the others, and compared with the base on the test set:"
    search = {**RESULTS["search"], "confirmation": [sentence], "confirmed": [{"trial": 2}]}
    assert of_others not in result_lines("search-x-00000000", search)
    search["best"] = {**search["best"], "trial": 0}
    lines = result_lines("search-x-00000000", search)
    assert lines[lines.index(of_others) + 1] == sentence


def test_scores_prefer_distances_of_samples() -> None:
    assert score_of({"metrics": METRICS}) == ("eval/sampled/fd_lenet", 38.5)
    unfit = {"metric": "fd_lenet", "misfit": "these images are 3 x 64 x 64"}
    assert score_of({"metrics": METRICS, "provenance": unfit}) == ("eval/sampled/rmse", 0.0912)
    few = {"eval/direct/rmse": 0.5, "eval/degraded/psnr": 3.0}
    assert score_of({"metrics": few}) == ("eval/direct/rmse", 0.5)
    without_samples = {path: value for path, value in METRICS.items() if "sampled" not in path}
    assert score_of({"metrics": without_samples}) == ("eval/direct/fd_lenet", 51.25)
    assert score_of({"metrics": {"train/loss_l1": 1.0, "eval/degraded/rmse": 0.5}}) is None


@pytest.fixture
def folder() -> JobFolder:
    return JobFolder(MemoryStore(), "evaluate-x-00000000")


def test_the_end_of_a_job_is_told_unless_somebody_else_does(
    folder: JobFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "colddiff")
    folder.write_result(RESULTS["evaluate"])
    done = Status(state="done", attempt=1, step=3, num_steps=3)
    with untold():
        log_verdict(folder, done)
    assert caplog.messages == ["evaluate-x-00000000 is done (3 of 3 images)"]
    log_verdict(folder, replace(done, state="stopped"))
    assert len(caplog.messages) == 2
    log_verdict(folder, done)
    assert "  /runs/grid.png" in caplog.messages


def test_a_result_that_is_damaged_does_not_hide_the_verdict(
    folder: JobFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.store.put(folder.key("result.json"), b"{")
    log_verdict(folder, Status(state="done"))
    (warning,) = caplog.messages
    assert "result.json is not JSON" in warning


def attempt_in(folder: JobFolder, number: int = 1) -> Attempt:
    resolved = ResolvedJob(folder.job_id, "x", TrainJob(), "/nowhere", "", {}, 1.0, {}, {})
    return Attempt(resolved, number, folder=folder)


def reporting(folder: JobFolder, number: int, *lines: str) -> None:
    attempt = attempt_in(folder, number)

    def work() -> dict[str, Any]:
        for line in lines:
            attempt.report(line)
        return {}

    attempt.drive(work)


def test_who_follows_a_job_is_shown_what_it_reports_each_line_once(
    folder: JobFolder, caplog: pytest.LogCaptureFixture
) -> None:
    reporting(folder, 1, *(f"evaluation at step {n}" for n in range(5)))
    caplog.clear()
    caplog.set_level(logging.INFO, "colddiff.jobs.follow")
    done = folder.status()
    assert done
    shown: list[int] = []

    def now(reports: int, state: Any = "running", attempt: int = 1) -> None:
        folder.write_status(replace(done, state=state, reports=reports, attempt=attempt))

    def show(status: Status) -> None:
        shown.append(status.reports)
        if status.reports == 4:
            now(5)
            return
        reporting(folder, 2, "evaluation of the next attempt")

    now(4)
    folder.write_status(replace(done, state="running", reports=4, heartbeat=time.time()))
    follow(folder, 1, None, show)
    # Of what was there before, the last three; then each new line, also of a later attempt.
    lines = [record.message for record in caplog.records if record.name == "colddiff.jobs.follow"]
    assert lines == [f"evaluation at step {n}" for n in (1, 2, 3, 4)] + [
        "evaluation of the next attempt"
    ]

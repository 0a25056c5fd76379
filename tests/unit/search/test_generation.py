"""Searches that compare samples: what they measure, and what never becomes a trial."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import colddiff
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import resolve
from colddiff.spec import parse
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.planner import Planner
from colddiff.verbs.search.trials import Trial, read_trials
from colddiff.verbs.search.work import prepare
from colddiff.verbs.train.job import TrainJob
from tests.unit.search.tiny_search import DRAWN, folder_of, tiny_search, trials_of

KERNEL, SIGMA = "degradation.kernel_size", "degradation.sigma.value"
BLUR: dict[str, Any] = {"kind": "blur", "num_timesteps": 6, "padding": "circular"}
ALL_GONE = {**BLUR, "kernel_size": 31, "sigma": {"kind": "constant", "value": 40.0}}
SAMPLES = {"num_images": 40, "batch_size": 40, "generated": {"num_images": 20, "severities": 4}}


def generation(**fields: Any) -> dict[str, Any]:
    return tiny_search({"degradation": ALL_GONE, "evaluation": SAMPLES}, compare="generation") | {
        "over": [SIGMA],
        "ranges": {SIGMA: {"choices": [0.05, 30.0, 40.0, 50.0]}},
        "searcher": "random",
        **fields,
    }


@pytest.fixture(scope="module")
def planning(tmp_path_factory: pytest.TempPathFactory, split_digits: Path) -> Path:
    """A STORAGE in which nothing is trained."""
    place = tmp_path_factory.mktemp("planned")
    shutil.copytree(split_digits, place / "data")
    return place


def planned(planning: Path, job: dict[str, Any]) -> list[Trial]:
    """All trials of a search, asked for and not trained."""
    attempt = Attempt(resolve(parse(SearchJob, job), "tiny", storage=str(planning)), 1)
    planner = Planner(attempt, prepare(attempt))
    while planner.next() is not None:
        pass
    return read_trials(attempt.folder)


def test_a_planted_identity_is_never_a_trial_where_the_end_is_the_same(planning: Path) -> None:
    """A kernel of one pixel degrades nothing at any scale; its distance would be the lowest."""
    base = {"degradation": {**BLUR, "kernel_size": 5, "sigma": {"kind": "constant", "value": 0.8}}}
    fields = {"over": [KERNEL], "ranges": {KERNEL: {"choices": [1, 5, 7, 9]}}}
    for searcher in ("grid", "random", "tpe"):
        job = tiny_search(base, searcher=searcher, num_trials=4, **fields)
        trials = planned(planning, job)
        assert {trial.point[KERNEL] for trial in trials} == {5, 7, 9}
        assert sum(trial.redrawn for trial in trials) > 0
        base_end = trials[0].end_rmse
        assert all(trial.end_rmse == pytest.approx(base_end, rel=1e-3) for trial in trials)


def test_a_planted_identity_is_never_a_trial_where_samples_are_compared(planning: Path) -> None:
    for searcher in ("grid", "random", "tpe"):
        trials = planned(planning, generation(searcher=searcher, num_trials=4))
        assert {trial.point[SIGMA] for trial in trials} == {30.0, 40.0, 50.0}
        assert sum(trial.redrawn for trial in trials) > 0
        assert [trial.scale for trial in trials] == [None] * len(trials)
        assert all(trial.information is not None for trial in trials)
        assert all(trial.information < 0.02 for trial in trials if trial.information is not None)


def test_a_trial_makes_the_samples_that_the_base_asks_for(planning: Path) -> None:
    for trial in planned(planning, generation()):
        evaluation = trial.job["evaluation"]
        assert evaluation["generated"]["num_images"] == 20
        assert evaluation["samplers"] == []
        assert "split" in trial.job["test_data"]


@pytest.mark.parametrize(
    ("best", "kept"),
    [("eval/sampled/rmse", None), ("eval/generated/fd_lenet", "eval/generated/fd_lenet")],
)
def test_a_best_by_restorations_is_not_asked_of_trials_that_only_make_samples(
    planning: Path, best: str, kept: str | None
) -> None:
    base = generation()["base"]
    base = {**base, "evaluation": {**SAMPLES, "best": best}}
    for trial in planned(planning, generation(num_trials=2) | {"base": base}):
        assert parse(TrainJob, trial.job).evaluation.best == kept


def test_samples_are_made_by_default_settings_where_the_base_has_none(planning: Path) -> None:
    base = {"degradation": ALL_GONE, "evaluation": {"num_images": 40}}
    (trial, *_) = planned(planning, generation() | {"base": tiny_search(base)["base"]})
    generated = trial.job["evaluation"]["generated"]
    assert (generated["num_images"], generated["severities"]) == (1000, None)


def test_other_numbers_of_samples_are_another_search_with_its_own_trials(planning: Path) -> None:
    few = planned(planning, generation())
    more = {**SAMPLES, "generated": {"num_images": 30, "severities": 4}}
    base = tiny_search({"degradation": ALL_GONE, "evaluation": more})["base"]
    many = planned(planning, generation() | {"base": base})
    assert not {trial.job_id for trial in few} & {trial.job_id for trial in many}
    assert few[1].point == many[1].point


def test_a_whole_search_compares_samples(storage: Path) -> None:
    job = generation(num_trials=2, confirm_seeds=1, scheduler="none", rungs=[1.0], **DRAWN)
    result = colddiff.search(job, "tiny")
    assert result["metric"] == "eval/generated/fd_lenet"
    trials = trials_of(storage)
    assert result["redrawn"] == sum(trial.redrawn for trial in trials)
    folder = folder_of(storage)
    for trial in trials:
        found = JobFolder(folder.store, trial.job_id).evaluation(4)
        assert found is not None
        assert found["metrics"]["eval/generated/fd_lenet"] > 0
        assert not any(
            path.startswith(("eval/sampled", "eval/direct")) for path in found["metrics"]
        )
        assert found["provenance"]["generated"]["n"] == 20
    (confirmed,) = result["confirmed"]
    assert confirmed["n"] == 1
    sheets = {Path(address).name for address in result["pictures"]}
    assert {"samples_best.png", "samples_base.png"} <= sheets
    page = folder.store.get(folder.key("leaderboard.html")).decode()
    assert "Samples of the base, trial 0" in page
    table = folder.store.get(folder.key("leaderboard.md")).decode()
    assert "D(x, T) holds at most 0.0% of the variance of x" in table
    head = table.partition("\n")[0]
    assert "| calls |" in head
    assert "rmse" not in head
    rows = json.loads(folder.store.get(folder.key("leaderboard.json")))["rows"]
    assert {row["calls"] for row in rows} == {4}
    # The same search again is the same result, and trains nothing.
    assert colddiff.search(job, "tiny") == result

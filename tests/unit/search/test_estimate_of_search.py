"""`--dry-run` of a search: trials, segments, steps, FLOPs and hours, for people and as JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from colddiff.jobs.recipes import load_recipe
from colddiff.jobs.status import hours_text
from colddiff.verbs.search.estimate import dry_run, trials_by_rung
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.settings import base_of, metric_of
from colddiff.verbs.search.verb import VERB
from tests.in_process import colddiff_here
from tests.unit.search.bases import training_searches
from tests.unit.search.test_promotion import RECORDED, in_order, searched
from tests.unit.search.tiny_search import tiny_search

RECIPES = training_searches()


def estimated(rate: str | None = None, **fields: Any) -> tuple[dict[str, Any], list[str]]:
    found = dry_run(SearchJob.model_validate(tiny_search(**fields)), rate)
    return dict(found.data), list(found.estimate)


def test_what_promotion_takes_is_about_what_recorded_searches_took() -> None:
    runs = [searched(in_order(RECORDED, seed)) for seed in range(40)]
    counts = trials_by_rung(12, 3)
    segments = np.mean([len(run.trained) for run in runs])
    assert sum(counts) == pytest.approx(segments, rel=0.1)
    steps = counts[0] * 250 + counts[1] * 250 + counts[2] * 500
    assert steps / 12_000 == pytest.approx(np.mean([run.cost for run in runs]), rel=0.1)


def test_the_numbers_of_a_search_with_promotion() -> None:
    data, lines = estimated(num_trials=12, confirm_seeds=3, confirm_best=1)
    found = data["trials"]
    assert (found["num_trials"], found["rungs"], found["segments"]) == (12, (2, 4), 16)
    assert (found["trial_steps"], found["full_grid_steps"]) == (12 * 2 + 4 * 2, 12 * 4)
    assert (found["confirmations"], found["steps"]) == (6, 32 + 6 * 4)
    # One call of `direct` and six of Algorithm 2 for each of 16 images.
    assert found["evaluation_calls"] == 16 * 7
    forward = data["estimate"]["forward_flops_per_image"]
    assert found["evaluation_flops"] == (16 + 6) * 16 * 7 * forward
    assert data["estimate"]["flops"] == 56 * 8 * 3 * forward
    assert (data["estimate"]["hours"], found["evaluation_hours"]) == (None, None)
    assert "12 trials over degradation.num_timesteps, degradation.sigma.ratio" in lines[0]
    assert lines[1].startswith("about 16 segments and 32 steps, of the 48 of a full grid, and 6 ")
    assert lines[2] == (
        "the confirmation is 43% of the steps; confirm_seeds=1 takes fewer, confirm_seeds=0 none"
    )


def test_without_promotion_every_trial_is_one_segment_to_the_end() -> None:
    data, lines = estimated(num_trials=5, scheduler="none")
    found = data["trials"]
    assert (found["segments"], found["trial_steps"], found["steps"]) == (5, 20, 20)
    assert lines[1].startswith("5 segments and 20 steps, of the 20 of a full grid")


def test_hours_follow_from_a_rate() -> None:
    data, lines = estimated("10", num_trials=5, scheduler="none")
    assert data["estimate"]["hours"] == pytest.approx(20 * 8 / 10 / 3600)
    flops_per_hour = data["estimate"]["flops"] / data["estimate"]["hours"]
    hours = data["trials"]["evaluation_flops"] / flops_per_hour
    assert data["trials"]["evaluation_hours"] == pytest.approx(hours)
    assert any("at 10 images/s" in line for line in lines)


def test_samples_are_counted_where_they_are_compared() -> None:
    blur = {"kind": "blur", "num_timesteps": 6, "kernel_size": 5, "collapse_to_mean": True}
    made = {"generated": {"num_images": 20, "severities": 4}}
    fields: dict[str, Any] = {"over": ["degradation.num_timesteps"], "compare": "generation"}
    data, _ = estimated(base={"degradation": blur, "evaluation": made}, **fields)
    assert data["trials"]["evaluation_calls"] == 20 * 4


def test_images_that_only_the_data_counts_are_not_guessed() -> None:
    data, lines = estimated(base={"evaluation": {"batch_size": 16}})
    assert data["trials"]["evaluation_flops"] is None
    assert "each of all images of its set" in lines[-2]
    assert "--rate auto" in lines[-1]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_what_it_takes_in_lines_and_in_json(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("submit", "search", name, "--rate", "850", "--dry-run")
    people = colddiff_here(monkeypatch, capsys, *words)
    machine = colddiff_here(monkeypatch, capsys, *words, "--json")
    assert (people.returncode, machine.returncode) == (0, 0)
    assert people.stderr == machine.stderr
    data = json.loads(machine.stdout)
    assert data["search"]["over"] == data["trials"]["over"]
    for number in (data["trials"]["segments"], data["trials"]["steps"]):
        assert f"{number:,} s" in people.stderr
    assert hours_text(data["estimate"]["hours"]) in people.stderr


@pytest.mark.parametrize("name", RECIPES)
def test_fields_of_the_base_are_set_over_the_file_s_train_job(name: str) -> None:
    recipe = load_recipe(name)
    job = VERB.completed(recipe.job("search", ["base.optimizer.lr=5e-4", "base.seed=3"]), recipe)
    assert isinstance(job.base, dict)
    changed = {"lr": 5e-4, "warmup_steps": job.base["optimizer"]["warmup_steps"]}
    assert {name: job.base["optimizer"][name] for name in changed} == changed
    assert job.base["seed"] == 3
    alone = VERB.completed(recipe.job("search"), recipe)
    assert alone.base == recipe.train.to_dict()
    assert alone.base["degradation"] == job.base["degradation"]


def test_what_tells_the_best_checkpoint_of_the_base_ranks_its_trials() -> None:
    few = {"num_images": 16, "samplers": ["direct", "improved", "naive"]}
    for best, metric, said in (
        ("eval/direct/ssim", "eval/direct/ssim", "as evaluation.best of the base says"),
        ("eval/naive/rmse", "eval/sampled/rmse", "eval/naive/rmse, cannot be compared over trials"),
    ):
        fields = tiny_search(base={"evaluation": {**few, "best": best}})
        search = SearchJob.model_validate(fields)
        assert metric_of(search, base_of(search)) == metric
        (line,) = ranked(**fields)
        assert line.startswith(f"metric: trials are ranked by {metric}")
        assert line.endswith(said)
        assert ranked(**fields, metric="eval/sampled/rmse") == []


def ranked(**fields: Any) -> list[str]:
    lines = dry_run(SearchJob.model_validate(tiny_search(**fields)), None).lines
    return [line for line in lines if line.startswith("metric: ")]


def test_a_metric_that_does_not_fit_is_named_with_one_that_does() -> None:
    (line,) = ranked(metric="eval/direct/fd_lenet")
    assert line.endswith("of fd_lenet; metric=eval/direct/rmse would fit")
    assert ranked(metric="eval/sampled/rmse") == []
    # Of 16 images nobody asked for a distance: what fits is taken, and said to be.
    (line,) = ranked()
    assert line.startswith("metric: trials are ranked by eval/sampled/rmse: 16 images are too few")
    assert ranked(base={"evaluation": {"num_images": 65}}) == []

"""What a checkpoint's search refuses before anything starts: exit code 2, naming the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.in_process import colddiff_here
from tests.unit.search.test_refusals import refused
from tests.unit.search.tiny_lists import list_checkpoint, list_search

FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown job": (
        {"base": {"checkpoint": "train-x-01234567@best"}},
        "base.checkpoint: no committed checkpoint at",
    ),
    "recipe not trained": (
        {"base": {"checkpoint": "quickstart@best"}},
        "base.checkpoint: 'quickstart@best' has no such checkpoint in",
    ),
    "unknown field": (
        {"base": {"sampelr": "naive"}},
        "base.sampelr: no such field; did you mean 'sampler'?",
    ),
    "nothing named": (
        {"over": ["severitys"]},
        "over: 'severitys' names nothing that can be searched; did you mean 'severities'",
    ),
    "empty over": ({"over": []}, "over: is empty"),
    "degradation": (
        {"over": ["severities", "degradation.num_timesteps"]},
        "over: 'degradation.num_timesteps' is settled in a trained checkpoint; give a train job",
    ),
    "metric not computed": (
        {"metric": "fid"},
        "metric: 'fid' is not computed; a checkpoint's trials have fd_lenet, rmse, ssim, psnr",
    ),
    "metric with a sampler": (
        {"metric": "eval/sampled/rmse"},
        "metric: is named without its sampler here: rmse",
    ),
    "more calls than severities": (
        {"calls": [4, 9]},
        "calls: 9 is more than the 8 severities that the base begins from; such as calls=[4]",
    ),
    "falling calls": ({"calls": [4, 2]}, "calls: must rise from 1 or more, got [4, 2]"),
    "no calls": ({"calls": [0, 2]}, "calls: must rise from 1 or more, got [0, 2]"),
    "rungs": ({"rungs": [0.5, 1.0]}, "rungs: is for searches that train"),
    "scheduler": ({"scheduler": "none"}, "scheduler: is for searches that train"),
    "confirmation's seeds": ({"confirm_seeds": 5}, "confirm_seeds: is for searches that train"),
    "range of a schedule": (
        {"ranges": {"degradation.num_timesteps": {"low": 2, "high": 4}}},
        "ranges.degradation.num_timesteps: is not searched in a checkpoint",
    ),
    "range of no choices": (
        {"ranges": {"sampler": {"low": 1, "high": 2}}},
        "ranges.sampler: is one of a few names: write {choices: [...]}",
    ),
    "unknown sampler": (
        {"ranges": {"sampler": {"choices": ["improve"]}}},
        "ranges.sampler.choices: no 'improve'; did you mean 'improved'",
    ),
    "sampler of one step": (
        {"ranges": {"sampler": {"choices": ["direct"]}}},
        "ranges.sampler.choices: direct calls the network once",
    ),
    "sampler that does not fit": (
        {"ranges": {"sampler": {"choices": ["improved_estimated"]}}},
        "ranges.sampler.choices: improved_estimated: degradation 'blur' cannot re-estimate omega",
    ),
    "sampler not searched": (
        {"over": ["severities"], "ranges": {"sampler": {"choices": ["naive"]}}},
        "ranges.sampler: is not searched: add it to `over`",
    ),
    "base's sampler of one step": ({"base": {"sampler": "direct"}}, "base.sampler: direct calls"),
    "base's severities": (
        {"base": {"severities": [9, 0]}},
        "base.severities: must fall strictly from at most 8 down to 0, got (9, 0)",
    ),
    "few images": ({"validation": 0.001}, "validation: 0.001 of the training images leaves"),
    "no test set": (
        {"checkpoint": {"test_data": None}},
        "base.test_data: is required for the confirmation; or set confirm_best=0",
    ),
    "GPU hours": ({"limits": {"gpu_hours": 1}}, "limits.gpu_hours: a search does not count them"),
    "no CPU": ({"resources": {"cpus": 0}}, "resources.cpus: a trial needs a CPU or a GPU"),
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refused")


@pytest.mark.parametrize("case", FIELDS)
def test_refused_before_anything_starts(
    case: str, storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fields, message = FIELDS[case]
    own = fields.get("checkpoint", {})
    searched = {name: value for name, value in fields.items() if name != "checkpoint"}
    job = list_search(list_checkpoint(storage / f"checkpoint-{len(own)}", **own), **searched)
    said = refused(job, storage, monkeypatch, capsys)
    assert message in said
    # Images that were packed first are said too.
    assert [line for line in said.splitlines() if not line.startswith("packed ")] == [
        said.splitlines()[-1]
    ]


def test_a_recipe_that_was_not_trained_says_how(
    storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env = {"COLDDIFF_STORAGE": str(storage / "empty")}
    words = ("submit", "search", "search/calls-digits", "--local")
    done = colddiff_here(monkeypatch, capsys, *words, **env)
    assert done.returncode == 2
    assert "run `colddiff submit train quickstart` first" in done.stderr


def test_images_that_the_checkpoint_does_not_name_are_asked_for(
    storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = list_search(list_checkpoint(storage / "without", data=None))
    assert "base.data: is required: the checkpoint's job" in refused(
        job, storage, monkeypatch, capsys
    )


@pytest.mark.parametrize("trained", [False, True])
def test_a_dry_run_counts_trials_and_calls(
    trained: bool,
    storage: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["submit", "search", "search/calls-digits", "--dry-run", "--json"]
    if trained:
        base = json.dumps({"checkpoint": list_checkpoint(storage / "checkpoint")})
        words += [f"base={base}", "calls=[2, 4, 8]", "num_trials=40"]
    done = colddiff_here(
        monkeypatch, capsys, *words, COLDDIFF_STORAGE=str(storage / "never written")
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert not (storage / "never written").exists()
    assert told["search"]["calls"] == ([2, 4, 8] if trained else [5, 10, 20])
    about = told["estimate"]
    assert about["trials"] == (40 if trained else 120)
    assert 0 < about["calls_made_per_image"] < about["calls_per_image"]
    assert f"{about['calls_per_image']:,} calls of the network an image" in done.stderr

"""What a search refuses before anything starts: exit code 2, naming the field and the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.in_process import colddiff_here
from tests.unit.search.tiny_search import BASE, tiny_search

EMA = {"decay": 0.99, "every": 1, "start": 0}
NARROW = {**BASE["degradation"], "kernel_size": 3}
T = "degradation.num_timesteps"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refused")


def refused(job: dict[str, Any], storage: Path, patch: Any, captured: Any, *words: str) -> str:
    """What `submit` says, with exit code 2, and no job in the storage."""
    path = storage / "job.yaml"
    path.write_text(json.dumps({"search": job}))
    env = {"COLDDIFF_STORAGE": str(storage), "COLDDIFF_CACHE": str(storage / "cache")}
    done = colddiff_here(patch, captured, "submit", "search", path, *words or ["--local"], **env)
    assert done.returncode == 2, done.stderr
    assert not (storage / "jobs").exists()
    return done.stderr


FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "empty over": ({"over": []}, "over: is empty: name"),
    "unknown over": (
        {"over": ["degradation.num_timestep"]},
        "over: 'degradation.num_timestep' names nothing that can be searched; did you mean "
        "'degradation.num_timesteps'",
    ),
    "fixed by the end": (
        {"over": ["degradation.sigma.start"], "ranges": {}},
        "over: degradation.sigma.start: the end fixes it; search degradation.num_timesteps",
    ),
    "metric not computed": (
        {"metric": "eval/sampled/fid"},
        "metric: the base's evaluations have no 'fid'",
    ),
    "sampler left out": (
        {"base": {"evaluation": {**BASE["evaluation"], "samplers": ["direct"]}}},
        "metric: eval/sampled/fd_lenet is of the sampler improved: add it to",
    ),
    "weaker degradation": (
        {"metric": "eval/degraded/rmse"},
        "metric: 'eval/degraded/rmse': a weaker degradation improves it; use eval/sampled/",
    ),
    "training loss": ({"metric": "train/loss_l1"}, "a weaker degradation improves it; use"),
    "ssim of small images": (
        {"base": {"image_size": 8}, "metric": "eval/sampled/ssim"},
        "metric: the base's images are under ssim's window of 11 px; use rmse",
    ),
    "range outside bounds": (
        {"over": [T], "ranges": {T: {"low": 1, "high": 9}}},
        f"ranges.{T}: with num_timesteps=1 there is no path to search; start at 2",
    ),
    "rate outside bounds": (
        {"over": ["ema.decay"], "ranges": {"ema.decay": {"low": 0.5, "high": 1.5}}},
        "ema.decay: the base cannot have 1.5 here",
    ),
    "rung before the average": (
        {"base": {"ema": EMA}},
        "rungs: the first one, step 2, comes before the moving average of the weights has settled",
    ),
    "falling rungs": ({"rungs": [1.0, 0.5]}, "rungs: must rise from above 0 to 1"),
    "unreachable end": (
        {"base": {"degradation": {**NARROW, "num_timesteps": 40}}},
        "degradation.kernel_size: 200 of 200 points of the space cannot remove what the base does",
    ),
    "few images": (
        {"validation": 0.001},
        "validation: 0.001 of the training images leaves",
    ),
    "large grid": (
        {
            "searcher": "grid",
            "over": [T, "degradation.sigma.*", "optimizer.lr", "restorer.dim", "loss"],
            "ranges": {
                "loss": {"choices": ["l1", "l2"] * 11},
                "restorer.dim": {"choices": [4, 8] * 10},
            },
        },
        "searcher: a grid over 6 fields has",
    ),
    "generation": ({"compare": "generation"}, "search.compare: input should be 'same_end'"),
    "severities of a train job": (
        {"over": ["severities"], "ranges": {}},
        "over: severities: is searched in a trained checkpoint: base={checkpoint: JOB@best}",
    ),
    "sampler of a train job": (
        {"over": [T, "sampler"]},
        "over: sampler: is searched in a trained checkpoint",
    ),
    "calls of a train job": ({"calls": [5]}, "calls: is for the search of a checkpoint's"),
    "no base": ({"base": None}, "base: is required: a recipe, a job file, or the fields"),
    "unknown recipe": ({"base": "quikstart"}, "base: no recipe 'quikstart'; did you mean"),
    "two workers": (
        {"base": {"workers": 2}},
        "base.workers: a trial is trained by one worker, got 2; set workers=1 in the base",
    ),
    "a recipe with two workers": ({"base": "quickstart"}, "base.workers: a trial is trained"),
    "plugins": ({"base": {"plugins": ["kind.py"]}}, "base.plugins: a search takes no plugins"),
    "GPU hours": ({"limits": {"gpu_hours": 1}}, "limits.gpu_hours: a search does not count them"),
    "no CPU": ({"resources": {"cpus": 0}}, "resources.cpus: a trial needs a CPU or a GPU"),
    "no test set": (
        {"base": {"data": "PACKED"}, "confirm_seeds": 1},
        "base.test_data: is required for the confirmation; or set confirm_seeds=0",
    ),
}


@pytest.mark.parametrize("case", FIELDS)
def test_refused_before_anything_starts(
    case: str, storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fields, message = FIELDS[case]
    base = fields.get("base", {})
    if base == {"data": "PACKED"}:
        base = {"data": str(next((storage / "data").glob("digits-*/train")))}
    job = tiny_search(**{name: value for name, value in fields.items() if name != "base"})
    if not isinstance(base, dict):
        job["base"] = base
    else:
        job["base"] |= base
    assert message in refused(job, storage, monkeypatch, capsys)


def test_a_dry_run_refuses_what_needs_no_data(
    storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(tiny_search(rungs=[2.0]), storage, monkeypatch, capsys, "--dry-run")
    assert "rungs: must rise" in said
    said = refused(tiny_search(base={"workers": 2}), storage, monkeypatch, capsys, "--dry-run")
    assert "base.workers" in said


def test_a_recipe_with_other_fields_is_a_base(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = json.dumps({"recipe": "quickstart", "workers": 1, "num_steps": 400})
    dry = colddiff_here(monkeypatch, capsys, "submit", "search", f"base={base}", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "12 trials over degradation.num_timesteps, degradation.sigma.ratio" in dry.stderr
    assert "rungs at steps 100, 200, 400" in dry.stderr

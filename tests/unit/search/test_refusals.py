"""What a search refuses before anything starts: exit code 2, naming the field and the way out."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from colddiff.data.open import read_manifest
from colddiff.machine import logged_progress
from colddiff.spec import parse
from colddiff.verbs.search import search_task
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.splits import split_images
from colddiff.verbs.train.job import TrainJob
from tests.in_process import colddiff_here
from tests.unit.search.tiny_search import BASE, tiny_search

GONE = {
    "kind": "blur",
    "num_timesteps": 6,
    "kernel_size": 31,
    "padding": "circular",
    "sigma": {"kind": "constant", "value": 40.0},
}
SIGMA = "degradation.sigma.value"
SAMPLES: dict[str, Any] = {"compare": "generation", "over": [SIGMA], "ranges": {}}
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
    said = done.stderr.strip().splitlines()
    assert [line.startswith("colddiff: error: ") for line in said].index(True) == len(said) - 1
    return done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        *(
            ([f"{name}=1"], f"search.{name}: no such field; did you mean 'base.{name}'?\n")
            for name in TrainJob.model_fields
            if name not in SearchJob.model_fields
        ),
        (
            ["degradation.num_timesteps=7"],
            "search.degradation: no such field; did you mean 'base.degradation'?\n",
        ),
        (
            ["train.num_steps=20"],
            "search.train: no such field; did you mean 'base.num_steps'?\n",
        ),
        (
            ["data=there", "num_trial=3"],
            "search.num_trial: no such field; did you mean 'num_trials'? (fields: plugins",
        ),
        (
            ["base={checkpoint: x@best}", "test_data=there"],
            "search.test_data: no such field; did you mean 'base.test_data'?\n",
        ),
        (
            ["base={checkpoint: x@best}", "restorer=1"],
            "search.restorer: no such field; did you mean 'resources'?",
        ),
    ],
)
def test_a_field_of_the_base_is_told_where_it_belongs(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, words: list[str], says: str
) -> None:
    done = colddiff_here(monkeypatch, capsys, "submit", "search", *words, "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


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
        "metric: eval/sampled/rmse is of the sampler improved: add it to",
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
    "falling rungs": (
        {"rungs": [1.0, 0.5]},
        "rungs: must rise from above 0 to 1, got [1.0, 0.5]; they are fractions of base.num_steps",
    ),
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
    "samples of another comparison": (
        {"metric": "eval/generated/fd_lenet"},
        "metric: 'eval/generated/fd_lenet' is of samples without an image; use compare=generation",
    ),
    "restorations of a generation": (
        {**SAMPLES, "metric": "eval/sampled/fd_lenet"},
        "metric: 'eval/sampled/fd_lenet' restores degraded images, and with compare=generation "
        "D(x, T) holds none of x; use eval/generated/fd_lenet",
    ),
    "an error without an original": (
        {**SAMPLES, "metric": "eval/generated/rmse"},
        "metric: 'eval/generated/rmse' needs the original of each image, and samples have none; "
        "use eval/generated/fd_lenet",
    ),
    "samples in other features": (
        {**SAMPLES, "metric": "eval/generated/fid"},
        "metric: 'eval/generated/fid' is of other features than the base's evaluations; use",
    ),
    "the loss of a generation": (
        {**SAMPLES, "metric": "train/loss_l1"},
        "metric: 'train/loss_l1': a weaker degradation improves it; use eval/generated/fd_lenet",
    ),
    "nothing to start samples from": (
        {"base": {"degradation": {"kind": "inpaint"}}, **SAMPLES},
        "compare: inpaint has no distribution of x_T to draw samples from: use compare=same_end",
    ),
    "more steps than severities": (
        {
            **SAMPLES,
            "over": [T],
            "ranges": {T: {"low": 4, "high": 12}},
            "base": {"degradation": GONE, "evaluation": {"generated": {"severities": 5}}},
        },
        "base.evaluation.generated.severities: 5 steps, but trials have as few as 4 severities; "
        "use at most 4, or null for all",
    ),
    "more steps than the base has": (
        {"base": {"evaluation": {**BASE["evaluation"], "severities": 7}}},
        "base.evaluation.severities: 7 steps, but trials have as few as 6 severities; use at most",
    ),
    "a list of severities": (
        {"base": {"evaluation": {**BASE["evaluation"], "severities": [6, 3, 0]}}},
        "base.evaluation.severities: a list holds for one num_timesteps, which is searched; use a",
    ),
    "samples that start below T": (
        {
            **SAMPLES,
            "base": {"degradation": GONE, "evaluation": {"generated": {"severities": [4, 0]}}},
        },
        "base.evaluation.generated.severities: must start at T = 6, where x_T is drawn, got 4",
    ),
    "points that hold information": (
        {
            **SAMPLES,
            "ranges": {SIGMA: {"choices": [0.05, 0.5, 1.0]}},
            "base": {"degradation": GONE},
        },
        f"{SIGMA}: 200 of 200 points of the space leave more than 2% of the variance of x in "
        "D(x, T), which the base does not; search it where D removes more",
    ),
    "no data": (
        {"base": {"data": None}},
        "base.data: is required: the URI of packed shards, or a SOURCE such as mnist:DIR; pack one "
        "with `colddiff data pack SOURCE --out URI --image-size 16 --channels 1`",
    ),
    "unknown field of the base": (
        {"base": {"num_step": 4}},
        "base.num_step",
    ),
    "range of another field": (
        {"ranges": {"degradation.kernel_size": {"low": 3, "high": 9}}},
        "ranges.degradation.kernel_size: is not searched",
    ),
    "range upside down": (
        {"ranges": {T: {"low": 9, "high": 6}}},
        f"ranges.{T}: low must be below high, got 9 and 6",
    ),
    "information at T": (
        {"compare": "generation"},
        "base.degradation: a linear restorer recovers 97.3% of the variance of x from D(x, T), at "
        "most 2% may be left where samples are compared; base.degradation.collapse_to_mean=true",
    ),
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
    "no plugin": ({"base": {"plugins": ["kind.py"]}}, "kind.py' cannot be read"),
    "no plugin of its own": ({"plugins": ["kind.py"]}, "kind.py' cannot be read"),
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
    said = refused(tiny_search(resources={"cpus": 0}), storage, monkeypatch, capsys, "--dry-run")
    assert "resources.cpus" in said


def test_a_recipe_with_other_fields_is_a_base(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = json.dumps({"recipe": "quickstart", "workers": 1, "num_steps": 400})
    dry = colddiff_here(monkeypatch, capsys, "submit", "search", f"base={base}", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "12 trials over degradation.num_timesteps, degradation.sigma.ratio" in dry.stderr
    assert "rungs at steps 100, 200, 400" in dry.stderr


def test_what_takes_minutes_before_a_search_starts_is_logged_on_the_way(
    packed: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(logged_progress, "LOG_EVERY_S", 0.0)
    split_images(packed["data"], 0.2, str(tmp_path))
    count = read_manifest(packed["data"]).count
    fit, validation = (
        [line for line in caplog.messages if line.startswith(f"{part} part of the training images")]
        for part in ("fit", "validation")
    )
    assert fit[0].endswith("images packed")
    assert len(fit) + len(validation) == count
    monkeypatch.setattr(search_task, "random_point", lambda *_, **__: {})
    monkeypatch.setattr(search_task, "_can_reach", lambda *_: True)
    job = parse(SearchJob, {"base": {}})
    search_task.refuse_unreachable(SimpleNamespace(job=job, space=()))  # type: ignore[arg-type]
    assert caplog.messages[-1] == "checking that points can be compared: 1 of 200 points at most"

"""`submit --dry-run` of what needs a checkpoint: which it is, what it will take, why it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from colddiff.data.open import pack_source
from tests.in_process import Done, colddiff_here
from tests.tiny_checkpoint import tiny_checkpoint

Run = Callable[..., Done]
FAILS = "submitting this would fail: "


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with the checkpoint of a job, whose data is 40 and whose test images are 20."""
    folder = tmp_path_factory.mktemp("here")
    for split, limit in (("train", 40), ("test", 20)):
        uri = str(folder / split)
        pack_source("digits", uri, split=split, image_size=16, channels=1, limit=limit)
    job = folder / "runs/jobs/train-x"
    tiny_checkpoint(job, data=str(folder / "train"), test_data=str(folder / "test"))
    tiny_checkpoint(folder / "bare")
    return folder


@pytest.fixture
def dry(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str, **env: str) -> Done:
        typed = [word.replace("HERE", str(place)) for word in words]
        env = {"COLDDIFF_STORAGE": str(place / "runs"), **env}
        done = colddiff_here(monkeypatch, capsys, "submit", *typed, "--dry-run", **env)
        assert done.returncode == 0, done.stderr
        return done

    return run


FOUND = "step 3 of train-x (blur T=4, images 1x16x16), in "


def test_an_evaluation_says_its_checkpoint_its_images_and_its_calls(dry: Run, place: Path) -> None:
    words = ("evaluate", "checkpoint=train-x", "num_images=10", "curve=[2]")
    lines = dry(*words).stderr.splitlines()
    assert lines[0].startswith(f"checkpoint: {FOUND}{place}/runs/jobs/train-x/")
    assert lines[1] == f"test_data: 20 images of 16x16 px, grey, in {place}/test"
    assert lines[-3] == "  10 of 20 test images in batches of 64: 1"
    assert lines[-2].startswith("  11 calls of the network an image, 110 in all: ")
    assert lines[-1].startswith("  of these: direct 1, Algorithm 1 (naive) 4, ")
    told = json.loads(dry(*words, "--json").stdout)
    assert told["problems"] == []
    found = told["estimate"]
    assert (found["images"], found["calls_per_image"], found["flops"] > 0) == (10, 11, True)
    assert told["evaluate"]["checkpoint"] == "train-x"  # as typed: it can be submitted elsewhere


def test_notes_on_features_are_those_of_the_submission(dry: Run, place: Path) -> None:
    few = dry("evaluate", "checkpoint=train-x").stderr
    assert "\nfeatures: 20 images" in few
    samples = "samples=HERE/train", "reference=HERE/test"
    lines = dry("evaluate", *samples).stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["samples", "reference", "features"]


def test_a_generation_says_its_checkpoint_and_its_calls(dry: Run) -> None:
    done = dry("generate", "checkpoint=train-x", "data=HERE/test", "severities=2")
    assert done.stderr.startswith(f"checkpoint: {FOUND}")
    assert "20 images, shards of 1000" in done.stderr
    assert "  2 calls of the network an image, 40 in all: " in done.stderr


def test_a_search_of_a_checkpoint_names_the_images_of_its_job(dry: Run, place: Path) -> None:
    words = ("search", "search/calls-digits", "base.checkpoint=train-x", "calls=[2]")
    lines = dry(*words, "num_trials=2").stderr.splitlines()
    assert lines[0].startswith(f"base.checkpoint: {FOUND}")
    assert lines[1].startswith("base.data: 40 images")
    assert lines[2].startswith("base.test_data: 20 images")


MISSING = "no committed checkpoint at"


@pytest.mark.parametrize(
    ("words", "field", "why"),
    [
        (["evaluate", "checkpoint=nosuch@best"], "checkpoint", MISSING),
        (["evaluate", "checkpoint=train-x@bset"], "checkpoint", "train-x@bset: unknown @bset"),
        (["evaluate", "quickstart"], "checkpoint", "nothing was trained from this file in"),
        (["evaluate"], "checkpoint", "is required, or samples"),
        (["evaluate", "checkpoint=train-x", "curve=[9]"], "curve", "9 calls need as many sever"),
        (["evaluate", "checkpoint=train-x", "severities=9"], "severities", "must be 1..4 steps"),
        (["evaluate", "checkpoint=train-x", "num_images=21"], "num_images", "21 of 20 test images"),
        (
            ["evaluate", "samples=HERE/test", "reference=HERE/train", "num_images=21"],
            "num_images",
            "21 of 20 samples; use at most 20",
        ),
        (["evaluate", "checkpoint=HERE/bare"], "test_data", "is required: the checkpoint's job"),
        (["evaluate", "samples=HERE/test"], "reference", "is required: the URI of packed images"),
        (["generate", "checkpoint=nosuch", "num_samples=3"], "checkpoint", MISSING),
        (["generate", "checkpoint=train-x", "severities=9"], "num_samples", "is required: how"),
        (["generate", "num_samples=3"], "checkpoint", "is required (a checkpoint folder"),
        (["train", "quickstart", "--from", "nosuch"], "start_from", MISSING),
        (
            ["search", "search/calls-digits", "base.checkpoint=nosuch@best"],
            "base.checkpoint",
            MISSING,
        ),
        (
            ["study", "study/quickstart-seeds", "overrides.start_from=nosuch"],
            "jobs[0].start_from",
            MISSING,
        ),
    ],
)
def test_why_the_submission_would_fail_is_last_and_in_problems(
    dry: Run,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    field: str,
    why: str,
) -> None:
    done = dry(*words, "--json")
    problems = json.loads(done.stdout)["problems"]
    lines = done.stderr.splitlines()
    assert lines[len(lines) - len(problems) :] == problems
    (line,) = [line for line in problems if line.startswith(f"{field}: {FAILS}{why}")]
    typed = [word.replace("HERE", str(place)) for word in words]
    runs = {"COLDDIFF_STORAGE": str(place / "runs")}
    submitted = colddiff_here(monkeypatch, capsys, "submit", *typed, "--local", **runs)
    assert submitted.returncode == 2
    if len(problems) == 1:
        reason = line.partition(FAILS)[2]
        assert submitted.stderr.splitlines()[-1].endswith(reason)


def test_what_only_a_service_can_say_is_not_looked_for(dry: Run) -> None:
    cases: list[tuple[list[str], dict[str, str]]] = [
        (["evaluate", "checkpoint=mlflow:0123"], {}),
        (["evaluate", "checkpoint=s3://bucket/jobs/x"], {}),
        (["evaluate", "checkpoint=train-x"], {"COLDDIFF_STORAGE": "s3://bucket/runs"}),
        (["evaluate", "quickstart"], {"COLDDIFF_STORAGE": "s3://bucket/runs"}),
    ]
    for words, env in cases:
        done = dry(*words, "--json", AWS_ENDPOINT_URL="http://127.0.0.1:9", **env)
        assert "is looked for when" in done.stderr
        assert json.loads(done.stdout)["problems"] == []

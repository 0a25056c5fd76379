"""Samples drawn from a terminal though D(x, T) still shows the image: said, and never refused."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import colddiff
from colddiff.checkpoints.references import describe_checkpoint, find_checkpoint
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.verb import VERBS
from colddiff.spec import parse
from colddiff.terminals import held
from colddiff.verbs.evaluate.job import EvaluateJob
from colddiff.verbs.generate.job import GenerateJob
from tests.unit.generation.running import run
from tests.unit.generation.trained import BLUR, train_tiny

WEAK = {**BLUR, "sigma": {"kind": "constant", "value": 0.5}, "collapse_to_mean": False}
POOR = "samples will be poor: D(x, T) of this blur still shows the image"


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory, tracker_database: Path) -> dict[str, str]:
    """A checkpoint whose blur leaves most of a digit, as the quickstart's."""
    return train_tiny(tmp_path_factory.mktemp("weak"), tracker_database, degradation=WEAK)


def advice(resolved: ResolvedJob) -> list[str]:
    return list(VERBS["generate"].advice(resolved.job, lambda: None))


def test_it_is_said_at_submission_and_with_the_result(
    submitted: Callable[..., ResolvedJob], weak: dict[str, str]
) -> None:
    resolved = submitted(checkpoint=weak["job"], num_samples=5)
    (line,) = advice(resolved)
    assert line.startswith(POOR)
    assert "data=URI" in line
    code, folder = run(resolved)
    result = folder.result()
    assert code == 0
    assert result
    assert line in result["summary"]


def test_whoever_submits_is_warned(
    storage: Path, weak: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "colddiff")
    job = GenerateJob(checkpoint=weak["job"], num_samples=5)
    levels = []
    for _ in range(2):  # the second time it is done, and its result says it
        caplog.clear()
        colddiff.generate(job)
        levels.append([r.levelname for r in caplog.records if r.message.startswith(POOR)])
    assert levels == [["WARNING"], ["INFO"]]


def generating(trained: dict[str, str], **changes: Any) -> dict[str, Any]:
    """The fields of a training whose evaluations make samples, as it was resolved."""
    job = describe_checkpoint(find_checkpoint(trained["job"])).job.to_dict()
    evaluation = {**job["evaluation"], "generated": {"num_images": 4}, **changes}
    return {**job, "evaluation": evaluation}


def said(verb: str, **fields: Any) -> list[str]:
    """What is said of poor samples to whoever submits a job of ``verb``."""
    job = parse(VERBS[verb].spec(), fields)
    return [line for line in VERBS[verb].advice(job, lambda: None) if POOR in line]


def test_jobs_that_train_say_it_of_the_samples_of_their_evaluations(
    weak: dict[str, str],
) -> None:
    train = generating(weak)
    (line,) = said("train", **train)
    assert line.startswith(f"evaluation.generated: {POOR}")
    members = [{"id": f"train-x-{n}", "slug": "weak", "train": train} for n in range(2)]
    assert said("study", trainings=members) == [f"weak: {line}"]
    assert said("search", base=train) == [f"base.{line}"]


def test_nothing_is_said_of_evaluations_without_poor_samples(
    weak: dict[str, str], blurred: dict[str, str]
) -> None:
    assert said("train", **generating(weak, generated=None)) == []
    assert said("train", **generating(blurred)) == []


def test_an_evaluation_suggests_samples_only_where_they_are_not_poor(
    storage: Path, weak: dict[str, str], blurred: dict[str, str]
) -> None:
    for number, (trained, poor) in enumerate([(weak, True), (blurred, False)]):
        # Of another number of images: after one step both have the weights that they began with.
        n = 4 + number
        job = EvaluateJob(checkpoint=trained["job"], num_images=n, samplers=("direct",))
        result = colddiff.evaluate(job)
        assert (result["terminal"], result["poor_samples"]) == (True, poor)


@pytest.mark.parametrize("which", ["trained", "blurred"])
def test_nothing_is_said_where_samples_start_with_all_there_is(
    submitted: Callable[..., ResolvedJob], request: pytest.FixtureRequest, which: str
) -> None:
    """Noise, and a blur that leaves one colour."""
    job: dict[str, str] = request.getfixturevalue(which)
    assert advice(submitted(checkpoint=job["job"])) == []


def test_nothing_is_said_of_a_set_that_is_restored(
    submitted: Callable[..., ResolvedJob], weak: dict[str, str]
) -> None:
    assert advice(submitted(checkpoint=weak["job"], data=weak["test"], num_samples=None)) == []


def test_nothing_is_said_where_the_images_cannot_be_read(
    submitted: Callable[..., ResolvedJob], weak: dict[str, str], tmp_path: Path
) -> None:
    resolved = submitted(checkpoint=weak["job"])
    data = Path(weak["storage"], "data")
    shutil.move(data, tmp_path / "gone")
    try:
        assert advice(resolved) == []
    finally:
        shutil.move(tmp_path / "gone", data)


@pytest.mark.parametrize(("limit", "value"), [("MOST_VALUES", 640), ("MOST_BYTES", 100)])
def test_large_images_are_not_measured(
    submitted: Callable[..., ResolvedJob],
    weak: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: Any,
) -> None:
    monkeypatch.setattr(held, limit, value)
    assert advice(submitted(checkpoint=weak["job"])) == []

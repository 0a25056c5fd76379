"""What a job will take, from its spec alone; and what it took, over all attempts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from colddiff.checkpoints.format import Checkpoints
from colddiff.data.open import read_manifest
from colddiff.errors import SpecError
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.in_process import run_here
from colddiff.jobs.resolve import record_job, resolve
from colddiff.jobs.status import Status, spent_line
from colddiff.jobs.verb import VERBS
from colddiff.spec import parse
from colddiff.stores.open import open_store
from colddiff.verbs.study.job import StudyJob
from colddiff.verbs.train.estimates.cost import cost_of
from colddiff.verbs.train.estimates.estimate import estimate
from tests.unit import test_run
from tests.unit.test_train import job


def test_flops_and_bytes_follow_from_the_spec() -> None:
    found = estimate(job(num_steps=1000, global_batch_size=6))
    cost = cost_of(job())
    assert found.images == 6000
    assert found.training_flops_per_image == 3 * found.forward_flops_per_image
    assert found.flops_per_step == 6 * cost.training_flops
    assert found.flops == 1000 * found.flops_per_step
    assert (found.parameters, found.checkpoint_bytes) == (cost.parameters, cost.checkpoint_bytes)
    assert (found.hours, found.gpu_hours) == (None, None)
    assert "gives hours" in found.lines()[-1]


@pytest.mark.parametrize(
    ("fields", "gpu_hours"),
    [
        ({}, 0.0),
        ({"workers": 3, "resources": {"gpus": 2}}, 12.0),
        ({"workers": [1, 4], "resources": {"gpus": 1}}, 8.0),
        ({"workers": "all", "resources": {"gpus": 1}}, None),
        ({"workers": "all"}, 0.0),
    ],
    ids=str,
)
def test_hours_follow_from_a_rate(fields: dict[str, Any], gpu_hours: float | None) -> None:
    the_job = job(num_steps=7200, global_batch_size=100, **fields)
    found = estimate(the_job, "100")
    assert found.hours == pytest.approx(2.0)
    assert found.gpu_hours == (None if gpu_hours is None else pytest.approx(gpu_hours))
    assert "2 hours" in found.lines()[-1]
    tflops = f"{100 * found.training_flops_per_image / 1e12}TFLOP/s"
    assert estimate(the_job, tflops).hours == pytest.approx(2.0)


def test_evaluations_are_a_part_of_their_own(packed: dict[str, str]) -> None:
    steps = {"num_steps": 10, "checkpoint_every": 2, "evaluate_every": 3, "workers": 2}
    fields: dict[str, Any] = {**packed, **steps, "global_batch_size": 6}
    evaluation = {"num_images": 10, "curve": [2]}
    found = estimate(job(**fields, evaluation=evaluation), "6")
    # Of steps 6 and 10: one call of `direct`, T = 6 of both algorithms, two of the curve.
    assert (found.evaluations, found.evaluation_calls) == (2, 10 * (1 + 6 + 6 + 2))
    assert found.evaluation_flops == 2 * 150 * found.forward_flops_per_image
    # A third of a training image each, by one of the two workers.
    assert found.hours == pytest.approx(10 / 3600)
    assert found.evaluation_hours == pytest.approx(2 * 150 / 3 / (6 / 2) / 3600)
    assert found.lines()[-1].startswith("besides, 2 evaluations of 10 test images, 15 calls of ")
    assert "besides" not in str(found.to_dict())
    count = read_manifest(packed["test_data"]).count
    every = estimate(job(**fields))
    assert (every.evaluation_calls, every.evaluation_hours) == (count * 13, None)
    assert estimate(job(**{**fields, "test_data": None})).evaluations == 0


@pytest.mark.parametrize(
    ("evaluation", "field", "what"),
    [
        ({"severities": 7}, "severities", "must be 1..4 steps, got 7"),
        ({"severities": [4, 0], "curve": [5]}, "curve", "5 calls need as many severities; there"),
        ({"generated": {"severities": 7}}, "generated.severities", "must be 1..4 steps, got 7"),
        ({"num_images": 10_000}, "num_images", "10000 of 350 test images; use at most 350"),
    ],
)
def test_evaluations_that_would_fail_are_a_problem_and_refused_before_a_job_exists(
    packed: dict[str, str], storage: Path, evaluation: dict[str, Any], field: str, what: str
) -> None:
    """Of a study too, which names the entry."""
    asked = test_run.job(**packed, evaluation=evaluation)
    (problem,) = VERBS["train"].dry_run(asked, None).problems
    assert problem[0] == f"evaluation.{field}"
    assert problem[1].startswith(what)
    with pytest.raises(SpecError, match=f"evaluation.{field}: {what}"):
        resolve(asked, "tiny")
    assert not (storage / "jobs").exists()
    study = parse(StudyJob, {"jobs": [{"train": asked.to_dict()}]})
    (problem,) = VERBS["study"].dry_run(study, None).problems
    assert problem[0] == f"jobs[0].train.evaluation.{field}"


@pytest.mark.parametrize("rate", ["", "fast", "0", "-3", "1.2.3", "5 GB/s"])
def test_a_rate_that_cannot_be_meant(rate: str) -> None:
    with pytest.raises(SpecError, match="--rate: write images per second, such as 850"):
        estimate(job(), rate)


def test_gpu_hours_are_limited_and_counted_over_attempts(
    storage: Path, packed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colddiff.jobs.in_process.idle_gpu_line", lambda gpus: None)
    fields = {**packed, "resources": {"gpus": 2}, "limits": {"gpu_hours": 1e-7}}
    resolved = resolve(test_run.job(**fields, num_steps=100_000), "tiny")
    folder = JobFolder(open_store(resolved.storage), resolved.id)
    record_job(resolved, folder)
    spent = []
    for attempt in (1, 2):
        assert run_here(resolved, attempt) == 4
        status = folder.status()
        assert status is not None
        assert status.state == "stopped"
        assert status.message.startswith("limits.gpu_hours=1e-07 reached: stopped after step")
        assert Checkpoints(folder.store, folder.key("checkpoints")).steps()[-1] == status.step > 0
        assert status.gpu_hours == pytest.approx(2 * status.running_s / 3600)
        spent.append(status.gpu_hours)
    assert spent[1] > spent[0] > 0


def test_what_was_spent_in_a_line() -> None:
    one = Status(attempt=1, running_s=3725.0)
    assert spent_line(one) == "1:02:05 of running, 0 GPU hours"
    two = Status(attempt=2, running_s=60.0, gpu_hours=1.25)
    assert spent_line(two) == "0:01:00 of running over 2 attempts, 1.25 GPU hours"

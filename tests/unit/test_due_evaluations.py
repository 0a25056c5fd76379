"""Which checkpoints of a training are evaluated, and which of them is the best."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch

from colddiff.checkpoints.kept import COMMIT, due_steps
from colddiff.ema import Ema
from colddiff.errors import Stopped
from colddiff.evaluation.best import BestStep
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.recipes import load_recipe
from colddiff.jobs.verb import VERBS
from colddiff.spec import parse
from colddiff.stores.memory_store import MemoryStore
from colddiff.verbs.train.evaluation_watcher import EvaluationWatcher
from colddiff.verbs.train.job import TrainJob
from tests.unit.search.tiny_search import tiny_search
from tests.unit.test_attempt import attempt, raising


@pytest.mark.parametrize(
    ("every", "kept", "told"),
    [
        (None, 20, ""),
        (40, 20, ""),
        (50, 20, "those of every 100 steps and the last; choose a multiple of 20"),
        (10, 20, "those of every 20 steps and the last"),
        (7, 80, "the last alone; choose a multiple of 80, or checkpoint_every=7"),
    ],
)
def test_evaluations_that_meet_no_checkpoint_are_named_at_submission(
    every: int | None, kept: int, told: str
) -> None:
    fields: dict[str, Any] = {"evaluate_every": every, "checkpoint_every": kept, "num_steps": 400}
    fields |= {"ema": {"start": 30, "every": 1, "decay": 0.98}}
    lines = VERBS["train"].advice(parse(TrainJob, fields), lambda: None)
    assert [told in line for line in lines] == [True] * bool(told)


def test_evaluations_that_a_study_misses_are_named_and_a_search_has_its_own() -> None:
    fields = {"evaluate_every": 50, "checkpoint_every": 20, "num_steps": 90}
    train = load_recipe("quickstart").train.model_copy(update=fields)
    training = {"id": "train-a-00000000", "slug": "a", "train": train.to_dict()}
    study = parse(VERBS["study"].spec(), {"jobs": ["quickstart"], "trainings": [training] * 3})
    (line,) = VERBS["study"].advice(study, lambda: None)
    assert line.startswith("a: evaluate_every=50: only checkpoints are evaluated")
    assert "the last alone" in line
    search = parse(VERBS["search"].spec(), tiny_search(base=fields))
    assert not VERBS["search"].advice(search, lambda: None)


@pytest.mark.parametrize(
    ("steps", "ema", "told"),
    [
        (60, {}, "num_steps=60 is below ema.start=2000: images are made with a copy of step 60's"),
        (64, {}, "a copy of step 60's weights, no average of them"),
        (5, {}, "num_steps=5 is below ema.every=10: images are made with a copy of the weights "
         "before the first step"),
        (2000, {}, "of the average that images are made with, 99.5 % is step 1990's weights"),
        (28, {"start": 25}, "num_steps=28 has no multiple of ema.every=10 from ema.start=25 on: "
         "images are made with a copy of step 20's weights"),
        (60, {"start": 0}, "97 % is the weights before the first step"),
        (8000, {}, None),
    ],
)  # fmt: skip
def test_an_average_of_little_is_told_as_it_is(
    steps: int, ema: dict[str, Any], told: str | None
) -> None:
    job = parse(TrainJob, {"num_steps": steps, "ema": ema})
    lines = VERBS["train"].advice(job, lambda: None)
    lines = [line for line in lines if "average" in line]
    assert lines == [line for line in VERBS["train"].dry_run(job, None).lines if line in lines]
    assert [told is not None and told in line for line in lines] == [True] * (told is not None)
    # What it says is so: the weights of step k are k here.
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    average = Ema(network, decay=job.ema.decay, every=job.ema.every, start=job.ema.start)
    for step in range(1, steps + 1):
        torch.nn.init.constant_(network.weight, step)
        average.update(step)
    (found,) = (float(value) for value in average.state().values())
    single = re.search(r"step (\d+)'s weights", lines[0]) if lines else None
    if single and "copy" in lines[0]:
        assert found == int(single[1])
    if told is not None and "before the first step" in told and "copy" in lines[0]:
        assert found == 0
    if lines:
        named = re.findall(r"(ema\.\w+)=([\d.]+)", lines[0].rpartition("steps, set ")[2])
        changed = dict(named)
        better = job.with_({path: json.loads(value) for path, value in changed.items()})
        assert not [line for line in better.remarks() if "average" in line]


@pytest.fixture
def folder() -> JobFolder:
    return JobFolder(MemoryStore(), "train-x-00000000")


def commit(folder: JobFolder, step: int) -> None:
    folder.store.put(folder.key(f"checkpoints/step_{step:08d}/{COMMIT}"), b"{}")


def test_due_checkpoints_are_evaluated_but_the_last_one(
    folder: JobFolder, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    def evaluate(step: int) -> None:
        seen.append(step)
        folder.write_evaluation(step, {"metrics": {}})

    for step in (2, 3, 4, 6):
        commit(folder, step)
    with EvaluationWatcher(folder, 2, 6, evaluate):
        pass
    assert seen == [2, 4]
    assert not caplog.records


def test_a_failing_evaluation_is_logged_and_not_retried(
    folder: JobFolder, caplog: pytest.LogCaptureFixture
) -> None:
    def evaluate(step: int) -> None:
        raise RuntimeError("no memory")

    commit(folder, 2)
    with EvaluationWatcher(folder, 2, 6, evaluate):
        pass
    assert caplog.messages == ["evaluation of step 2 failed: no memory"]


def test_due_steps() -> None:
    assert due_steps([2, 4, 5, 6], 2, [4]) == [2, 6]
    assert due_steps([2, 4], None, []) == []


def test_the_best_step_has_the_lowest_distance_of_algorithm_2(folder: JobFolder) -> None:
    for step, distance in ((2, 9.0), (4, 3.0), (6, 5.0)):
        metrics = {"eval/sampled/fd_lenet": distance, "eval/direct/fd_lenet": 0.0}
        folder.write_evaluation(step, {"metrics": metrics})
    assert folder.best({2, 4, 6}) == BestStep(4, "eval/sampled/fd_lenet", 3.0)
    assert folder.best({2, 6}) == BestStep(6, "eval/sampled/fd_lenet", 5.0)
    assert folder.best(set()) is None


@pytest.mark.parametrize(
    ("spec", "best"),
    [
        ({"channels": 1, "image_size": 16}, BestStep(4, "eval/sampled/fd_lenet", 3.0)),
        ({"channels": 3, "image_size": 64}, BestStep(2, "eval/sampled/rmse", 0.1)),
        ({"evaluation": {"best": "eval/direct/ssim"}}, BestStep(6, "eval/direct/ssim", 0.75)),
    ],
    ids=["digits", "photographs", "its own"],
)
def test_the_best_step_is_told_by_what_fits_the_images(
    folder: JobFolder, spec: dict[str, Any], best: BestStep
) -> None:
    folder.write_job({"id": folder.job_id, "spec": spec})
    for step, distance, rmse, ssim in ((2, 9.0, 0.1, 0.5), (4, 3.0, 0.3, 0.5), (6, 5.0, 0.2, 0.75)):
        metrics = {
            "eval/sampled/fd_lenet": distance,
            "eval/sampled/rmse": rmse,
            "eval/direct/ssim": ssim,
            "eval/floor/fd_lenet": 0.0,
        }
        folder.write_evaluation(step, {"metrics": metrics, "provenance": {"n": 180}})
    assert folder.best({2, 4, 6}) == best


def test_a_score_is_kept_by_later_attempts(folder: JobFolder) -> None:
    first = attempt(folder)

    def work() -> dict[str, Any]:
        first.scored(("eval/sampled/fid", 12.5))
        first.scored(None)
        raise Stopped("asked to")

    first.drive(work)
    attempt(folder, 2).drive(raising(Stopped("asked to")))
    status = folder.status()
    assert status
    assert (status.attempt, status.score_metric, status.score) == (2, "eval/sampled/fid", 12.5)

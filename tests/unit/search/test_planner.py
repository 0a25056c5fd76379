"""The planner asks for segments from what is stored, and shares its journal with other drivers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from colddiff.errors import StoreError
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import resolve
from colddiff.jobs.segments.segment import JobSegment
from colddiff.spec import parse
from colddiff.verbs.search.confirm import Confirmation
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.planner import Planner
from colddiff.verbs.search.search_task import SearchTask
from colddiff.verbs.search.trials import Trial, read_trials, write_trial
from colddiff.verbs.search.work import prepare
from tests.unit.search.tiny_search import tiny_search
from tests.watched_store import Watched


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, split_digits: Path) -> str:
    place = tmp_path_factory.mktemp("planned")
    shutil.copytree(split_digits, place / "data")
    return str(place)


def attempt_at(storage: str, **fields: Any) -> tuple[Attempt, SearchTask]:
    job = parse(SearchJob, tiny_search(**fields))
    attempt = Attempt(resolve(job, "tiny", storage=storage), 1)
    return attempt, prepare(attempt)


def asked(planner: Planner) -> JobSegment:
    segment = planner.next()
    assert segment is not None
    return segment


def test_the_base_is_first_and_points_are_never_repeated(storage: str) -> None:
    attempt, task = attempt_at(storage, num_trials=8, seed=1)
    planner = Planner(attempt, task)
    keys = [asked(planner).key for _ in range(8)]
    assert keys == [f"trial {number} to step 2" for number in range(8)]
    assert planner.next() is None
    assert not planner.exhausted
    trials = read_trials(attempt.folder)
    assert len({trial.job_id for trial in trials}) == 8
    assert len({tuple(trial.point.items()) for trial in trials}) == 8
    assert trials[0].job["degradation"] == task.base.degradation.to_dict()


def test_a_trial_is_trained_on_the_split_without_pictures(storage: str) -> None:
    attempt, task = attempt_at(storage, seed=2, resources={"cpus": 2})
    job = asked(Planner(attempt, task)).job
    assert (job["data"], job["test_data"]) == (task.splits.fit, task.splits.validation)
    assert job["tracking"]["images"] is False
    assert job["resources"]["cpus"] == 2


def test_a_record_that_another_driver_wrote_first_stands(storage: str) -> None:
    attempt, task = attempt_at(storage, seed=3)
    planner = Planner(attempt, task)
    base = asked(planner)
    (first,) = read_trials(attempt.folder)
    other = replace(first, number=1, point={"degradation.num_timesteps": 9}, job={"seed": 5})
    assert write_trial(attempt.folder, other)
    assert asked(planner).job == {"seed": 5}
    assert read_trials(attempt.folder) == [first, other]
    assert base.job == first.job


def test_an_interrupted_segment_is_asked_for_again(storage: str) -> None:
    attempt, task = attempt_at(storage, seed=4, num_trials=1)
    planner = Planner(attempt, task)
    segment = asked(planner)
    assert planner.next() is None
    planner.interrupted(segment)
    assert not planner.exhausted
    assert asked(planner) == segment
    assert planner.failed() == {}


@pytest.mark.parametrize("searcher", ["grid", "random"])
def test_a_planner_that_begins_again_goes_on_with_the_same_trials(
    storage: str, tmp_path: Path, searcher: str
) -> None:
    attempt, task = attempt_at(storage, seed=9, searcher=searcher)
    begun = asked(Planner(attempt, task))
    later = Planner(attempt, task)
    keys = [asked(later) for _ in range(3)]
    assert keys[0] == begun
    trials = read_trials(attempt.folder)
    elsewhere = Attempt(replace(attempt.resolved, storage=str(tmp_path)), 1)
    undisturbed = Planner(elsewhere, task)
    assert [asked(undisturbed) for _ in range(3)] == keys
    assert read_trials(elsewhere.folder) == trials


def test_the_images_are_read_once_to_be_split(storage: str) -> None:
    """A search that goes on, or another of the same images, reads only what is packed."""
    attempt, task = attempt_at(storage, seed=10)
    data = Path(task.base.data or "")
    tars = {path: path.read_bytes() for path in data.glob("*.tar")}
    assert tars
    for path in tars:
        path.unlink()
    try:
        assert prepare(attempt).splits == task.splits
    finally:
        for path, content in tars.items():
            path.write_bytes(content)


def test_a_failed_trial_is_tried_again_by_the_next_attempt(storage: str) -> None:
    attempt, task = attempt_at(storage, seed=5, num_trials=2)
    planner = Planner(attempt, task)
    asked(planner)
    failing = asked(planner)
    planner.finished(failing, "its worker died too often")
    assert planner.failed() == {1: "its worker died too often"}
    assert planner.states[1].failed == "its worker died too often"
    assert planner.next() is None
    later = Planner(attempt, task)
    assert [asked(later).key for _ in range(2)] == ["trial 0 to step 2", failing.key]


def test_a_confirmation_that_was_stopped_is_not_finished(storage: str) -> None:
    attempt, task = attempt_at(storage, seed=6, num_trials=1, confirm_seeds=1)
    planner = Planner(attempt, task)
    asked(planner)
    base: Trial = read_trials(attempt.folder)[0]
    confirmation = Confirmation(attempt, task, [base])
    segment = confirmation.next()
    assert segment is not None
    assert segment.job["test_data"] == task.base.test_data
    assert segment.job["seed"] == task.base.seed + 1
    confirmation.interrupted(segment)
    assert not confirmation.exhausted
    assert confirmation.next() == segment
    confirmation.finished(segment, "no disk")
    assert confirmation.next() is None
    assert confirmation.failures() == ["confirmation of trial 0, seed 1 failed: no disk"]


def test_best_yaml_is_the_trial_on_all_images(storage: str) -> None:
    attempt, task = attempt_at(storage, seed=7)
    planner = Planner(attempt, task)
    asked(planner), asked(planner)
    for trial in read_trials(attempt.folder):
        best = task.job_of(trial)
        assert best.data == task.base.data
        assert best.degradation.to_dict() == trial.job["degradation"]
        assert best.checkpoint_every == task.base.checkpoint_every
        assert best.tracking.images
    assert Path(task.splits.fit).exists()


def test_a_store_that_is_down_for_a_moment_costs_no_trial(storage: str) -> None:
    attempt, task = attempt_at(storage, seed=8)
    failing: list[str] = []

    def fail(operation: str, key: str) -> None:
        if failing and operation == "get":
            raise StoreError(failing.pop())

    folder = JobFolder(Watched(Path(storage), fail), attempt.resolved.id)
    planner = Planner(Attempt(attempt.resolved, 1, folder=folder), task)
    asked(planner)
    segment = asked(planner)
    failing.append("the store is down")
    planner.finished(segment, "its worker died too often")
    assert not failing
    assert planner.failed() == {1: "its worker died too often"}

"""The journal: a trial is written once, and how it stands follows from its training job."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from colddiff.errors import ColddiffError
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import State, Status
from colddiff.stores.memory_store import MemoryStore
from colddiff.verbs.search.trials import (
    Trial,
    TrialState,
    read_trials,
    states,
    trial_key,
    write_trial,
)

RUNGS = (60, 120, 250)
METRIC = "eval/sampled/fd_lenet"


def trial(number: int = 0, **changes: Any) -> Trial:
    written = Trial(
        number=number,
        seed=0,
        point={"degradation.num_timesteps": 8 + number, "degradation.sigma.kind": "linear"},
        scale=1.25,
        end_rmse=0.2333,
        job={"degradation": {"kind": "blur", "num_timesteps": 8 + number}},
        job_id=f"train-digits-trial-{number:08x}",
        known=number,
    )
    return replace(written, **changes)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def folder(store: MemoryStore) -> JobFolder:
    return JobFolder(store, "search-digits-0123abcd")


def evaluated(store: MemoryStore, number: int, **values: Any) -> None:
    for step, value in values.items():
        metrics = {METRIC: value, "eval/sampled/rmse": 0.06}
        JobFolder(store, trial(number).job_id).write_evaluation(int(step[1:]), {"metrics": metrics})


def stands(store: MemoryStore, number: int, state: State, step: int, message: str = "") -> None:
    status = Status(state=state, step=step, message=message)
    JobFolder(store, trial(number).job_id).write_status(status)


def state_of(store: MemoryStore, number: int = 0) -> TrialState:
    return states(store, [trial(number)], RUNGS, METRIC)[0]


def test_what_is_read_is_what_was_written(folder: JobFolder) -> None:
    trials = [trial(0, scale=None, end_rmse=None), trial(1), trial(2)]
    assert all(write_trial(folder, each) for each in trials)
    assert read_trials(folder) == trials
    assert trial_key(folder, 1) == "jobs/search-digits-0123abcd/trials/0001.json"


def test_a_search_without_trials_has_an_empty_journal(folder: JobFolder) -> None:
    assert read_trials(folder) == []


def test_a_number_is_given_once(folder: JobFolder) -> None:
    assert write_trial(folder, trial(0))
    assert not write_trial(folder, trial(0, seed=7))
    assert read_trials(folder) == [trial(0)]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (b'{"number": 0, ', "JSON"),
        (b"", "JSON"),
        (b"[]", "trial 0"),
        (b"\xff\xfe", "trial 0"),
        (b'{"number": 0}', "seed: Field required"),
    ],
)
def test_a_damaged_record_is_one_clear_error(
    folder: JobFolder, damage: bytes, problem: str
) -> None:
    folder.store.put(trial_key(folder, 0), damage)
    with pytest.raises(ColddiffError) as error:
        read_trials(folder)
    message = str(error.value)
    assert problem in message
    assert f"{folder.uri}/trials/0000.json is not the record of trial 0" in message
    assert "\n" not in message


def test_a_record_under_another_number_is_an_error(folder: JobFolder) -> None:
    write_trial(folder, trial(1))
    folder.store.put(trial_key(folder, 0), folder.store.get(trial_key(folder, 1)))
    with pytest.raises(ColddiffError, match="it is of trial 1"):
        read_trials(folder)


def test_a_lost_record_is_an_error_that_names_it(folder: JobFolder) -> None:
    for number in (0, 2):
        write_trial(folder, trial(number))
    with pytest.raises(ColddiffError, match=r"trials/0001\.json is missing, but 0002\.json"):
        read_trials(folder)


def test_a_record_is_readable_json(folder: JobFolder) -> None:
    write_trial(folder, trial(3))
    assert json.loads(folder.store.get(trial_key(folder, 3)))["scale"] == 1.25


def test_a_trial_is_asked_then_at_a_rung_then_done(store: MemoryStore) -> None:
    told = [state_of(store).describe(RUNGS)]
    for step in RUNGS:
        evaluated(store, 0, **{f"s{step}": 400 / step})
        told.append(state_of(store).describe(RUNGS))
    assert told == ["asked", "at step 60", "at step 120", "done"]
    state = state_of(store)
    assert state.values == {step: 400 / step for step in RUNGS}
    assert state.metrics == {METRIC: 1.6, "eval/sampled/rmse": 0.06}
    assert state.done(RUNGS)


def test_once_the_search_is_over_what_did_not_go_on_was_passed_over(store: MemoryStore) -> None:
    assert state_of(store).describe(RUNGS, finished=True) == "asked"
    evaluated(store, 0, s60=4.0)
    assert state_of(store).describe(RUNGS, finished=True) == "passed over"
    evaluated(store, 0, s250=4.0)
    assert state_of(store).describe(RUNGS, finished=True) == "done"


def test_evaluations_between_the_rungs_do_not_count(store: MemoryStore) -> None:
    evaluated(store, 0, s60=4.0, s100=3.0)
    assert state_of(store).values == {60: 4.0}


def test_steps_are_those_trained_also_beyond_the_last_evaluation(store: MemoryStore) -> None:
    evaluated(store, 0, s60=4.0)
    assert state_of(store).steps == 60
    stands(store, 0, "stopped", 85)
    assert state_of(store).steps == 85
    assert state_of(store).failed is None


def test_a_failed_job_is_a_failed_trial_and_says_why(store: MemoryStore) -> None:
    evaluated(store, 0, s60=4.0)
    stands(store, 0, "failed", 70, "the loss is nan at step 70")
    state = state_of(store)
    assert state.failed == "the loss is nan at step 70"
    assert state.values == {60: 4.0}
    assert state.describe(RUNGS, finished=True) == "failed"


def test_what_was_evaluated_at_the_end_is_done_whatever_failed_afterwards(
    store: MemoryStore,
) -> None:
    evaluated(store, 0, s250=4.0)
    stands(store, 0, "failed", 250, "no space left")
    assert state_of(store).failed is None
    assert state_of(store).describe(RUNGS) == "done"


@pytest.mark.parametrize(
    ("value", "problem"),
    [(float("nan"), "is nan"), (float("inf"), "is inf"), (None, "is missing")],
)
def test_a_value_that_cannot_be_ranked_fails_the_trial(
    store: MemoryStore, value: float | None, problem: str
) -> None:
    evaluated(store, 0, s60=4.0, s120=value)
    state = state_of(store)
    assert state.values == {60: 4.0}
    assert state.failed == f"{METRIC} {problem} in the evaluation at step 120"


def test_what_was_done_before_is_not_read_again(store: MemoryStore) -> None:
    evaluated(store, 0, s60=2.0, s250=1.0)
    evaluated(store, 1, s60=3.0)
    trials = [trial(0), trial(1)]
    before = states(store, trials, RUNGS, METRIC)
    evaluated(store, 0, s250=9.0)
    evaluated(store, 1, s120=2.5)
    after = states(store, [*trials, trial(2)], RUNGS, METRIC, before=before)
    assert after[0] is before[0]
    assert after[1].values == {60: 3.0, 120: 2.5}
    assert after[2].values == {}

"""The time that a search has left: most trials end early, and a confirmation follows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from colddiff.spec import parse
from colddiff.verbs.search import work
from colddiff.verbs.search.estimate import expected_work
from colddiff.verbs.search.job import SearchJob
from tests.unit.search.tiny_search import tiny_search

RUNGS = [10, 20, 40]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A search of 12 trials whose progress is kept; 5 s pass for each optimizer step."""
    told = SimpleNamespace(last={}, states=[], confirmed_steps=0)
    job = parse(SearchJob, tiny_search(num_trials=12, confirm_best=1, confirm_seeds=3))
    planner = SimpleNamespace(
        states=told.states,
        task=SimpleNamespace(job=job, rungs=RUNGS),
        resumed=0,
        describe=lambda: {
            "asked": len(told.states),
            "running": 1,
            "done": sum(40 in state.values for state in told.states),
        },
    )

    def seconds() -> float:
        steps = sum(max(state.values, default=0) for state in told.states)
        return float(5 * (steps + told.confirmed_steps))

    monkeypatch.setattr(work, "time", SimpleNamespace(monotonic=seconds))
    attempt: Any = SimpleNamespace(progress=lambda **fields: told.last.update(fields))
    told.progress = work._Progress(attempt, planner, lambda states: None)  # type: ignore[arg-type]
    return told


def trial(*rungs: int) -> Any:
    return SimpleNamespace(values=dict.fromkeys(rungs, 1.0))


def test_the_time_left_follows_from_steps_and_includes_the_confirmation(told: Any) -> None:
    # 12 to step 10, 4 on to 20, 2 on to 40: 200 steps, and 6 confirmations of 40.
    assert expected_work(parse(SearchJob, tiny_search(num_trials=12)), RUNGS)[1] == 200
    told.progress()
    assert told.last["eta_s"] is None
    told.states.extend([trial(10, 20, 40), *[trial(10)] * 3, trial()])
    told.progress()
    assert (told.last["step"], told.last["num_steps"]) == (1, 12)
    assert told.last["eta_s"] == pytest.approx(5.0 * (200 + 240 - 70))
    assert told.last["detail"] == "5/12 trials asked, 1 running"


def test_a_confirmation_says_how_far_it_is(told: Any) -> None:
    told.states.extend([trial(10, 20, 40)] * 2 + [trial(10)] * 10)
    told.progress.confirming(0, 6)
    assert told.last["phase"] == "confirming"
    assert told.last["detail"] == "0/6 trainings with fresh seeds have ended"
    assert told.last["eta_s"] == pytest.approx(5.0 * 240)
    told.confirmed_steps = 80
    told.progress.confirming(2, 6)
    assert told.last["eta_s"] == pytest.approx(5.0 * 160)
    told.progress.confirming(6, 6)
    assert told.last["eta_s"] == 0.0

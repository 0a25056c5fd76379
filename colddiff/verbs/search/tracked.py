"""A search in the tracker: a parent run, whose children are the runs of its training jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from colddiff.machine.wording import counted
from colddiff.ports import Tracker
from colddiff.verbs.search.points.space import Dimension
from colddiff.verbs.search.promotion import BASE
from colddiff.verbs.search.search_task import SearchTask
from colddiff.verbs.search.settings import lower_is_better
from colddiff.verbs.search.trials import TrialState

SEARCH_TAG, TRIAL_TAG = "colddiff.search", "colddiff.trial"
CONFIRMATION_TAG, CALLS_TAG = "colddiff.confirmation_seed", "colddiff.calls"
NAME_TAG = "mlflow.runName"


def nested_run(
    search_id: str, trial: int, confirmed_with: int | None = None, calls: int | None = None
) -> dict[str, Any]:
    """``tracking`` fields of a job of a search: its run is a child of the search's.

    ``confirmed_with``: the fresh seed of a training of the confirmation; ``calls``: of the network,
    in an evaluation with skipped severities. The tracker was checked as the search was submitted;
    jobs that cannot reach it spool what they log.
    """
    name = f"trial {trial}{' (base)' * (trial == BASE)}"
    tags = {SEARCH_TAG: search_id, TRIAL_TAG: str(trial), NAME_TAG: name}
    if confirmed_with is not None:
        tags[CONFIRMATION_TAG] = str(confirmed_with)
        tags[NAME_TAG] = f"{name}, confirmed with seed {confirmed_with}"
    if calls is not None:
        tags[CALLS_TAG] = str(calls)
        tags[NAME_TAG] = f"{name}, {counted(calls, 'network call')}"
    return {"parent": search_id, "tags": tags, "required": False}


class SearchRun:
    """The search's own run: its space as params, and its results as they arrive.

    ``search/best`` is the best value of the metric at the last rung, ``search/trials`` the number
    of trials that reached it; both over the number of results: each trial has one a rung.
    """

    def __init__(self, tracker: Tracker, task: SearchTask) -> None:
        self._tracker, self._task = tracker, task
        self._logged: tuple[int, dict[str, float]] | None = None
        space = {f"space.{dimension.path}": _span(dimension) for dimension in task.space}
        rungs = ", ".join(map(str, task.rungs))
        tracker.log_params({**space, "rungs.steps": rungs, "end_rmse": f"{task.target:.6g}"})

    def __call__(self, states: Sequence[TrialState]) -> None:
        """Logs how the trials stand, if that is new."""
        last = self._task.rungs[-1]
        results = sum(len(state.values) for state in states)
        ended = [state.values[last] for state in states if last in state.values]
        if not ended:
            return
        best = (min if lower_is_better(self._task.metric) else max)(ended)
        now = results, {"search/best": best, "search/trials": float(len(ended))}
        if now != self._logged:
            self._logged = now
            self._tracker.log_metrics(now[1], results)


def summary_lines(result: Mapping[str, Any]) -> list[str]:
    """The best trial beside the base, what the confirmation found, and where the table is."""
    best, base, metric = result["best"], result.get("base"), result["metric"]
    point = ", ".join(f"{path}={value}" for path, value in best["point"].items())
    value = result["metrics"]["search/best"]
    beside = f" (the base {base:.5g})" if base is not None and best["trial"] != BASE else ""
    name = f"trial {best['trial']}{', the base' * (best['trial'] == BASE)}"
    return [
        f"best of {result['trials']} trials: {name}, {point}",
        f"{metric} {value:.5g}{beside}, on the validation part",
        *_others(result),
        *result.get("confirmation", []),
        f"leaderboard, with pictures: {result.get('page') or result['leaderboard']}",
    ]


def _others(result: Mapping[str, Any]) -> list[str]:
    """Where the base is the best: what the trials are that are compared with it all the same."""
    others = [str(one["trial"]) for one in result.get("confirmed", ())]
    if result["best"]["trial"] != BASE or not others:
        return []
    are = f"trial {others[0]} is" if len(others) == 1 else f"trials {', '.join(others)} are"
    return [f"{are} the best of the others, and compared with the base on the test set:"]


def _span(dimension: Dimension) -> str:
    if dimension.choices is not None:
        return f"one of {', '.join(map(str, dimension.choices))}"
    scale = ", log scale" if dimension.log else ""
    return f"{dimension.low:g} to {dimension.high:g}{scale}"

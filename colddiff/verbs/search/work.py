"""What an attempt at a search does: trials, the confirmation, and what comes of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import yaml

from colddiff.errors import Stopped
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.status import AGAIN
from colddiff.tracking.open import deliver_late
from colddiff.verbs.search.confirm import Confirmation, PairedComparison
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.leaderboard import (
    Leaderboard,
    html_page,
    leaderboard,
    ranked,
    to_json,
    to_markdown,
)
from colddiff.verbs.search.planner import Planner
from colddiff.verbs.search.promotion import BASE
from colddiff.verbs.search.search_task import SearchTask, open_task
from colddiff.verbs.search.segment import SegmentSource
from colddiff.verbs.search.settings import base_of, lower_is_better
from colddiff.verbs.search.splits import split_images
from colddiff.verbs.search.tracked import SearchRun
from colddiff.verbs.search.trials import TrialState

EMPTY: Mapping[str, str] = MappingProxyType({})

log = logging.getLogger(__name__)

RunSegments = Callable[[Attempt, SegmentSource, Callable[[], None]], None]
"""(attempt, source, on change): runs segments until the source is exhausted or a stop is asked."""


def prepare(attempt: Attempt) -> SearchTask:
    """The task: the images split, and the base's end measured."""
    job = attempt.resolved.job_as(SearchJob)
    base = base_of(job)
    assert base.data is not None
    splits = split_images(base.data, job.validation, attempt.resolved.storage)
    return open_task(job, base, splits)


def run_segments_here(
    attempt: Attempt, source: SegmentSource, on_change: Callable[[], None]
) -> None:
    """One segment after the other in this process."""
    while not attempt.stop_requested() and (segment := source.next()) is not None:
        on_change()
        try:
            error = segment.run(attempt.resolved, attempt.stop_requested)
        except Stopped:
            # SIGTERM reaches the innermost attempt of this process: it is meant for the search.
            attempt.request_stop()
            source.interrupted(segment)
            return
        source.finished(segment, error)
        on_change()


def search(attempt: Attempt, task: SearchTask, run_segments: RunSegments) -> dict[str, Any]:
    """Trains the trials, confirms the best and writes the results; returns the result.

    Raises Stopped where it was stopped before the end, ColddiffError where the base failed, or
    more than ``max_failures`` trials in a row.
    """
    began = time.monotonic()
    planner = Planner(attempt, task)
    if planner.resumed:
        total = attempt.resolved.job_as(SearchJob).num_trials
        log.info("%d of %d trials resumed", planner.resumed, total)
    run = SearchRun(attempt.tracker, task)
    changed = _Progress(attempt, planner, run)
    try:
        run_segments(attempt, planner, changed)
    finally:
        # Also of a search that stops or fails here: its table says which trials failed, and why.
        _write(attempt, _board(planner, {}), ())
    _refuse_unfinished(attempt, planner.exhausted, planner)
    in_order = ranked(planner.states, lower_is_better=lower_is_better(task.metric))
    done = [state for state in in_order if state.done(task.rungs)]
    run(planner.states)
    comparisons, failures, confirmed_by = _confirmed(attempt, task, done, run_segments)
    best_job = task.job_of(done[0].trial).to_dict()
    sentences = {c.trial: c.sentence(task.metric) for c in comparisons}
    _write(
        attempt,
        _board(planner, sentences),
        [*sentences.values(), *failures],
        {"best.yaml": yaml.safe_dump({"train": best_job}, sort_keys=False)},
    )
    # A space with fewer points than trials is done as well.
    attempt.reached(task.job.num_trials)
    best = done[0]
    metrics = {"search/best": best.values[task.rungs[-1]], "search/trials": float(len(done))}
    jobs = [state.trial.job_id for state in planner.states] + confirmed_by
    deliver_late(attempt.resolved.storage, attempt.resolved.tracking_uri, *jobs)
    return {
        "step": task.job.num_trials,
        "jobs": jobs,
        "trials": planner.describe()["asked"],
        "metric": task.metric,
        "end_rmse": task.target,
        "best": {"trial": best.trial.number, "job": best.trial.job_id, "point": best.trial.point},
        "base": planner.states[BASE].values.get(task.rungs[-1]),
        "confirmation": [*sentences.values(), *failures],
        "confirmed": [comparison.to_dict() for comparison in comparisons],
        "confirm_best": task.job.confirm_best,
        "confirm_seeds": task.job.confirm_seeds,
        "leaderboard": f"{attempt.folder.uri}/leaderboard.md",
        "best_yaml": f"{attempt.folder.uri}/best.yaml",
        "metrics": metrics,
        "time": {"search_s": time.monotonic() - began},
    }


def _refuse_unfinished(attempt: Attempt, exhausted: bool, planner: Planner) -> None:
    if exhausted:
        return
    about = planner.describe()
    attempt.reached(about["done"], stopped=True)
    raise Stopped(f"stopped with {about['done']} of {about['asked']} trials done; {AGAIN}")


def _confirmed(
    attempt: Attempt, task: SearchTask, done: list[TrialState], run_segments: RunSegments
) -> tuple[list[PairedComparison], list[str], list[str]]:
    """What the confirmation found, a sentence for each training that failed, and the jobs' ids."""
    job = task.job
    chosen = [state.trial for state in done if state.trial.number != 0][: job.confirm_best]
    base = [state.trial for state in done if state.trial.number == 0]
    if not (job.confirm_seeds and chosen):
        return [], [], []
    attempt.phase("confirming")
    confirmation = Confirmation(attempt, task, [*base, *chosen])
    run_segments(attempt, confirmation, lambda: None)
    if not confirmation.exhausted:
        raise Stopped(f"stopped during the confirmation; {AGAIN}")
    comparisons = confirmation.comparisons()
    for comparison in comparisons:
        attempt.report(comparison.sentence(task.metric))
    return comparisons, confirmation.failures(), confirmation.job_ids()


class _Progress:
    """Writes and tracks how many trials are done, and how long the rest may take."""

    def __init__(self, attempt: Attempt, planner: Planner, run: SearchRun) -> None:
        self._attempt, self._planner, self._run = attempt, planner, run
        self._began = time.monotonic()
        self._before = planner.describe()["done"]

    def __call__(self) -> None:
        self._run(self._planner.states)
        about = self._planner.describe()
        total = self._planner.task.job.num_trials
        made = about["done"] - self._before
        passed = time.monotonic() - self._began
        detail = f"{about['asked']}/{total} trials asked, {about['running']} running"
        if self._planner.resumed:
            detail += f", {self._planner.resumed} resumed"
        self._attempt.progress(
            step=about["done"],
            num_steps=total,
            phase="searching",
            detail=detail,
            eta_s=passed / made * (total - about["done"]) if made else None,
        )


def _board(planner: Planner, confirmed: Mapping[int, str]) -> Leaderboard:
    task = planner.task
    return leaderboard(
        planner.states,
        task.rungs,
        task.metric,
        lower_is_better=lower_is_better(task.metric),
        finished=planner.exhausted,
        confirmed=confirmed,
    )


def _write(
    attempt: Attempt, board: Leaderboard, sentences: Sequence[str], more: Mapping[str, str] = EMPTY
) -> None:
    """The leaderboard and ``more`` files, whole, into the job's folder and its tracking run."""
    files = {
        "leaderboard.json": to_json(board),
        "leaderboard.md": to_markdown(board) + "".join(f"\n{line}\n" for line in sentences),
        "leaderboard.html": html_page(board, attempt.resolved.id),
        **more,
    }
    for name, text in files.items():
        attempt.folder.store.put(attempt.folder.key(name), text.encode())
        attempt.tracker.log_artifact(name, text.encode())

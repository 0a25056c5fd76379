"""The trials of a search as segments: asked for, promoted and passed over, from what is stored.

Every decision follows from the journal (``trials/``) and the training jobs' own folders, so a
search that was killed continues as it would have.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from colddiff.jobs.attempt import Attempt
from colddiff.jobs.resolve import identified
from colddiff.jobs.segments.segment import OUTAGE_S, JobSegment, Segment
from colddiff.jobs.segments.spending import RUNNING
from colddiff.retry import call_with_retry
from colddiff.verbs.search.failures import FailuresInARow
from colddiff.verbs.search.points.space import Point, base_point, job_at
from colddiff.verbs.search.points.suggest import observations, suggested_point
from colddiff.verbs.search.promotion import BASE, New, NoneLeft, Wait, next_segment
from colddiff.verbs.search.search_task import End, SearchTask, end_of, end_of_base
from colddiff.verbs.search.settings import lower_is_better, measured_as
from colddiff.verbs.search.tracked import nested_run
from colddiff.verbs.search.trials import Trial, TrialState, read_trials, states, write_trial

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

log = logging.getLogger(__name__)

REDRAWS = 100
"""Draws of one trial's point after which the space counts as exhausted."""


class Planner:
    """``SegmentSource`` of the trials; asked by one thread at a time."""

    def __init__(self, attempt: Attempt, task: SearchTask) -> None:
        self._attempt, self.task = attempt, task
        self._slug = f"{attempt.resolved.slug}-trial-{measured_as(task.base)}"
        self._trials = read_trials(attempt.folder)
        self._running: set[tuple[int, int]] = set()
        self._turns = Counter[int]()
        """Segments of each trial that have ended in this attempt."""
        self._errors: dict[int, str] = {}
        self._unusable: list[Point] = []
        self._failures = FailuresInARow(task.job.max_failures, "trials")
        self._wanted = task.job.num_trials
        self.states: list[TrialState] = []
        self._refresh()
        self.resumed = sum(bool(state.steps) for state in self.states)

    @property
    def exhausted(self) -> bool:
        return not self._running and isinstance(self._decide(), NoneLeft)

    def next(self) -> JobSegment | None:
        while True:
            decision = self._decide()
            if isinstance(decision, Wait | NoneLeft):
                return None
            if isinstance(decision, New):
                trial = self._ask()
                if trial is None:
                    log.info("the space has no further point: %d trials", len(self._trials))
                    self._wanted = len(self._trials)
                    continue
                decision = (trial.number, self.task.rungs[0])
            number, step = decision
            self._running.add((number, step))
            key = f"trial {number} to step {step}"
            tracking = nested_run(self._attempt.resolved.id, number)
            return JobSegment(key, self._slug, self._trials[number].job, step, tracking)

    def finished(self, segment: Segment, error: str) -> None:
        number, step = self._ended(segment)
        self._refresh()
        value = self.states[number].values.get(step)
        if not error and value is not None:
            self._failures.succeeded()
            self._attempt.report(f"{segment.key}: {self.task.metric} {value:.5g}")
            return
        self._errors[number] = error or self.states[number].failed or "it was not evaluated"
        log.warning("%s failed: %s", segment.key, self._errors[number])
        self._refresh()
        self._failures.failed(number, self._errors[number])

    def interrupted(self, segment: Segment) -> None:
        self._ended(segment)
        self._refresh()

    def _ended(self, segment: Segment) -> tuple[int, int]:
        """Trial and step of a segment that runs no longer."""
        (mine,) = (
            (number, step)
            for number, step in self._running
            if segment.key == f"trial {number} to step {step}"
        )
        self._turns[mine[0]] += 1
        self._running.discard(mine)
        return mine

    def failed(self) -> dict[int, str]:
        """Why trials cannot go on in this attempt, by number; the next attempt tries them again."""
        return dict(self._errors)

    def trainings(self) -> dict[str, str]:
        """Ids of all training jobs, and RUNNING or how many segments ended; for any thread."""
        running = {number for number, _ in tuple(self._running)}
        return {
            trial.job_id: RUNNING if trial.number in running else str(self._turns[trial.number])
            for trial in tuple(self._trials)
        }

    def describe(self) -> dict[str, int]:
        """How many trials are asked for, done and running."""
        done = sum(state.done(self.task.rungs) for state in self.states)
        return {
            "asked": len(self._trials),
            "done": done,
            "running": len(self._running),
        }

    def _decide(self) -> Any:
        return next_segment(
            [state.values for state in self.states],
            self._running,
            self.failed(),
            self.task.rungs,
            self._wanted,
            lower_is_better=lower_is_better(self.task.metric),
            steps=[state.steps for state in self.states],
        )

    def _refresh(self) -> None:
        self.states = call_with_retry(
            lambda: states(
                self._attempt.folder.store,
                self._trials,
                self.task.rungs,
                self.task.metric,
                before=self.states,
            ),
            "the results of trials",
            OUTAGE_S,
        )
        for number, error in self._errors.items():
            if not self.states[number].done(self.task.rungs):
                self.states[number] = replace(self.states[number], failed=error)

    def _ask(self) -> Trial | None:
        """A new trial, written before anybody hears of it; None where the space is exhausted."""
        number = len(self._trials)
        trial = self._base() if number == BASE else self._drawn(number)
        if trial is None:
            return None
        if write_trial(self._attempt.folder, trial):
            self._trials.append(trial)
        else:
            # An earlier driver that had not died yet wrote this number: its record stands.
            self._trials = read_trials(self._attempt.folder)
        self._refresh()
        return self._trials[number]

    def _base(self) -> Trial:
        job = self.task.training(self.task.base)
        point = base_point(self.task.base, self.task.space)
        return self._trial(BASE, point, end_of_base(self.task), job)

    def _drawn(self, number: int) -> Trial | None:
        job = self.task.job
        taken = {trial.job_id for trial in self._trials}
        points = [trial.point for trial in self._trials]
        history = observations(self.states, self.task.rungs)
        missed = 0
        for redraw in range(REDRAWS):
            point = suggested_point(
                job.searcher,
                self.task.space,
                job.seed,
                number,
                history,
                redraw=redraw,
                lower_is_better=lower_is_better(self.task.metric),
            )
            if point is None:
                return None
            if point in points:
                continue
            known = point in self._unusable
            found = None if known else end_of(self.task, point)
            if found is None:
                missed += 1
                self._unusable += [] if known else [point]
                continue
            training = self.task.training(job_at(self.task.base, point, found.scale))
            trial = self._trial(number, point, found, training, missed)
            if trial.job_id not in taken:
                return trial
        return None

    def _trial(
        self, number: int, point: Point, found: End, job: TrainJob, redrawn: int = 0
    ) -> Trial:
        storage = self._attempt.resolved.storage
        _, _, job_id = identified(self.task.with_plugins(job), self._slug, storage)
        known = sum(bool(state.values) for state in self.states)
        return Trial(
            number,
            job.seed,
            dict(point),
            found.scale,
            found.rmse,
            job.to_dict(),
            job_id,
            known,
            redrawn,
            found.information,
        )

"""The trials of a search as segments: asked for, promoted and passed over, from what is stored.

Every decision follows from the journal (``trials/``) and the training jobs' own folders, so a
search that was killed continues as it would have.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from colddiff.data.open import open_second_set, open_transformed
from colddiff.errors import SpecError
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.resolve import identified
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.promotion import New, NoneLeft, Wait, next_segment
from colddiff.verbs.search.resolve import base_of, lower_is_better, ranges_of, rung_steps
from colddiff.verbs.search.same_end import (
    Scaled,
    end_images,
    end_rmse,
    saturating_field,
    scaled_to_end,
)
from colddiff.verbs.search.segment import Segment
from colddiff.verbs.search.space import Dimension, Point, job_at, search_space
from colddiff.verbs.search.splits import Splits
from colddiff.verbs.search.suggest import observations, random_point, suggested_point
from colddiff.verbs.search.trials import Trial, TrialState, read_trials, states, write_trial

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

log = logging.getLogger(__name__)

REDRAWS = 100
"""Draws of one trial's point after which the space counts as exhausted."""
PROBES = 200
MOST_UNREACHABLE = 0.9
"""Part of the probes that may miss the end before the space is refused."""


@dataclass(frozen=True, slots=True)
class SearchTask:
    """What all trials solve: the base, the space around it, the images and the end."""

    job: SearchJob
    base: TrainJob
    space: tuple[Dimension, ...]
    rungs: tuple[int, ...]
    """Optimizer steps; the last is the base's ``num_steps``."""
    splits: Splits
    x0: torch.Tensor
    omega: dict[str, torch.Tensor]
    target: float
    """RMSE of D(x, T) against x of the base, on the scale [0, 1]."""

    @property
    def metric(self) -> str:
        """Metric path that trials are ranked by."""
        assert self.job.metric is not None
        return self.job.metric

    def training(self, job: TrainJob) -> TrainJob:
        """``job`` as a trial is trained: on the fit part, compared on the validation part."""
        return job.model_copy(
            update={
                "data": self.splits.fit,
                "test_data": self.splits.validation,
                "num_steps": self.rungs[-1],
                "evaluate_every": None,
                "checkpoint_every": max(1, min(self.rungs[0], job.checkpoint_every)),
                "keep": 1,
                "tracking": self.job.tracking.model_copy(update={"images": False}),
                "storage": None,
            }
        )


def open_task(job: SearchJob, splits: Splits) -> SearchTask:
    """The task of a resolved search.

    Raises SpecError where too few points of the space can reach the base's end.
    """
    base = base_of(job)
    steps = tuple(rung_steps(job, base))
    source = open_transformed(splits.fit, base.augment, base.shape)
    D = base.degradation.build(base.shape)
    x0, omega = end_images(source, D, job.seed, images=open_second_set(D, base.augment))
    task = SearchTask(
        job,
        base,
        search_space(base, job.over, ranges_of(job), job.compare),
        steps if job.scheduler == "promotion" else steps[-1:],
        splits,
        x0,
        omega,
        end_rmse(base, x0, omega),
    )
    _refuse_unreachable(task)
    return task


def _refuse_unreachable(task: SearchTask) -> None:
    missed: list[Point] = []
    for number in range(PROBES):
        point = random_point(task.space, task.job.seed, number, redraw=-1)
        if scaled(task, point) is None:
            missed.append(point)
        if number + 1 - len(missed) > (1 - MOST_UNREACHABLE) * PROBES:
            return
    field = saturating_field(task.base, missed[:20], task.target, task.x0, task.omega)
    raise SpecError(
        [
            (
                field,
                f"{len(missed)} of {PROBES} points of the space cannot remove what the base does "
                f"(RMSE {task.target:.4g}) at any scale; this field limits them",
            )
        ]
    )


def scaled(task: SearchTask, point: Point) -> Scaled | None:
    """The scale at which ``point`` reaches the base's end; None where none does."""
    try:
        return scaled_to_end(task.base, point, task.target, task.x0, task.omega)
    except SpecError:
        return None  # a point that is no valid job


class Planner:
    """``SegmentSource`` of the trials; asked by one thread at a time."""

    def __init__(self, attempt: Attempt, task: SearchTask) -> None:
        self._attempt, self.task = attempt, task
        self._slug = f"{attempt.resolved.slug}-trial"
        self._trials = read_trials(attempt.folder)
        self._running: set[tuple[int, int]] = set()
        self._errors: dict[int, str] = {}
        self._wanted = task.job.num_trials
        self.states: list[TrialState] = []
        self._refresh()
        self.resumed = sum(bool(state.steps) for state in self.states)

    @property
    def exhausted(self) -> bool:
        return not self._running and isinstance(self._decide(), NoneLeft)

    def next(self) -> Segment | None:
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
            return Segment(key, self._slug, self._trials[number].job, step)

    def finished(self, segment: Segment, error: str) -> None:
        (mine,) = (
            (number, step)
            for number, step in self._running
            if segment.key == f"trial {number} to step {step}"
        )
        self._running.discard(mine)
        if error:
            self._errors[mine[0]] = error
            log.warning("%s failed: %s", segment.key, error)
        self._refresh()
        value = self.states[mine[0]].values.get(mine[1])
        if value is not None:
            log.info("%s: %s %.5g", segment.key, self.task.metric, value)

    def failed(self) -> dict[int, str]:
        """Why trials cannot go on, by number."""
        stored = {s.trial.number: s.failed for s in self.states if s.failed is not None}
        return {**stored, **self._errors}

    def describe(self) -> dict[str, int]:
        """How many trials are done, failed, running, and asked for in all."""
        done = sum(state.done(self.task.rungs) for state in self.states)
        return {
            "asked": len(self._trials),
            "done": done,
            "failed": len(self.failed()),
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
        self.states = states(
            self._attempt.folder.store,
            self._trials,
            self.task.rungs,
            self.task.metric,
            before=self.states,
        )

    def _ask(self) -> Trial | None:
        """A new trial, written before anybody hears of it; None where the space is exhausted."""
        number = len(self._trials)
        trial = self._base() if number == 0 else self._drawn(number)
        if trial is None:
            return None
        write_trial(self._attempt.folder, trial)
        self._trials.append(trial)
        self._refresh()
        return trial

    def _base(self) -> Trial:
        job = self.task.training(self.task.base)
        return self._trial(0, {}, Scaled(1.0, self.task.target), job)

    def _drawn(self, number: int) -> Trial | None:
        job = self.task.job
        taken = {trial.job_id for trial in self._trials}
        history = observations(self.states, self.task.rungs)
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
            found = scaled(self.task, point)
            if found is None:
                continue
            training = self.task.training(job_at(self.task.base, point, found.scale))
            trial = self._trial(number, point, found, training)
            if trial.job_id not in taken:
                return trial
        return None

    def _trial(self, number: int, point: Point, found: Scaled, job: TrainJob) -> Trial:
        storage = self._attempt.resolved.storage
        _, _, job_id = identified(job, self._slug, storage)
        known = sum(bool(state.values) for state in self.states)
        return Trial(
            number, job.seed, dict(point), found.scale, found.rmse, job.to_dict(), job_id, known
        )

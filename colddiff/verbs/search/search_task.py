"""What all trials of a search solve: the base, the space around it, the images and the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from colddiff.data.open import open_second_set, open_transformed
from colddiff.errors import SpecError
from colddiff.jobs.job import LimitsSpec
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.points.same_end import (
    Scaled,
    can_reach_end,
    end_images,
    end_rmse,
    saturating_field,
    scaled_to_end,
)
from colddiff.verbs.search.points.space import Dimension, Point, job_at, search_space
from colddiff.verbs.search.points.suggest import random_point
from colddiff.verbs.search.promotion import BASE
from colddiff.verbs.search.settings import ranges_of, rung_steps
from colddiff.verbs.search.splits import Splits
from colddiff.verbs.search.trials import Trial

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

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

    def job_of(self, trial: Trial) -> TrainJob:
        """The training job of a trial as a person would submit it: on all training images."""
        if trial.number == BASE:
            return self.base
        return job_at(self.base, trial.point, trial.scale)

    def with_plugins(self, job: TrainJob) -> TrainJob:
        """``job`` with the plugins of the search, which records name none of: paths differ."""
        return job.model_copy(update={"plugins": self.job.plugins})

    def training(self, job: TrainJob) -> TrainJob:
        """``job`` as a trial is trained: on the fit part, compared on the validation part."""
        return job.model_copy(
            update={
                "data": self.splits.fit,
                "test_data": self.splits.validation,
                "num_steps": self.rungs[-1],
                "resources": self.job.resources or job.resources,
                "limits": LimitsSpec(),  # those of the search hold for all its trials together
                "evaluate_every": None,
                "checkpoint_every": max(1, min(self.rungs[0], job.checkpoint_every)),
                "keep": 1,
                "tracking": self.job.tracking.model_copy(update={"images": False}),
                "storage": None,
            }
        )


def open_task(job: SearchJob, base: TrainJob, splits: Splits) -> SearchTask:
    """The task of a search whose ``base`` is resolved."""
    steps = tuple(rung_steps(job, base))
    source = open_transformed(splits.fit, base.augment, base.shape)
    D = base.degradation.build(base.shape)
    x0, omega = end_images(source, D, job.seed, images=open_second_set(D, base.augment))
    return SearchTask(
        job,
        base,
        search_space(base, job.over, ranges_of(job), job.compare),
        steps if job.scheduler == "promotion" else steps[-1:],
        splits,
        x0,
        omega,
        end_rmse(base, x0, omega),
    )


def refuse_unreachable(task: SearchTask) -> None:
    """Raises SpecError, naming the field, where too few points can reach the base's end.

    Stops probing once enough do: usually after a tenth of ``PROBES``, with two calls of D each.
    """
    missed: list[Point] = []
    for number in range(PROBES):
        point = random_point(task.space, task.job.seed, number, redraw=-1)
        if not _can_reach(task, point):
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


def _can_reach(task: SearchTask, point: Point) -> bool:
    try:
        return can_reach_end(task.base, point, task.target, task.x0, task.omega)
    except SpecError:
        return False  # a point that is no valid job

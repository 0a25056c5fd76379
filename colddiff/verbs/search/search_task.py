"""What all trials of a search solve: the base, the space around it, the images and the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from colddiff.data.open import open_second_set, open_transformed
from colddiff.errors import SpecError
from colddiff.evaluation.set_comparison import COLUMN
from colddiff.jobs.job import LimitsSpec
from colddiff.machine.logged_progress import logged_progress
from colddiff.spec import canonical_json
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.points.information import (
    MOST_INFORMATION,
    held_information,
    stronger,
)
from colddiff.verbs.search.points.same_end import (
    can_reach_end,
    end_images,
    end_rmse,
    saturating_field,
    scaled_to_end,
)
from colddiff.verbs.search.points.space import (
    DEGRADATION,
    Dimension,
    Point,
    job_at,
    search_space,
)
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
PROBES_TO_BLAME = 5
"""Probes that are tried again to find the field that keeps them from the end."""


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
        evaluation, images = job.evaluation, False
        if self.job.compare == "generation":
            # Restorations cost as much as samples, and nothing is compared by them.
            samples = (evaluation.best or "").startswith(f"{COLUMN}/")
            best = evaluation.best if samples else None  # one of restorations is not evaluated
            evaluation = evaluation.model_copy(update={"samplers": (), "best": best})
            images = self.job.tracking.images  # a sheet of the samples that were made anyway
        return job.model_copy(
            update={
                "evaluation": evaluation,
                "data": self.splits.fit,
                "test_data": self.splits.validation,
                "num_steps": self.rungs[-1],
                "resources": self.job.resources or job.resources,
                "limits": LimitsSpec(),  # those of the search hold for all its trials together
                "evaluate_every": None,
                "checkpoint_every": max(1, min(self.rungs[0], job.checkpoint_every)),
                "keep": 1,
                "tracking": self.job.tracking.model_copy(update={"images": images}),
                "storage": None,
            }
        )


def open_task(job: SearchJob, base: TrainJob, splits: Splits) -> SearchTask:
    """The task of a search whose ``base`` is resolved."""
    source = open_transformed(splits.fit, base.augment, base.shape)
    D = base.degradation.build(base.shape)
    x0, omega = end_images(source, D, job.seed, images=open_second_set(D, base.augment))
    return task_on(job, base, splits, x0, omega)


def task_on(
    job: SearchJob, base: TrainJob, splits: Splits, x0: torch.Tensor, omega: dict[str, torch.Tensor]
) -> SearchTask:
    """The task whose ends are measured on ``x0`` with ``omega``."""
    steps = tuple(rung_steps(job, base))
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


@dataclass(frozen=True, slots=True)
class End:
    """How D of a point ends, in the terms by which its search compares trials."""

    scale: float | None
    """Factor on the schedule; None where none is applied."""
    rmse: float | None
    """RMSE of D(x, T) against x, on the scale [0, 1]; None where it may differ."""
    information: float | None = None
    """Part of the variance of x that D(x, T) holds; None where it may hold some."""


def end_of(task: SearchTask, point: Point) -> End | None:
    """The end of D at ``point``; None where it cannot be compared with the base's."""
    try:
        if task.job.compare == "generation":
            held = _held(task, point)
            return End(None, None, held) if held <= MOST_INFORMATION else None
        found = scaled_to_end(task.base, point, task.target, task.x0, task.omega)
    except SpecError:
        return None  # a point that is no valid job
    return None if found is None else End(found.scale, found.rmse)


def end_of_base(task: SearchTask) -> End:
    """The end of the base's own D."""
    if task.job.compare == "generation":
        return End(None, None, _held(task, {}))
    return End(1.0, task.target)


def refuse_unreachable(task: SearchTask) -> None:
    """Raises SpecError, naming the field, where too few points can be compared with the base.

    Those that cannot reach its end, or with ``compare`` "generation" those whose D(x, T) holds
    information about x. Stops probing once enough can: usually after a tenth of ``PROBES``, with
    two calls of D each.
    """
    if task.job.compare == "generation":
        _refuse_informative_base(task)
    missed: list[Point] = []
    known: dict[str, bool] = {}
    progress = logged_progress("checking that points can be compared", "points at most")
    for number in range(PROBES):
        point = random_point(task.space, task.job.seed, number, redraw=-1)
        key = canonical_json(point)
        if key not in known:
            known[key] = _can_reach(task, point)
            progress(number + 1, PROBES)
        if not known[key]:
            missed.append(point)
        if number + 1 - len(missed) > (1 - MOST_UNREACHABLE) * PROBES:
            return
    if task.job.compare == "generation":
        field = _informative_field(task, missed[:PROBES_TO_BLAME])
        why = (
            f"leave more than {MOST_INFORMATION:.0%} of the variance of x in D(x, T), which the "
            "base does not; search it where D removes more"
        )
    else:
        field = saturating_field(task.base, missed[:20], task.target, task.x0, task.omega)
        why = (
            f"cannot remove what the base does (RMSE {task.target:.4g}) at any scale; this field "
            f"limits them; {_way_out(task, field)}"
        )
    raise SpecError([(field, f"{len(missed)} of {PROBES} points of the space {why}")])


def _way_out(task: SearchTask, field: str) -> str:
    """What usually lets more points reach the base's end, where ``field`` limits them."""
    searched = {dimension.path for dimension in task.space}
    ways = [] if field == DEGRADATION else [f"a larger base.{field}"]
    if field in searched:
        ways = [f"larger values in ranges.{field}"]
    severities = f"{DEGRADATION}.num_timesteps"
    if severities in searched and field != severities:
        ways.append(f"a higher low in ranges.{severities}, near the base's")
    ways.append("a base that removes less")
    return f"what usually helps: {', or '.join(ways)}"


def _refuse_informative_base(task: SearchTask) -> None:
    """SpecError where samples of the base would not be compared on equal terms."""
    try:
        held = _held(task, {})
        if held <= MOST_INFORMATION:
            return
    except SpecError as error:
        raise SpecError([("compare", str(error))]) from None
    advice = "degrade further"
    for field, value, job in stronger(task.base):
        if held_information(job, task.x0, task.omega) <= MOST_INFORMATION:
            advice = f"base.{field}={json.dumps(value)} removes it"
            break
    what = (
        f"a linear restorer recovers {held:.1%} of the variance of x from D(x, T), at most "
        f"{MOST_INFORMATION:.0%} may be left where samples are compared; {advice}, or use "
        "compare=same_end"
    )
    raise SpecError([(f"base.{DEGRADATION}", what)])


def _informative_field(task: SearchTask, missed: Sequence[Point]) -> str:
    """Path of the field with whose value of the base most of ``missed`` would be comparable."""

    def mended(path: str) -> int:
        rest = [{p: value for p, value in point.items() if p != path} for point in missed]
        return sum(end_of(task, point) is not None for point in rest)

    return max((dimension.path for dimension in task.space), key=mended)


def _held(task: SearchTask, point: Point) -> float:
    return held_information(job_at(task.base, point), task.x0, task.omega)


def _can_reach(task: SearchTask, point: Point) -> bool:
    if task.job.compare == "generation":
        return end_of(task, point) is not None
    try:
        return can_reach_end(task.base, point, task.target, task.x0, task.omega)
    except SpecError:
        return False  # a point that is no valid job

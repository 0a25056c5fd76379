"""What a checkpoint's search is asked for: its base, budgets, samplers, metric; and the checks."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field

from colddiff.errors import SpecError
from colddiff.evaluation.best import IMAGE_METRICS
from colddiff.evaluation.metrics import SSIM_WINDOW
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.jobs.job import AUTO
from colddiff.samplers import DEFAULT, SAMPLERS, SamplerName, check_samplers
from colddiff.sampling import falling
from colddiff.spec import Spec, nearest, parse
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.settings import default_metric, distance_of
from colddiff.verbs.search.severities.lists import (
    SAMPLER,
    SEARCHED,
    SEVERITIES,
    ListSpace,
    SeverityList,
    bands_of,
)

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

OF_TRAININGS = ("compare", "scheduler", "rungs", "confirm_seeds")
"""Fields that say something of trainings alone."""


class CheckpointBase(Spec):
    """The base of a search that trains nothing: a checkpoint, and how it is sampled from so far."""

    checkpoint: Annotated[
        str,
        Field(description="a checkpoint reference, or the name of a recipe that was trained"),
    ]
    data: Annotated[
        str | None, Field(description="training images; null for those of the checkpoint's job")
    ] = None
    test_data: Annotated[
        str | None, Field(description="test images; null for those of the checkpoint's job")
    ] = None
    sampler: Annotated[
        SamplerName | None, Field(description="null for the one that its job was evaluated with")
    ] = None
    severities: Annotated[
        int | tuple[int, ...] | None,
        Field(description="null for those that its job was evaluated with"),
    ] = None

    @classmethod
    def of(cls, job: SearchJob) -> Self:
        """The base of ``job``; SpecError naming the field."""
        return parse(cls, job.base, "base")


def base_evaluation(base: CheckpointBase, trained: TrainJob, count: int) -> EvaluationSpec:
    """How lists are evaluated on a set of ``count`` images: as the checkpoint's job was."""
    spec = trained.evaluation
    asked = spec.num_images
    return spec.model_copy(
        update={
            "samplers": (base_sampler(base, trained),),
            "severities": base_severities(base, trained),
            "num_images": None if asked is None or asked >= count else asked,
        }
    )


def base_severities(base: CheckpointBase, trained: TrainJob) -> tuple[int, ...]:
    """The list that the base is sampled with; SpecError where it does not fall."""
    asked = trained.evaluation.severities if base.severities is None else base.severities
    try:
        return tuple(falling(asked, trained.degradation.num_timesteps))
    except SpecError as error:
        raise SpecError([(f"base.{path}", what) for path, what in error.problems]) from None


def base_sampler(base: CheckpointBase, trained: TrainJob) -> str:
    """The sampler of the base: Algorithm 2, unless its job was evaluated without it."""
    if base.sampler is not None:
        return base.sampler
    walking = [name for name in trained.evaluation.samplers if not SAMPLERS[name].single_step]
    return DEFAULT if DEFAULT in walking or not walking else walking[0]


def check_list_settings(job: SearchJob) -> CheckpointBase:
    """The base, after the checks that need no checkpoint; SpecError naming the field."""
    base = CheckpointBase.of(job)
    problems = []
    for name in OF_TRAININGS:
        if getattr(job, name) != SearchJob.model_fields[name].default:
            what = "is for searches that train; a checkpoint's trials only sample: leave it out"
            problems.append((name, what))
    problems += [
        (f"ranges.{path}", "is not searched in a checkpoint: only {choices} of `sampler` can be")
        for path in job.ranges
        if path != SAMPLER
    ]
    rising = all(a < b for a, b in zip(job.calls, job.calls[1:], strict=False))
    if not rising or job.calls[0] < 1:
        problems.append(("calls", f"must rise from 1 or more, got {list(job.calls)}"))
    if job.limits.gpu_hours is not None:
        problems.append(("limits.gpu_hours", "a search does not count them; set limits.hours"))
    if job.resources is not None and not job.resources.cpus and job.resources.gpus in (0, AUTO):
        problems.append(("resources.cpus", "a trial needs a CPU or a GPU"))
    if base.sampler is not None and SAMPLERS[base.sampler].single_step:
        problems.append(("base.sampler", f"{base.sampler} calls the network once: no list"))
    searched = searched_of(job.over)
    if SAMPLER in job.ranges and SAMPLER not in searched:
        problems.append(("ranges.sampler", "is not searched: add it to `over`"))
    if problems:
        raise SpecError(problems)
    return base


def searched_of(over: Sequence[str]) -> tuple[str, ...]:
    """Which of ``severities`` and ``sampler`` the patterns of ``over`` name; SpecError if none."""
    found = set()
    for pattern in over:
        named = [name for name in SEARCHED if fnmatchcase(name, pattern)]
        if not named:
            what = f"{pattern!r} names nothing that can be searched{nearest(pattern, SEARCHED)}"
            if "." in pattern:
                what = f"{pattern!r} is settled in a trained checkpoint; give a train job as base"
            raise SpecError([("over", f"{what}, or search {' and '.join(SEARCHED)}")])
        found.update(named)
    return tuple(name for name in SEARCHED if name in found)


def list_space(job: SearchJob, base: CheckpointBase, trained: TrainJob) -> ListSpace:
    """The lists that a search chooses from; SpecError for budgets or samplers it cannot have."""
    searched = searched_of(job.over)
    own = SeverityList(base_severities(base, trained), base_sampler(base, trained))
    most = own.severities[0]
    if job.calls[-1] > most:
        what = f"{job.calls[-1]} is more than the {most} severities that the base begins from"
        fitting = [count for count in job.calls if count <= most] or [most]
        raise SpecError([("calls", f"{what}; such as calls={fitting}")])
    D = trained.degradation.build(trained.shape)
    check_samplers([own.sampler], D, "base.sampler")
    samplers = _samplers(job, D) if SAMPLER in searched else (own.sampler,)
    if SEVERITIES not in searched and len(samplers) == 1:
        raise SpecError([("over", "sampler: there is only one for this degradation")])
    return ListSpace(own, samplers, bands_of(job.calls), SEVERITIES in searched)


def _samplers(job: SearchJob, D: Any) -> tuple[str, ...]:
    """The samplers to choose from: those of ``ranges``, or all that walk and support D."""
    asked = job.ranges.get(SAMPLER)
    if asked is None:
        return tuple(
            name
            for name, sampler in SAMPLERS.items()
            if not sampler.single_step and sampler.unfit(D) is None
        )
    if asked.choices is None:
        raise SpecError([("ranges.sampler", "is one of a few names: write {choices: [...]}")])
    for name in asked.choices:
        if name not in SAMPLERS:
            raise SpecError([("ranges.sampler.choices", SAMPLERS.unknown(str(name)))])
        if SAMPLERS[name].single_step:
            what = f"{name} calls the network once: there is no list to search"
            raise SpecError([("ranges.sampler.choices", what)])
    check_samplers(asked.choices, D, "ranges.sampler.choices")
    return tuple(dict.fromkeys(asked.choices))


def list_metric(job: SearchJob, trained: TrainJob) -> str:
    """Name of the metric that lists are ranked by; SpecError for one that is not computed."""
    known = [distance_of(trained), *IMAGE_METRICS]
    metric = job.metric or default_metric(trained).rpartition("/")[2]
    if metric not in known:
        what = (
            f"{metric!r} is not computed{nearest(metric, known)}; a checkpoint's trials have "
            f"{', '.join(known)}"
        )
        if "/" in metric:
            what = f"is named without its sampler here: {metric.rpartition('/')[2]}"
        raise SpecError([("metric", what)])
    if metric == "ssim" and trained.image_size < SSIM_WINDOW:
        what = f"the images are under ssim's window of {SSIM_WINDOW} px; use rmse"
        raise SpecError([("metric", what)])
    return metric

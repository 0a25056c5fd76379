"""The search job: what is searched from which base (identity), and how it is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from colddiff.errors import SpecError
from colddiff.jobs.job import OPERATION, Job, LimitsSpec, ResourcesSpec, place_within
from colddiff.spec import Spec, Unit


class RangeSpec(Spec):
    """Where a field is searched: between ``low`` and ``high``, or among ``choices``."""

    low: Annotated[float | None, Field(description="smallest value")] = None
    high: Annotated[float | None, Field(description="largest value")] = None
    log: Annotated[bool | None, Field(description="null keeps the declared scale")] = None
    choices: Annotated[tuple[Any, ...] | None, Field(description="all values, instead")] = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        between = self.low is not None and self.high is not None
        if between == (self.choices is not None):
            raise SpecError("write {low, high} (and log: true) or {choices: [...]}")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise SpecError(f"low must be below high, got {self.low:g} and {self.high:g}")
        return self


OF_A_CHECKPOINT = {"over": ("severities", "sampler"), "num_trials": 100}
"""Defaults where the base is a checkpoint."""


def _names_checkpoint(base: Any) -> bool:
    return isinstance(base, Mapping) and "checkpoint" in base


class SearchJob(Job):
    """Search the schedule of a degradation: trials are training jobs, compared on the same task."""

    verb: ClassVar[str] = "search"

    base: Annotated[
        str | dict[str, Any] | None,
        Field(
            description="the train job that trials vary: a recipe, a job file, {recipe: NAME, "
            "field: value}, or its fields; null for the train job of the same file, fields alone "
            "for that job with those fields; or {checkpoint: JOB@best}, whose `severities` and "
            "`sampler` are searched without training"
        ),
    ] = None
    over: Annotated[
        tuple[str, ...],
        Field(description="fields to search, by path, with wildcards: degradation.sigma.*"),
    ] = ("degradation.num_timesteps", "degradation.sigma.ratio")
    ranges: Annotated[
        dict[str, RangeSpec],
        Field(
            default_factory=dict,
            description="by path: {low, high, log} or {choices}, in place of declared ranges",
        ),
    ]
    compare: Annotated[
        Literal["same_end", "generation"],
        Field(
            description="same_end: each schedule is scaled until D(x, T) removes as much as the "
            "base's, so that all trials solve the same task; generation: samples from the terminal "
            "are compared, where D(x, T) holds no information about x"
        ),
    ] = "same_end"
    metric: Annotated[
        str | None,
        Field(
            description="eval/{sampled,direct}/{fd_lenet,fid,rmse,ssim,psnr}; null for "
            "evaluation.best of the base, without it for the Frechet distance of Algorithm 2 in "
            "the base's features, or its rmse where fd_lenet does not fit the images; of samples "
            "(eval/generated/...) with compare=generation"
        ),
    ] = None
    scheduler: Annotated[
        Literal["promotion", "none"],
        Field(description="promotion: at each rung the best quarter goes on; none: all to the end"),
    ] = "promotion"
    searcher: Annotated[
        Literal["tpe", "random", "grid"],
        Field(
            description="how points are chosen: from the results so far, at random, all of a grid"
        ),
    ] = "tpe"
    rungs: Annotated[
        tuple[float, ...],
        Field(min_length=1, description="where trials are compared, as parts of the base's steps"),
    ] = (0.25, 0.5, 1.0)
    validation: Annotated[
        float,
        Field(gt=0, lt=1, description="part of the training images that trials are compared on"),
    ] = 0.2
    calls: Annotated[
        tuple[int, ...],
        Field(
            min_length=1,
            description="of a checkpoint: the best list is found for at most so many network calls",
        ),
        Unit("network calls"),
    ] = (5, 10, 20)
    seed: Annotated[int, Field(ge=0, description="of the points; trials have the base's")] = 0

    num_trials: Annotated[
        int,
        Field(ge=1, le=10_000, description="with the base; more of them extend the search"),
        Unit("trials"),
        OPERATION,
    ] = 12
    max_concurrent: Annotated[
        int,
        Field(ge=1, le=10_000, description="fewer where the cluster has no room for them"),
        Unit("trials at once"),
        OPERATION,
    ] = 2
    confirm_best: Annotated[
        int,
        Field(ge=0, le=10_000, description="trials that are trained again with fresh seeds"),
        OPERATION,
    ] = 1
    confirm_seeds: Annotated[
        int,
        Field(ge=0, le=10_000, description="fresh seeds of the confirmation; 0 for none"),
        OPERATION,
    ] = 3
    resources: Annotated[
        ResourcesSpec | None, Field(description="of one trial; null for the base's"), OPERATION
    ] = None
    limits: Annotated[LimitsSpec, OPERATION] = LimitsSpec()

    @classmethod
    def _place_of(cls, key: str, data: Mapping[str, Any]) -> str:
        """Fields of the base, such as ``data``, are written with its name before them."""
        from colddiff.jobs.verb import VERBS

        if not _names_checkpoint(data.get("base")):
            fields = VERBS["train"].spec().model_fields
        else:
            from colddiff.verbs.search.severities.settings import CheckpointBase

            fields = CheckpointBase.model_fields
        return place_within("base", key, data, fields) or super()._place_of(key, data)

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_a_checkpoint(cls, data: Any) -> Any:
        """Trials that only sample take seconds, and vary what a checkpoint leaves open."""
        if isinstance(data, Mapping) and _names_checkpoint(data.get("base")):
            return {**OF_A_CHECKPOINT, **data}
        return data

    @property
    def samples_only(self) -> bool:
        """Whether the base is a checkpoint: nothing is trained, trials only sample from it."""
        return _names_checkpoint(self.base)

    @property
    def checkpoint(self) -> str | None:
        """The base's checkpoint reference, if it is one."""
        if isinstance(self.base, dict) and "checkpoint" in self.base:
            return str(self.base["checkpoint"])
        return None

    def covered_by(self, result: Mapping[str, Any]) -> bool:
        """Whether a finished search confirmed as many trials, with as many seeds."""
        if not (self.confirm_best and self.confirm_seeds):
            return True
        best, seeds = int(result.get("confirm_best", 0)), int(result.get("confirm_seeds", 0))
        return best >= self.confirm_best and seeds >= self.confirm_seeds

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if not self.over:
            raise SpecError([("over", "is empty: name at least one field to search")])
        rising = all(a < b for a, b in zip(self.rungs, self.rungs[1:], strict=False))
        if not rising or self.rungs[0] <= 0 or self.rungs[-1] != 1.0:
            what = f"must rise from above 0 to 1, got {list(self.rungs)}"
            of = "fractions of base.num_steps, such as rungs=[0.5,1.0]"
            raise SpecError([("rungs", f"{what}; they are {of}")])
        return self

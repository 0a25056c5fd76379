"""What a search's fields say together: its base, space, metric and rungs; checks without data."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from colddiff.errors import SpecError
from colddiff.evaluation.best import (
    IMAGE_METRICS,
    MANY,
    higher_is_better,
    is_distance,
    metric_of_record,
    misfit,
)
from colddiff.evaluation.generated import FIELD as GENERATED
from colddiff.evaluation.generated import check_generated
from colddiff.evaluation.metrics import SSIM_WINDOW
from colddiff.evaluation.spec import GeneratedSpec
from colddiff.jobs.job import AUTO
from colddiff.jobs.recipes import Recipe, load_recipe
from colddiff.jobs.verb import VERBS
from colddiff.spec import digest, nearest, parse
from colddiff.spec.plugins import load_plugins
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.points.space import DEGRADATION, Dimension, search_space
from colddiff.verbs.search.points.suggest import grid_points

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

METRIC = re.compile(r"eval/(sampled|direct|generated)/(\w+)")


def base_of(job: SearchJob) -> TrainJob:
    """The training job that ``base`` names or spells out; SpecError naming the field.

    With ``compare`` "generation" its evaluations make samples, by default settings if it has none.
    """
    base = _written_base(job)
    if job.compare == "generation" and base.evaluation.generated is None:
        evaluation = base.evaluation.model_copy(update={"generated": GeneratedSpec()})
        return base.model_copy(update={"evaluation": evaluation})
    return base


def _written_base(job: SearchJob) -> TrainJob:
    if job.base is None:
        raise SpecError(
            [("base", "is required: a recipe, a job file, or the fields of a train job")]
        )
    load_plugins(job.plugins)
    if isinstance(job.base, str):
        return _recipe(job.base, {})
    fields = dict(job.base)
    recipe = fields.pop("recipe", None)
    if recipe is not None:
        return _recipe(str(recipe), fields)
    plugins = fields.get("plugins")
    if isinstance(plugins, list | tuple) and all(isinstance(path, str) for path in plugins):
        load_plugins(plugins)
    return cast("TrainJob", parse(VERBS["train"].spec(), fields, "base"))


def _recipe(name: str, fields: Mapping[str, Any]) -> TrainJob:
    """The train job of a recipe or job file, with some of its fields set."""
    try:
        return load_recipe(name).varied("train", fields).train
    except SpecError as error:
        raise SpecError([("base", str(error))]) from None


def with_base_of(job: SearchJob, recipe: Recipe) -> SearchJob:
    """The search of a job file: its base is the file's train job, if it names no other.

    Fields of ``base`` alone, such as ``base.num_steps=100`` on the command line, are set in that
    job.
    """
    names_other = isinstance(job.base, str) or {"recipe", "checkpoint"} & set(job.base or {})
    if names_other or "train" not in recipe.sections:
        return job
    assert not isinstance(job.base, str)
    base = recipe.varied("train", job.base or {}).train
    return job.model_copy(update={"base": base.to_dict()})


def check_settings(job: SearchJob, base: TrainJob) -> tuple[Dimension, ...]:
    """The space of a search, after all checks that need neither data nor a cluster.

    Raises SpecError naming the field.
    """
    _refuse_unsupported(job, base)
    if job.compare == "generation":
        _refuse_no_samples(base)
    metric_of(job, base)
    rung_steps(job, base)
    space = search_space(base, job.over, ranges_of(job), job.compare)
    _refuse_more_steps(job, base, space)
    if job.searcher == "grid":
        grid_points(space, seed=job.seed)
    return space


def _refuse_unsupported(job: SearchJob, base: TrainJob) -> None:
    """SpecError for what a job may ask for and this search does not do."""
    for name in job.over:
        if name in ("severities", "sampler"):
            what = f"{name}: is searched in a trained checkpoint: base={{checkpoint: JOB@best}}"
            raise SpecError([("over", what)])
    if job.calls != SearchJob.model_fields["calls"].default:
        what = "is for the search of a checkpoint's severities: leave it out"
        raise SpecError([("calls", what)])
    asked = job.resources or base.resources
    if not asked.cpus and asked.gpus in (0, AUTO):
        raise SpecError([("resources.cpus", "a trial needs a CPU or a GPU")])


def _refuse_no_samples(base: TrainJob) -> None:
    """SpecError where the base's samples have nothing to start from, or settings that D refuses."""
    assert base.evaluation.generated is not None
    D = base.degradation.build(base.shape)
    try:
        check_generated(base.evaluation.generated, D, base.terminal)
    except SpecError as error:
        if error.problems[0][0] != GENERATED:
            raise SpecError([(f"base.{path}", what) for path, what in error.problems]) from None
        what = (
            f"{D.spec.kind} has no distribution of x_T to draw samples from: use "
            "compare=same_end, or set base.terminal"
        )
        raise SpecError([("compare", what)]) from None


def _refuse_more_steps(job: SearchJob, base: TrainJob, space: Sequence[Dimension]) -> None:
    """SpecError where evaluations take more steps than some trials have severities."""
    fewest = base.degradation.num_timesteps
    for dimension in space:
        if dimension.path == f"{DEGRADATION}.num_timesteps":
            fewest = int(min([fewest, *(dimension.choices or [dimension.low])]))
    fields: dict[str, Any] = {"base.evaluation.severities": base.evaluation.severities}
    if job.compare == "generation" and base.evaluation.generated is not None:
        fields = {f"base.{GENERATED}.severities": base.evaluation.generated.severities}
    for field, severities in fields.items():
        if isinstance(severities, int) and severities > fewest:
            what = f"{severities} steps, but trials have as few as {fewest} severities"
            raise SpecError([(field, f"{what}; use at most {fewest}, or null for all")])
        if severities is not None and not isinstance(severities, int):
            searched = any(d.path == f"{DEGRADATION}.num_timesteps" for d in space)
            if searched:
                what = "a list holds for one num_timesteps, which is searched; use a number or null"
                raise SpecError([(field, what)])


def ranges_of(job: SearchJob) -> dict[str, Any]:
    """The job's own ranges as plain data."""
    return {path: span.to_dict() for path, span in job.ranges.items()}


def metric_of(job: SearchJob, base: TrainJob) -> str:
    """Metric path that trials are ranked by; SpecError for one they cannot be ranked by."""
    distance = distance_of(base)
    if job.compare == "generation":
        return _generation_metric(job, distance)
    metric = job.metric or default_metric(base)
    known = [distance, *IMAGE_METRICS]
    match = METRIC.fullmatch(metric)
    if match is None:
        what = f"{metric!r}{_not_comparable(metric)}; use eval/sampled/... or eval/direct/... of "
        raise SpecError([("metric", f"{what}{', '.join(known)}")])
    column, name = match.groups()
    if column == "generated":
        what = f"{metric!r} is of samples without an image; use compare=generation for it"
        raise SpecError([("metric", what)])
    if name not in known:
        what = f"the base's evaluations have no {name!r}{nearest(name, known)}"
        raise SpecError([("metric", f"{what} (they have {', '.join(known)})")])
    sampler = {"sampled": "improved", "direct": "direct"}[column]
    if sampler not in base.evaluation.samplers:
        what = f"{metric} is of the sampler {sampler}: add it to base.evaluation.samplers"
        raise SpecError([("metric", what)])
    if name == "ssim" and base.image_size < SSIM_WINDOW:
        what = f"the base's images are under ssim's window of {SSIM_WINDOW} px; use rmse"
        raise SpecError([("metric", what)])
    return metric


def default_metric(base: TrainJob) -> str:
    """Metric path that tells the best checkpoint of such a training, if trials have it.

    That of ``evaluation.best``; without it, or where it cannot be compared over trials, of
    Algorithm 2 what tells it by default.
    """
    ranks = METRIC.fullmatch(base.evaluation.best or "")
    known = (distance_of(base), *IMAGE_METRICS)
    if ranks is not None and ranks[1] != "generated" and ranks[2] in known:
        return ranks[0]
    names = (distance_of(base), "rmse")
    record = {
        "metrics": {f"eval/sampled/{name}": 0.0 for name in names},
        "provenance": {"n": base.evaluation.num_images or MANY},
    }
    images = {"channels": base.channels, "image_size": base.image_size}
    return metric_of_record(record, images) or f"eval/sampled/{names[0]}"


def ranking_lines(asked: str | None, metric: str, base: TrainJob) -> list[str]:
    """A line where the metric is the base's own, is no distance for a reason, or does not fit."""
    best, told = base.evaluation.best, ranked_by_misfit(metric, base)
    if asked is not None or metric.startswith("eval/generated/"):
        return told
    if best is not None and metric in (best, best.rpartition("/")[2]):
        return [
            f"metric: trials are ranked by {metric}, as evaluation.best of the base says",
            *told,
        ]
    if best is not None:
        what = f"evaluation.best of the base, {best}, cannot be compared over trials"
        return [f"metric: trials are ranked by {metric}: {what}", *told]
    if is_distance(metric):
        return told
    distance = distance_of(base)
    why = misfit(distance, base.shape.chw, base.evaluation.num_images or MANY)
    return [f"metric: trials are ranked by {metric}: {why}"]


def ranked_by_misfit(metric: str, base: TrainJob) -> list[str]:
    """A line where trials are ranked by a distance that says little about the images; else none.

    Their evaluations need not show such a distance, and say nothing of it then.
    """
    column, slash, distance = metric.rpartition("/")
    number = base.evaluation.num_images or MANY
    why = misfit(distance, base.shape.chw, number) if is_distance(distance) else None
    if why is None:
        return []
    # Samples have no original, and so no error.
    other = "other features" if column.endswith("generated") else f"metric={column}{slash}rmse"
    return [f"metric: trials are ranked by {metric}, but {why}; {other} would fit"]


def _generation_metric(job: SearchJob, distance: str) -> str:
    """The Frechet distance of samples: the one number that needs no image to restore."""
    metric = f"eval/generated/{distance}"
    if job.metric in (None, metric):
        return metric
    match = METRIC.fullmatch(str(job.metric))
    why = _not_comparable(str(job.metric))
    if match is not None and match.group(1) != "generated":
        why = " restores degraded images, and with compare=generation D(x, T) holds none of x"
    elif match is not None and match.group(2) in IMAGE_METRICS:
        why = " needs the original of each image, and samples have none"
    elif match is not None:
        why = " is of other features than the base's evaluations"
    raise SpecError([("metric", f"{job.metric!r}{why}; use {metric}")])


def _not_comparable(metric: str) -> str:
    weak = "degraded" in metric or metric.startswith("train/")
    return ": a weaker degradation improves it" if weak else " cannot be compared over trials"


def measured_as(base: TrainJob) -> str:
    """A digest of how the base evaluates: values of other evaluations are never mixed with it."""
    evaluation = base.evaluation.to_dict()
    evaluation["features"] = {**evaluation["features"], "path": None}
    return digest({**evaluation, "batch_size": None})[:4]


def distance_of(base: TrainJob) -> str:
    """Name of the Frechet distance in the base's features: ``fid``, ``fd_lenet``, ``fd_<name>``."""
    return base.evaluation.features.metric


def lower_is_better(metric: str) -> bool:
    """Whether smaller values of ``metric`` are better."""
    return not higher_is_better(metric)


def rung_steps(job: SearchJob, base: TrainJob) -> list[int]:
    """Optimizer steps of the rungs; SpecError for one before the weights' average has settled."""
    steps = [max(1, round(part * base.num_steps)) for part in job.rungs]
    settled = round(base.ema.start + base.ema.every / (1 - base.ema.decay))
    if steps[0] < min(settled, base.num_steps):
        first = min(1.0, math.ceil(20 * settled / base.num_steps) / 20)
        later = [first, *[part for part in job.rungs if part > first]]
        raise SpecError(
            [
                (
                    "rungs",
                    f"the first one, step {steps[0]}, comes before the moving average of the "
                    f"weights has settled (step {settled} = ema.start + ema.every / "
                    f"(1 - ema.decay)); start later, rungs={later}, or lower base.ema.start or "
                    "base.ema.decay",
                )
            ]
        )
    return steps

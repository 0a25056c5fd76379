"""What a search's fields say together: its base, space, metric and rungs; checks without data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from colddiff.errors import SpecError
from colddiff.evaluation.metrics import SSIM_WINDOW
from colddiff.jobs.recipes import load_recipe
from colddiff.jobs.verb import VERBS
from colddiff.spec import nearest, parse
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.points.space import Dimension, search_space
from colddiff.verbs.search.points.suggest import grid_points

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

METRIC = re.compile(r"eval/(sampled|direct)/(\w+)")
LOWER_IS_BETTER = {"rmse": True, "ssim": False, "psnr": False}


def base_of(job: SearchJob) -> TrainJob:
    """The training job that ``base`` names or spells out; SpecError naming the field."""
    if job.base is None:
        raise SpecError(
            [("base", "is required: a recipe, a job file, or the fields of a train job")]
        )
    if isinstance(job.base, str):
        return _recipe(job.base, {})
    fields = dict(job.base)
    recipe = fields.pop("recipe", None)
    if recipe is not None:
        return _recipe(str(recipe), fields)
    return cast("TrainJob", parse(VERBS["train"].spec(), fields, "base"))


def _recipe(name: str, fields: Mapping[str, Any]) -> TrainJob:
    """The train job of a recipe or job file, with some of its fields set."""
    overrides = [f"{path}={json.dumps(value)}" for path, value in fields.items()]
    try:
        return cast("TrainJob", load_recipe(name).job("train", overrides))
    except SpecError as error:
        raise SpecError([("base", str(error))]) from None


def check_settings(job: SearchJob, base: TrainJob) -> tuple[Dimension, ...]:
    """The space of a search, after all checks that need neither data nor a cluster.

    Raises SpecError naming the field.
    """
    _refuse_unsupported(job, base)
    metric_of(job, base)
    rung_steps(job, base)
    space = search_space(base, job.over, ranges_of(job), job.compare)
    if job.searcher == "grid":
        grid_points(space, seed=job.seed)
    return space


def _refuse_unsupported(job: SearchJob, base: TrainJob) -> None:
    """SpecError for what a job may ask for and this search does not do."""
    problems = []
    for path, plugins in (("plugins", job.plugins), ("base.plugins", base.plugins)):
        if plugins:
            problems.append((path, "a search takes no plugins yet; train with them instead"))
    if base.workers != 1:
        what = f"a trial is trained by one worker, got {base.workers}; set workers=1 in the base"
        problems.append(("base.workers", what))
    if job.limits.gpu_hours is not None:
        problems.append(("limits.gpu_hours", "a search does not count them; set limits.hours"))
    for name in job.over:
        if name in ("severities", "sampler"):
            what = f"{name}: is searched in a trained checkpoint: base={{checkpoint: JOB@best}}"
            problems.append(("over", what))
    if job.calls != SearchJob.model_fields["calls"].default:
        problems.append(("calls", "is for the search of a checkpoint's severities: leave it out"))
    asked = job.resources or base.resources
    if not asked.cpus and not asked.gpus:
        problems.append(("resources.cpus", "a trial needs a CPU or a GPU"))
    if problems:
        raise SpecError(problems)


def ranges_of(job: SearchJob) -> dict[str, Any]:
    """The job's own ranges as plain data."""
    return {path: span.to_dict() for path, span in job.ranges.items()}


def metric_of(job: SearchJob, base: TrainJob) -> str:
    """Metric path that trials are ranked by; SpecError for one they cannot be ranked by."""
    distance = distance_of(base)
    metric = job.metric or f"eval/sampled/{distance}"
    known = [distance, *LOWER_IS_BETTER]
    match = METRIC.fullmatch(metric)
    if match is None:
        weak = "degraded" in metric or metric.startswith("train/")
        why = ": a weaker degradation improves it" if weak else " cannot be compared over trials"
        raise SpecError(
            [
                (
                    "metric",
                    f"{metric!r}{why}; use eval/sampled/... or eval/direct/... of "
                    f"{', '.join(known)}",
                )
            ]
        )
    if match.group(2) not in known:
        raise SpecError(
            [
                (
                    "metric",
                    f"the base's evaluations have no {match.group(2)!r}"
                    f"{nearest(match.group(2), known)} (they have {', '.join(known)})",
                )
            ]
        )
    sampler = {"sampled": "improved", "direct": "direct"}[match.group(1)]
    if sampler not in base.evaluation.samplers:
        what = f"{metric} is of the sampler {sampler}: add it to base.evaluation.samplers"
        raise SpecError([("metric", what)])
    if match.group(2) == "ssim" and base.image_size < SSIM_WINDOW:
        what = f"the base's images are under ssim's window of {SSIM_WINDOW} px; use rmse"
        raise SpecError([("metric", what)])
    return metric


def distance_of(base: TrainJob) -> str:
    """Name of the Frechet distance in the base's features: ``fid``, ``fd_lenet``, ``fd_<name>``."""
    features = base.evaluation.features
    if features.kind == "inception":
        return "fid"
    return f"fd_{getattr(features, 'name', features.kind)}"


def lower_is_better(metric: str) -> bool:
    """Whether smaller values of ``metric`` are better."""
    return LOWER_IS_BETTER.get(metric.rpartition("/")[2], True)


def rung_steps(job: SearchJob, base: TrainJob) -> list[int]:
    """Optimizer steps of the rungs; SpecError for one before the weights' average has settled."""
    steps = [max(1, round(part * base.num_steps)) for part in job.rungs]
    settled = round(base.ema.start + base.ema.every / (1 - base.ema.decay))
    if steps[0] < min(settled, base.num_steps):
        raise SpecError(
            [
                (
                    "rungs",
                    f"the first one, step {steps[0]}, comes before the moving average of the "
                    f"weights has settled (step {settled} = ema.start + ema.every / "
                    "(1 - ema.decay)); start later, or lower base.ema.start or base.ema.decay",
                )
            ]
        )
    return steps

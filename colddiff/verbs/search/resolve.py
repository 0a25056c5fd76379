"""Resolve a search: its base as a training job with packed data, its space, metric and rungs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from colddiff.errors import SpecError
from colddiff.jobs.recipes import load_recipe
from colddiff.jobs.verb import VERBS, DryRun
from colddiff.spec import digest, nearest, parse
from colddiff.stores.open import absolute
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.space import search_space

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

METRIC = re.compile(r"eval/(sampled|direct)/(\w+)")
LOWER_IS_BETTER = {"rmse": True, "ssim": False, "psnr": False}


def resolve_search(job: SearchJob, storage: str, *, pack: bool) -> tuple[SearchJob, dict[str, str]]:
    """The search with its base resolved and written out, and the digest that stands for it.

    Raises SpecError, DataError, CheckpointError: before anything is started.
    """
    base = base_of(job)
    resolved, content = VERBS["train"].resolve(base, storage, pack=pack)
    base = cast("TrainJob", resolved)
    if base.test_data is None and job.confirm_seeds and job.confirm_best:
        raise SpecError(
            [("base.test_data", "is required for the confirmation; or set confirm_seeds=0")]
        )
    metric = metric_of(job, base)
    rung_steps(job, base)
    search_space(base, job.over, ranges_of(job), job.compare)
    identity = digest({**base.identity(), **content, "num_steps": base.num_steps})
    changes = {"base": base.to_dict(), "metric": metric}
    return job.model_copy(update=changes), {"base": identity, "metric": metric}


def base_of(job: SearchJob) -> TrainJob:
    """The training job that ``base`` names or spells out."""
    if job.base is None:
        raise SpecError(
            [("base", "is required: a recipe, a job file, or the fields of a train job")]
        )
    if isinstance(job.base, str):
        name = job.base if not job.base.endswith((".yaml", ".yml")) else absolute(job.base)
        return load_recipe(name).train
    return cast("TrainJob", parse(VERBS["train"].spec(), job.base, "base"))


def ranges_of(job: SearchJob) -> dict[str, Any]:
    """The job's own ranges as plain data."""
    return {path: span.to_dict() for path, span in job.ranges.items()}


def metric_of(job: SearchJob, base: TrainJob) -> str:
    """Metric path that trials are ranked by; SpecError for one they cannot be ranked by."""
    distance = distance_of(base)
    if job.metric is None:
        return f"eval/sampled/{distance}"
    known = [distance, *LOWER_IS_BETTER]
    match = METRIC.fullmatch(job.metric)
    if match is None:
        why = "a weaker degradation lowers it" if "degraded" in job.metric else "is not comparable"
        raise SpecError(
            [
                (
                    "metric",
                    f"{job.metric!r} {why}; use eval/sampled/... or eval/direct/... of "
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
        raise SpecError([("metric", f"base.evaluation.samplers leaves out {sampler}")])
    return job.metric


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
    settled = base.ema.start + base.ema.every / (1 - base.ema.decay)
    if steps[0] < min(settled, base.num_steps):
        raise SpecError(
            [
                (
                    "rungs",
                    f"the first one, step {steps[0]}, comes before the moving average of the "
                    f"weights has settled (step {settled:.0f} = ema.start + ema.every / "
                    "(1 - ema.decay)); start later, or lower base.ema.start or base.ema.decay",
                )
            ]
        )
    return steps


def dry_run(job: SearchJob, rate: str | None) -> DryRun:
    """Trials, segments and steps, and the estimate of training them; contacts nothing."""
    base = base_of(job)
    steps = rung_steps(job, base)
    space = search_space(base, job.over, ranges_of(job), job.compare)
    most = job.num_trials * steps[-1]
    if job.scheduler == "promotion":
        most = _promoted_steps(job.num_trials, steps)
    confirmed = (job.confirm_best + 1) * job.confirm_seeds
    total = most + confirmed * steps[-1]
    lines = [
        f"{job.num_trials} trials over {', '.join(dimension.path for dimension in space)}; "
        f"rungs at steps {', '.join(map(str, steps))}",
        f"about {most:,} steps of the {job.num_trials * steps[-1]:,} of a full grid, and "
        f"{confirmed} trainings of {steps[-1]:,} steps to confirm: {total:,} steps in all",
    ]
    whole = base.model_copy(update={"num_steps": total})
    found = VERBS["train"].dry_run(whole, rate)
    return DryRun([*lines, *found.lines], {"search": {"steps": total}, **found.data})


def _promoted_steps(num_trials: int, steps: list[int], reduction: int = 4) -> int:
    """Steps of a promotion in which the base goes to the end and each rung passes on a share."""
    total, left, before = 0, num_trials, 0
    for step in steps:
        total += left * (step - before)
        before, left = step, max(2, left // reduction)
    return total

"""Resolve a search: its base with packed data, the images split, and an end that can be reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from colddiff.errors import SpecError
from colddiff.jobs.verb import VERBS, DryRun
from colddiff.spec import digest
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.search_task import open_task, refuse_unreachable
from colddiff.verbs.search.settings import base_of, check_settings, metric_of, rung_steps
from colddiff.verbs.search.splits import split_images

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob


def resolve_search(job: SearchJob, storage: str, *, pack: bool) -> tuple[SearchJob, dict[str, str]]:
    """The search with its base resolved and written out, and the digest that stands for it.

    With ``pack`` the training images are split too, and points of the space are probed. Raises
    SpecError, DataError, CheckpointError: before anything is started.
    """
    base = base_of(job)
    check_settings(job, base)
    resolved, content = VERBS["train"].resolve(base, storage, pack=pack)
    base = cast("TrainJob", resolved)
    if base.test_data is None and job.confirm_seeds and job.confirm_best:
        raise SpecError(
            [("base.test_data", "is required for the confirmation; or set confirm_seeds=0")]
        )
    metric = metric_of(job, base)
    changes = {
        "base": base.to_dict(),
        "metric": metric,
        "resources": job.resources or base.resources,
    }
    job = job.model_copy(update=changes)
    if pack:
        assert base.data is not None
        splits = split_images(base.data, job.validation, storage)
        refuse_unreachable(open_task(job, base, splits))
    identity = digest({**base.identity(), **content, "num_steps": base.num_steps})
    return job, {"base": identity, "metric": metric}


def dry_run(job: SearchJob, rate: str | None) -> DryRun:
    """Trials, segments and steps, and the estimate of training them; contacts nothing."""
    base = base_of(job)
    space = check_settings(job, base)
    steps = rung_steps(job, base)
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
    return DryRun([*lines, *found.lines], {"steps": total, **found.data})


def _promoted_steps(num_trials: int, steps: list[int], reduction: int = 4) -> int:
    """Steps of a promotion in which the base goes to the end and each rung passes on a share."""
    total, left, before = 0, num_trials, 0
    for step in steps:
        total += left * (step - before)
        before, left = step, max(2, left // reduction)
    return total

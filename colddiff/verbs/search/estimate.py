"""What a search will take, before it starts: trials, segments, steps, FLOPs, hours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from colddiff.evaluation.calls import calls_of_samples, calls_per_image
from colddiff.evaluation.generated import FIELD
from colddiff.jobs.status import hours_text
from colddiff.jobs.verb import BESIDES, NO_RATE, VERBS, DryRun
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.promotion import REDUCTION
from colddiff.verbs.search.settings import (
    base_of,
    check_settings,
    metric_of,
    ranking_lines,
    rung_steps,
)

if TYPE_CHECKING:
    from colddiff.jobs.runner import Capacity
    from colddiff.verbs.train.job import TrainJob


@dataclass(frozen=True, slots=True)
class SearchEstimate:
    """A search in numbers; promotion depends on results, so that its segments are about right."""

    num_trials: int
    rungs: tuple[int, ...]
    """Optimizer steps at which trials are compared."""
    segments: int
    """Trainings of a trial up to a rung, each of which ends with an evaluation."""
    trial_steps: int
    full_grid_steps: int
    """Steps of all trials to the end."""
    confirmations: int
    """Trainings to the end on fresh seeds."""
    steps: int
    """Optimizer steps of trials and confirmations."""
    evaluation_calls: int | None
    """Network calls, one image each, of an evaluation of the base; None where the number of its
    images follows from the data."""
    evaluation_flops: float | None
    """Of all evaluations."""
    evaluation_hours: float | None
    """At the rate given."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def dry_run(job: SearchJob, rate: str | None) -> DryRun:
    """Trials, segments and steps, and the estimate of training them; contacts nothing.

    ``rate``: value of `--rate`, of all workers together. Raises SpecError.
    """
    base = base_of(job)
    space = check_settings(job, base)
    rungs = tuple(rung_steps(job, base))
    segments, trial_steps, confirmations = expected_work(job, rungs)
    steps = expected_steps(job, rungs)
    training = VERBS["train"].dry_run(base.model_copy(update={"num_steps": steps}), rate)
    cost = training.data["estimate"]
    calls = _evaluation_calls(job, base)
    flops = hours = None
    if calls is not None:
        flops = (segments + confirmations) * calls * cost["forward_flops_per_image"]
        if cost["hours"] is not None:
            hours = flops / cost["flops"] * cost["hours"]
    found = SearchEstimate(
        job.num_trials,
        rungs,
        segments,
        trial_steps,
        job.num_trials * rungs[-1],
        confirmations,
        steps,
        calls,
        flops,
        hours,
    )
    over = [dimension.path for dimension in space]
    # Its evaluations are those at rungs, counted here.
    costs = [one for one in training.estimate if one != NO_RATE and not one.startswith(BESIDES)]
    cost = {name: value for name, value in cost.items() if not name.startswith("evaluation")}
    costs = [*_lines(found, over, job.confirm_seeds), *costs, _evaluations(found)]
    return DryRun(
        [*training.lines, *ranking_lines(job.metric, metric_of(job, base), base)],
        {"trials": {**found.to_dict(), "over": over}, **training.data, "estimate": cost},
        costs if rate is not None else [*costs, NO_RATE],
        [(f"base.{path}", what) for path, what in training.problems],
    )


def expected_work(job: SearchJob, rungs: Sequence[int]) -> tuple[int, int, int]:
    """About how many segments trials take, their optimizer steps, and the number of confirmations.

    ``rungs``: optimizer steps at which trials are compared.
    """
    counts = trials_by_rung(job.num_trials, len(rungs) if job.scheduler == "promotion" else 1)
    counts = [counts[0]] * (len(rungs) - len(counts)) + counts
    steps = sum(n * (b - a) for n, a, b in zip(counts, (0, *rungs), rungs, strict=False))
    segments = sum(counts) if job.scheduler == "promotion" else job.num_trials
    confirmations = (job.confirm_best + 1) * job.confirm_seeds if job.confirm_best else 0
    return segments, steps, confirmations


def expected_steps(job: SearchJob, rungs: Sequence[int]) -> int:
    """About how many optimizer steps trials and confirmations take together."""
    _, trial_steps, confirmations = expected_work(job, rungs)
    return trial_steps + confirmations * rungs[-1]


def advice(job: SearchJob, capacity: Callable[[], Capacity | None]) -> list[str]:
    """What `submit train` says of a training with as many steps as a resolved search."""
    base = base_of(job)
    whole = base.model_copy(
        # A search evaluates at its rungs, whatever the base says.
        update={
            "num_steps": expected_steps(job, rung_steps(job, base)),
            "resources": job.resources or base.resources,
            "evaluate_every": None,
        }
    )
    lines = VERBS["train"].advice(whole, capacity)
    all_of = "all trials and confirmations, one after the other: "
    return [f"{'base.' if line.startswith(FIELD) else all_of}{line}" for line in lines]


def trials_by_rung(num_trials: int, rungs: int, reduction: int = REDUCTION) -> list[int]:
    """About how many trials a promotion evaluates at each rung: the best share, and the base.

    >>> trials_by_rung(12, 3)
    [12, 4, 2]
    """
    counts = [num_trials]
    while len(counts) < rungs:
        counts.append(min(num_trials, max(2, counts[-1] // reduction + 1)))
    return counts


def _evaluation_calls(job: SearchJob, base: TrainJob) -> int | None:
    """Network calls of one evaluation of the base, summed over its images."""
    T, evaluation = base.degradation.num_timesteps, base.evaluation
    if job.compare == "generation":
        assert evaluation.generated is not None
        return calls_of_samples(evaluation.generated, T)
    if evaluation.num_images is None:
        return None
    return evaluation.num_images * calls_per_image(evaluation, T)


def _lines(found: SearchEstimate, over: Sequence[str], seeds: int) -> list[str]:
    about = "about " if len(set(found.rungs)) > 1 and found.segments > found.num_trials else ""
    return [
        f"{found.num_trials} trials over {', '.join(over)}; rungs at steps "
        f"{', '.join(map(str, found.rungs))}",
        f"{about}{found.segments} segments and {found.trial_steps:,} steps, of the "
        f"{found.full_grid_steps:,} of a full grid, and {found.confirmations} trainings of "
        f"{found.rungs[-1]:,} steps to confirm: {found.steps:,} steps in all",
        *_confirmation(found, seeds),
    ]


def _confirmation(found: SearchEstimate, seeds: int) -> list[str]:
    """The share of the confirmation, and the fields that lower it."""
    if not found.confirmations:
        return []
    share = found.confirmations * found.rungs[-1] / found.steps
    fewer = (
        "confirm_seeds=1 takes fewer, confirm_seeds=0 none"
        if seeds > 1
        else "confirm_seeds=0 takes none"
    )
    return [f"the confirmation is {share:.0%} of the steps; {fewer}"]


def _evaluations(found: SearchEstimate) -> str:
    total = found.segments + found.confirmations
    if found.evaluation_calls is None or found.evaluation_flops is None:
        return f"{BESIDES}{total} evaluations, each of all images of its set"
    large = found.evaluation_flops >= 1e15
    flops = found.evaluation_flops / (1e15 if large else 1e12)
    hours = found.evaluation_hours
    line = (
        f"{BESIDES}{total} evaluations of about {found.evaluation_calls:,} network calls: "
        f"{flops:,.3g} {'P' if large else 'T'}FLOP"
    )
    return line if hours is None else f"{line}, {hours_text(hours)}"

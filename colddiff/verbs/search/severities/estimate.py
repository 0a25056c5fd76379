"""What a checkpoint's search will cost: trials, calls of the network, FLOPs, hours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from colddiff.checkpoints.sampling_cost import cost_of_calls
from colddiff.errors import SpecError
from colddiff.jobs.status import hours_text
from colddiff.jobs.verb import DryRun
from colddiff.stores.open import storage_at
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.settings import ranking_lines
from colddiff.verbs.search.severities.journal import ListState, ListTrial
from colddiff.verbs.search.severities.lists import ListSpace, SeverityList
from colddiff.verbs.search.severities.resolve import checkpoint_of, inputs_of, recipe_of
from colddiff.verbs.search.severities.settings import (
    CheckpointBase,
    check_list_settings,
    list_metric,
    list_space,
)
from colddiff.verbs.search.severities.shared_calls import Beginnings
from colddiff.verbs.search.severities.suggest import ListSearcher

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

MOST_FORESEEN = 500
"""Trials whose lists are drawn for an estimate; more are taken to be like them."""


def dry_run_lists(job: SearchJob, rate: str | None) -> DryRun:
    """Trials, calls of the network and their FLOPs, with a ``rate`` hours; contacts no service.

    ``rate`` is that of a training on the same machine, as `submit train --dry-run` takes it.
    """
    base = check_list_settings(job)
    trained = _trained(base, job)
    if trained is None:
        what = "calls of the network depend on T, which only the checkpoint says"
        return DryRun(estimate=[f"{job.num_trials} trials of {base.checkpoint}; {what}"])
    metric = list_metric(job, trained)
    space = list_space(job, base, trained)
    lists = _foreseen(job, space)
    scale = job.num_trials / len(lists) if len(lists) == MOST_FORESEEN else 1.0
    calls = round(scale * sum(chosen.calls for chosen in lists))
    beginnings = Beginnings()
    for chosen in lists:
        beginnings.of(chosen)
    made = round(scale * len(beginnings))
    images = _images(job, trained)
    flops, hours = cost_of_calls(trained, made * (images or 1), rate)
    an_image = "" if images else " an image"
    lines = [
        f"{round(scale * len(lists))} trials from severity {space.start} with "
        f"{', '.join(space.samplers)}, for at most {', '.join(map(str, job.calls))} calls each",
        f"{calls:,} calls of the network an image, {made:,} without those that lists share; on "
        f"{f'about {images:,}' if images else 'the'} validation images: {flops:.3g} FLOP{an_image}",
    ]
    if images and hours is not None:
        lines.append(f"at that rate: {hours_text(hours)}")
    elif rate is not None:
        raise SpecError("--rate: the images are not packed yet, so that their number is unknown")
    data: dict[str, Any] = {
        "trials": round(scale * len(lists)),
        "calls_per_image": calls,
        "calls_made_per_image": made,
        "images": images,
        "flops": flops if images else None,
        "hours": hours,
    }
    told = ranking_lines(job.metric, metric, trained)
    return DryRun(told, {"estimate": data}, lines)


def _trained(base: CheckpointBase, job: SearchJob) -> TrainJob | None:
    """The job that trained the checkpoint; None where it is not here, and no recipe says it."""
    recipe, _ = recipe_of(base.checkpoint)
    found = checkpoint_of(job).trained(storage_at(job.storage))
    return found or (None if recipe is None else recipe.train)


def _foreseen(job: SearchJob, space: ListSpace) -> list[SeverityList]:
    """The lists of the trials, drawn at random where results would decide."""
    kind: Literal["grid", "random"] = "grid" if job.searcher == "grid" else "random"
    searcher = ListSearcher(kind, space, job.seed, "")
    states: list[ListState] = []
    for number in range(min(job.num_trials, MOST_FORESEEN)):
        found = searcher.suggestion(number, states)
        if found is None:
            break
        point, chosen = found
        trial = ListTrial(number, chosen.severities, chosen.sampler, dict(point), 0)
        states.append(ListState(trial))
    return [state.trial.chosen for state in states]


def _images(job: SearchJob, trained: TrainJob) -> int | None:
    """About how many validation images there will be; None where they are not packed here."""
    found = next((one for one in inputs_of(job) if one.field == "base.data"), None)
    manifest = None if found is None else found.manifest(storage_at(job.storage))
    if manifest is None:
        return None
    count = round(job.validation * manifest.count)
    return min(count, trained.evaluation.num_images or count)

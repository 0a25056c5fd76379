"""`submit VERB --dry-run`: the job as a file, what is here of its inputs, what it will take."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from colddiff.cli.output import emit, emit_json, note
from colddiff.jobs.verb import VERBS

if TYPE_CHECKING:
    from colddiff.cli.submit import Request
    from colddiff.cluster.address import Cluster
    from colddiff.jobs.job import Job
    from colddiff.jobs.recipes import Recipe


def print_job(
    slug: str, job: Job, request: Request, own: Recipe | None, completed: Callable[[], Job]
) -> None:
    """Prints the job as YAML, and below it what is said of it.

    ``own``: the file whose training the job's checkpoint is left to. ``completed`` returns the job
    with that checkpoint, as a submission takes it.
    """
    import yaml

    from colddiff.jobs.resolve import look

    data: dict[str, Any] = {"name": slug, job.verb: job.to_dict()}
    needed: list[str] = []
    if own is not None:
        # Its id depends on the recipe's name and train section, so both are part of the file.
        data = {"name": own.name, "train": own.train.to_dict(), job.verb: job.to_dict()}
        needed = ["--name", slug] if request.name else []
    completed_job, missing = _completed(job, own, completed)
    looked = look(completed_job, request.rate, missing)
    cluster = None if request.local else _named_cluster(request)
    found, problems = looked.found, [*looked.problems]
    fit, unfit = _idle(job) if request.local else None, False
    if cluster is not None:
        problems += _refused_there(completed_job, cluster, request)
        fit, unfit = _fit(job, cluster)
    answer = [fit] if fit else []
    if unfit:
        problems, answer = [*problems, *answer], []
    if request.as_json:
        said = {"local" if request.local else "cluster": fit} if fit else {}
        emit_json(data | dict(found.data) | said | {"problems": problems})
    else:
        if needed:  # the file's name is that of its training
            emit(f"# {shlex.join(['colddiff', 'submit', job.verb, 'FILE', *needed])}")
        emit(yaml.safe_dump(data, sort_keys=False).rstrip())
    # Last, as on a terminal the job above them is longer than a screen; and below all, the answer.
    for line in [*looked.lines, *found.block, *answer, *problems]:
        note(line)


def _completed(
    job: Job, own: Recipe | None, completed: Callable[[], Job]
) -> tuple[Job, list[tuple[str, str]] | None]:
    """The job with the checkpoint of its file, and what is wrong with that where it has none.

    Contacts nothing. None where the job names its checkpoint itself.
    """
    from colddiff.checkpoints.named import error_of
    from colddiff.checkpoints.references import is_of_service
    from colddiff.errors import CheckpointError, ColddiffError
    from colddiff.stores.open import storage_at

    whose, place = job if own is None else own.train, storage_at(job.storage)
    verb = VERBS[whose.verb]
    named = [one.reference for one in verb.checkpoints(whose)]
    if own is not None:  # the id of its training has a digest of its images
        named += [one.address for one in verb.inputs(whose)]
    if any(is_of_service(reference or "", place) for reference in named):
        return job, None if own is None else []
    try:
        return completed(), None
    except CheckpointError as error:
        return job, None if own is None else error_of("checkpoint", error).problems
    except ColddiffError as error:
        if own is None:
            raise
        return job, error_of("checkpoint", error).problems


def _idle(job: Job) -> str | None:
    """What a submission with ``--local`` says of GPUs that are not here."""
    from colddiff.jobs.device import idle_gpu_line, settled_job

    resources = getattr(settled_job(job, lambda: None), "resources", None)
    return idle_gpu_line(resources.num_gpus) if resources else None


def _named_cluster(request: Request) -> Cluster | None:
    from colddiff.cluster.connect import given_cluster
    from colddiff.cluster.home import Home

    return given_cluster(request.address, Home.from_environment())


def _refused_there(job: Job, cluster: Cluster, request: Request) -> list[str]:
    """Why a submission refuses the places that the job would write to from another machine."""
    from colddiff.jobs.resolve import unreachable_paths

    if cluster.local or request.shared_path:
        return []
    return [
        f"{what}: submitting this would fail: {reason}" for what, reason in unreachable_paths(job)
    ]


def _fit(job: Job, cluster: Cluster) -> tuple[str | None, bool]:
    """Whether the job can ever run on the cluster that is named, and whether that is a problem.

    It is unless somebody has said that the job is to wait. None where it asks for nothing.
    """
    from colddiff.cluster.ray_jobs import RayJobs
    from colddiff.errors import SpecError
    from colddiff.jobs.device import settled_job
    from colddiff.jobs.runner import fit_line
    from colddiff.jobs.segments.room import queue_hours, what_it_waits_for

    capacity = RayJobs(cluster).capacity()
    try:
        job = settled_job(job, lambda: capacity)
        VERBS[job.verb].check_capacity(job, lambda: capacity)
    except SpecError as error:
        if queue_hours(job) is None:
            return f"{cluster.address}: can never fit: {error}", True
        return f"{cluster.address}: {what_it_waits_for(job, lambda: capacity)}", False
    resources = getattr(job, "resources", None)
    workers = getattr(job, "workers", 1) if VERBS[job.verb].all_at_once else 1
    if not resources:
        return None, False
    return f"{cluster.address}: {fit_line(resources, workers, capacity)}", False

"""A job's one tracking run: opening, describing and ending it, and storing its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from colddiff.data.open import read_manifest
from colddiff.errors import ColddiffError, Missing, RecordError, Stopped
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.job import Job
from colddiff.jobs.listing.ids import NAMELESS
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.verb import VERBS
from colddiff.ports import TrackedDataset, Tracker, WorkerContext
from colddiff.tracking.open import end_run, system_sampler
from colddiff.tracking.open import join_tracker as join_run
from colddiff.tracking.open import open_tracker as open_run
from colddiff.tracking.repeats import DESCRIPTION, second_value_tag

IMAGE_SETS = ("data", "test_data", "reference", "samples")
"""Fields of jobs that name packed images."""
USER = "mlflow.user"
"""The tag that MLflow's UI shows as who created a run."""
GROUPING = ("parent", "tags")
"""Fields of ``tracking`` that are the run's parent and tags, and no parameters of it."""


def open_tracker(resolved: ResolvedJob, *, wait: bool = True) -> Tracker:
    """The job's one tracking run, for its driver; without ``wait`` it connects in a thread."""
    experiment = resolved.job.tracking.experiment
    name = run_name(resolved)
    uri = resolved.tracking_uri
    return open_run(resolved.storage, uri, experiment, resolved.id, name, wait=wait)


def run_name(resolved: ResolvedJob) -> str:
    """The id; of a job that nobody named, with the checkpoint or samples that it is made from.

    ``generate-job-0a1b2c3d of train-quickstart-4e5f6a7b@step=60``.
    """
    from colddiff.jobs.listing.job_table import made_from_text

    of = made_from_text(resolved.job.to_dict()) if resolved.slug == NAMELESS else ""
    return f"{resolved.id} of {of}" if of else resolved.id


def join_tracker(resolved: ResolvedJob) -> Tracker:
    """The run that the driver has opened and will end, for another process of the job."""
    return join_run(resolved.storage, resolved.job.tracking.experiment, resolved.id)


def describe_run(
    tracker: Tracker, resolved: ResolvedJob, folder: JobFolder, user: str = ""
) -> None:
    """Logs the job's parameters, image sets, versions, git state and ``job.json`` to its run.

    And who submitted it, if that is known.
    """
    spec, tracking = resolved.job.to_dict(), resolved.job.tracking
    told = {name: value for name, value in spec["tracking"].items() if name not in GROUPING}
    tracker.log_params(_flat({**spec, "tracking": told}))
    if tracking.parent is not None:
        tracker.set_parent(tracking.parent)
    for dataset in _datasets(resolved.job):
        tracker.log_dataset(dataset)
    tracker.set_tags(
        ({USER: user} if user else {})
        | {DESCRIPTION: _note(resolved), **tracking.tags}
        | _git_tags(resolved.git)
        | {f"version.{name}": number for name, number in resolved.versions.items()}
    )
    tracker.log_artifact("job.json", folder.store.get(folder.key("job.json")))


@contextmanager
def ended_with_work(
    tracker: Tracker, superseded: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Ends the run with the work within: FINISHED, KILLED if it was stopped, else FAILED.

    A ``superseded`` attempt ends its session only: the run is now that of a later attempt.
    """
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except (Stopped, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        if superseded():
            tracker.close()
        else:
            tracker.finish(status)


def end_lost_run(folder: JobFolder, state: str) -> None:
    """Ends the run of a job whose attempt ended in ``state`` without doing that itself.

    If the attempt lives all the same, it ends its run once more.
    """
    with suppress(Missing, RecordError):
        job = folder.job()
        uri = str(job.get("tracking_uri") or "")
        told = job.get("spec", {}).get("tracking")
        if uri and isinstance(told, dict):
            experiment = str(told.get("experiment") or "")
            status = "KILLED" if state == "stopped" else "FAILED"
            end_run(folder.store.uri, uri, experiment, folder.job_id, status)


def sampled(
    resolved: ResolvedJob, ctx: WorkerContext, tracker: Tracker
) -> AbstractContextManager[object]:
    """Within ``with``, samples system metrics on rank 0, unless ``system_every_s`` is null."""
    every_s = resolved.job.tracking.system_every_s
    if ctx.rank != 0 or every_s is None:
        return nullcontext()
    return system_sampler(tracker, resolved.created, every_s, ctx.device)


def keep_picture(
    resolved: ResolvedJob, folder: JobFolder, tracker: Tracker, name: str, data: bytes
) -> str:
    """Stores ``pictures/<name>`` in the job's folder and its run; returns its address."""
    key = folder.key(f"pictures/{name}")
    folder.store.put(key, data)
    if resolved.job.tracking.images:
        tracker.log_artifact(f"pictures/{name}", data)
    return f"{folder.store.uri}/{key}"


def _note(resolved: ResolvedJob) -> str:
    """What MLflow's UI shows at the head of a run: what it is, and how to make it again."""
    from colddiff.jobs.pages.read import command_of

    verb = VERBS[resolved.verb]
    changed = second_value_tag(verb.extent or "<name>")
    return (
        f"`{resolved.id}`: {verb.help}\n\n```\n{command_of(resolved.to_dict())}\n```\n\n"
        f"`colddiff status {resolved.id}` tells how it stands; all it wrote is in "
        f"`{resolved.storage}/jobs/{resolved.id}`.\n\n"
        "Parameters and this command are those of the first submission, as MLflow takes no second "
        f"value: what a later one changed is in tags, such as `{changed}`.\n"
    )


def _datasets(job: Job) -> Iterator[TrackedDataset]:
    """The packed image sets that a resolved job reads."""
    named = {name: getattr(job, name, None) for name in IMAGE_SETS}
    base = getattr(job, "base", None)
    if isinstance(base, Mapping):
        named |= {f"base.{name}": base.get(name) for name in IMAGE_SETS}
    named["degradation.other"] = getattr(getattr(job, "degradation", None), "second_set", None)
    for use, uri in named.items():
        if not isinstance(uri, str):
            continue
        # Samples that are being made have no manifest yet.
        with suppress(ColddiffError):
            manifest = read_manifest(uri)
            name = "/".join(uri.rstrip("/").split("/")[-2:])
            yield TrackedDataset(name, manifest.digest, uri, use, manifest.count)


def _git_tags(git: Mapping[str, Any]) -> dict[str, str]:
    """The commit as the tag that MLflow's UI shows; empty outside a checkout."""
    if "commit" not in git:
        return {}
    dirty = str(bool(git.get("dirty"))).lower()
    return {"mlflow.source.git.commit": str(git["commit"]), "commit.dirty": dirty}


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat[f"{prefix}{name}"] = str(value)
    return flat

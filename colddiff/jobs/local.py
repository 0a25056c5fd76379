"""Whole jobs in the calling process, without Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colddiff.errors import ColddiffError, Stopped
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.log import say
from colddiff.jobs.resolve import ResolvedJob, record_job, resolve
from colddiff.jobs.verb import VERBS
from colddiff.stores.open import open_store
from colddiff.tracking.open import deliver_late

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob


def run_local(resolved: ResolvedJob, attempt: int) -> int:
    """Exit code of one attempt at a job in this process (breakpoints work)."""
    return VERBS[resolved.verb].run_here(resolved, attempt)


def train(job: TrainJob, name: str = "job") -> dict[str, Any]:
    """Trains in this process and returns the result; the same call again resumes, or is done.

    Raises ColddiffError with the job's message where it fails, Stopped where it was stopped.
    """
    resolved = resolve("train", job, name, talk=say)
    folder = JobFolder(open_store(resolved.storage), resolved.id)
    status, result = folder.status(), folder.result()
    if status and result and status.state == "done" and status.step >= job.num_steps:
        deliver_late(resolved.storage, resolved.tracking_uri, resolved.id, say)
        return result
    record_job(resolved, folder)
    attempt = max(folder.attempts(), default=0) + 1
    code = run_local(resolved, attempt)
    status, result = folder.status(), folder.result()
    if code != 0 or result is None:
        message = status.message if status else ""
        raise Stopped(message) if code == Stopped.exit_code else ColddiffError(message)
    return result

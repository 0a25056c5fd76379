"""Whole jobs in the calling process, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from colddiff import connect
from colddiff.engine.folder import JobFolder
from colddiff.errors import ColddiffError, Stopped
from colddiff.jobspec import EvaluateJob, GenerateJob, TrainJob
from colddiff.resolve import ResolvedJob, record_job, resolve
from colddiff.run.generation import generate_here
from colddiff.run.log import say
from colddiff.run.measuring import evaluate_here
from colddiff.run.training import train_here

HERE: Mapping[str, Callable[[ResolvedJob, int], int]] = {
    TrainJob.verb: train_here,
    EvaluateJob.verb: evaluate_here,
    GenerateJob.verb: generate_here,
}


def run_local(resolved: ResolvedJob, attempt: int) -> int:
    """Exit code of one attempt at a job in this process (breakpoints work)."""
    return HERE[resolved.verb](resolved, attempt)


def train(job: TrainJob, name: str = "job") -> dict[str, Any]:
    """Trains in this process and returns the result; the same call again resumes, or is done.

    Raises ColddiffError with the job's message where it fails, Stopped where it was stopped.
    """
    resolved = resolve("train", job, name, talk=say)
    folder = JobFolder(connect.open_store(resolved.storage), resolved.id)
    status, result = folder.status(), folder.result()
    if status and result and status.state == "done" and status.step >= job.num_steps:
        connect.deliver_late(resolved.storage, resolved.tracking_uri, resolved.id, say)
        return result
    record_job(resolved, folder)
    attempt = max(folder.attempts(), default=0) + 1
    code = run_local(resolved, attempt)
    status, result = folder.status(), folder.result()
    if code != 0 or result is None:
        message = status.message if status else ""
        raise Stopped(message) if code == Stopped.exit_code else ColddiffError(message)
    return result

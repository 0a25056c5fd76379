"""Running a resolved generation job in this process, and where its samples are."""

from __future__ import annotations

from typing import Any

from colddiff.jobs.folder import JobFolder
from colddiff.jobs.in_process import run_here
from colddiff.jobs.resolve import ResolvedJob
from colddiff.stores.open import open_store
from colddiff.verbs.generate.job import GenerateJob
from colddiff.verbs.generate.resolve import place_of


def run(resolved: ResolvedJob) -> tuple[int, JobFolder]:
    folder = JobFolder(open_store(resolved.storage), resolved.id)
    folder.write_job(resolved.to_dict())
    attempt = max(folder.attempts(), default=0) + 1
    return run_here(resolved, attempt), folder


def place(resolved: ResolvedJob) -> Any:
    return open_store(place_of(resolved.job_as(GenerateJob), resolved.storage, resolved.id))

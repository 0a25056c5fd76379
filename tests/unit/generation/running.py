"""Running a resolved generation job in this process, and where its samples are."""

from __future__ import annotations

from typing import Any

from colddiff import connect
from colddiff.engine.folder import JobFolder
from colddiff.resolve import ResolvedJob
from colddiff.resolve.generation import place_of
from colddiff.run import run_local


def run(resolved: ResolvedJob) -> tuple[int, JobFolder]:
    folder = JobFolder(connect.open_store(resolved.storage), resolved.id)
    folder.write_job(resolved.to_dict())
    attempt = max(folder.attempts(), default=0) + 1
    return run_local(resolved, attempt), folder


def place(resolved: ResolvedJob) -> Any:
    return connect.open_store(place_of(resolved.generate, resolved.storage, resolved.id))

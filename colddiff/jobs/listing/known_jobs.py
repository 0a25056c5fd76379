"""What earlier lists read of jobs, so that a list of jobs on S3 asks for what can change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from colddiff.errors import ColddiffError, Missing
from colddiff.spec.documents import DocumentError, read_json_object

if TYPE_CHECKING:
    from colddiff.jobs.folder import JobFolder
    from colddiff.ports import Store

KEPT = ("slug", "created", "spec")


class KnownJobs:
    """Parts of the ``job.json`` files of ``uri``, kept in ``cache``, a store on this machine.

    An id is a digest of what a job is, so a job can only change with a new attempt, which writes
    ``job.json`` anew. Without its file, or where ``cache`` cannot be written, a list is slower.
    """

    def __init__(self, uri: str, cache: Store | None) -> None:
        self._cache, self._changed = cache, False
        self._key = f"listed/{hashlib.sha256(uri.encode()).hexdigest()[:16]}.json"
        self._jobs: dict[str, Any] = {}
        if cache is not None:
            with suppress(ColddiffError, DocumentError):
                self._jobs = read_json_object(cache.get(self._key))

    def job(self, folder: JobFolder, attempt: int) -> Mapping[str, Any]:
        """``KEPT`` of ``job.json``, as of ``attempt``; empty where it is not written yet."""
        known = self._jobs.get(folder.job_id)
        if isinstance(known, dict) and known.get("attempt") == attempt:
            return known
        try:
            job = folder.job()
        except Missing:
            return {}
        found = {name: job[name] for name in KEPT if name in job}
        self._jobs[folder.job_id] = {**found, "attempt": attempt}
        self._changed = True
        return found

    def save(self, ids: set[str]) -> None:
        """Keeps what is known of the jobs ``ids``, for the next list."""
        if self._cache is None or not self._changed:
            return
        jobs = {job_id: job for job_id, job in self._jobs.items() if job_id in ids}
        with suppress(ColddiffError):
            self._cache.put(self._key, json.dumps(jobs).encode())

"""What earlier lists read of jobs, so that a list of jobs on S3 asks for what can have changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from colddiff.errors import ColddiffError, Missing
from colddiff.jobs.listing.ended import KEPT, marks, read_mark
from colddiff.jobs.status import Status
from colddiff.spec.documents import DocumentError, read_json_object

if TYPE_CHECKING:
    from colddiff.jobs.folder import JobFolder
    from colddiff.ports import Store

INDEX = "listed.json"
FEW = 8
"""Jobs that are read one by one before the index of the storage is."""

Score = tuple[str, float]


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that has ended, as a list shows it."""

    status: Status
    job: Mapping[str, Any]
    score: Score | None


class KnownJobs:
    """What lists have read of the jobs in ``store``, by id, for as long as it must be true.

    A job that has ended is known by the version of its mark (``ended.py``): nothing of it is read
    again until that has changed. Of others ``job.json`` is known, which can only change with a new
    attempt, as an id is a digest of what a job is. Both are kept in ``cache``, a store on this
    machine, and those that have ended in ``listed.json`` of the storage, too, for other machines:
    whoever finds more than a few that it lacks writes it anew. Where neither can be read or
    written, a list is slower.
    """

    def __init__(self, store: Store, cache: Store | None) -> None:
        self._store, self._cache = store, cache
        self._key = f"listed/{hashlib.sha256(store.uri.encode()).hexdigest()[:16]}.json"
        self._jobs = _read(cache, self._key)
        self._marks = marks(store)
        self._changed, self._read_singly = False, 0
        if sum(not self._is_known(job_id) for job_id in self._marks) > FEW:
            for job_id, entry in _read(store, INDEX).items():
                if self._of_mark(job_id, entry) and not self._is_known(job_id):
                    self._jobs[job_id], self._changed = entry, True

    def ended(self, folder: JobFolder) -> EndedJob | None:
        """The job as it ended, without a request; None if it has not, or is not known."""
        return _as_ended(self._jobs[folder.job_id]) if self._is_known(folder.job_id) else None

    def read_ended(self, folder: JobFolder) -> EndedJob | None:
        """The job as its mark says that it ended; None if it has not, or has no mark."""
        found = read_mark(folder.store, folder.job_id) if folder.job_id in self._marks else None
        return None if found is None else _as_ended(found)

    def keep(self, folder: JobFolder, found: EndedJob) -> None:
        """Keeps what ``read_ended`` found, with its score, for later lists."""
        self._jobs[folder.job_id] = {
            "mark": self._marks[folder.job_id],
            "status": asdict(found.status),
            "job": dict(found.job),
            "score": found.score,
        }
        self._changed = True
        self._read_singly += 1

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
        jobs = {job_id: entry for job_id, entry in self._jobs.items() if job_id in ids}
        if self._cache is not None and self._changed:
            with suppress(ColddiffError):
                self._cache.put(self._key, json.dumps(jobs).encode())
        if self._read_singly > FEW:
            ended = {job_id: entry for job_id, entry in jobs.items() if self._is_known(job_id)}
            with suppress(ColddiffError):
                self._store.put(INDEX, json.dumps(ended).encode())

    def _is_known(self, job_id: str) -> bool:
        return self._of_mark(job_id, self._jobs.get(job_id))

    def _of_mark(self, job_id: str, entry: object) -> bool:
        """Whether ``entry`` is what the mark of the job says now."""
        mark = self._marks.get(job_id)
        return mark is not None and isinstance(entry, dict) and entry.get("mark") == mark


def _read(store: Store | None, key: str) -> dict[str, Any]:
    if store is not None:
        with suppress(ColddiffError, DocumentError):
            return read_json_object(store.get(key))
    return {}


def _as_ended(entry: Mapping[str, Any]) -> EndedJob | None:
    """An entry, or a mark, if it is whole."""
    try:
        status = Status.from_dict(entry["status"])
        job, score = entry["job"], entry.get("score")
        named = score is None or (isinstance(score[0], str) and isinstance(score[1], int | float))
    except (KeyError, TypeError, IndexError, AttributeError, DocumentError):
        return None
    if not (named and isinstance(job, dict) and status.settled):
        return None
    return EndedJob(status, job, None if score is None else (score[0], float(score[1])))

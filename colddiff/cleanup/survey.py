"""The jobs of a STORAGE as `colddiff gc` sees them: their objects, records and states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from colddiff.cleanup.needed import texts
from colddiff.cleanup.ours import RESULT, linked
from colddiff.errors import ColddiffError, Missing, RecordError, Unreachable
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import Status
from colddiff.ports import Store, StoredObject
from colddiff.spec.documents import DocumentError, read_json_object
from colddiff.stores.local_store import LocalStore

READERS = 32
"""Jobs whose records are read at once: each read is a request where the store is S3."""
RECORDS = ("trials/", "members.json")
"""Below an outer job's folder: what names the jobs that it runs."""


@dataclass(slots=True)
class SurveyedJob:
    """A folder of a job."""

    folder: JobFolder
    objects: list[StoredObject] = field(repr=False)
    job: dict[str, Any] | None = None
    """``job.json``; None if there is none."""
    status: Status | None = None
    problem: str = ""
    """Why it cannot be judged, nor what it names be known: a record of it is damaged."""

    @property
    def id(self) -> str:
        """Name of the folder."""
        return self.folder.job_id

    @property
    def original(self) -> str | None:
        """Where its folder, or the one above it, is a link: the name of the folder it leads to."""
        store = self.folder.store
        if not isinstance(store, LocalStore) or not linked(store, self.folder.key()):
            return None
        return store.path(self.folder.key()).resolve().name

    @property
    def names(self) -> list[str]:
        """Keys of its objects below its folder."""
        return [item.key.removeprefix(self.folder.key("")) for item in self.objects]

    @property
    def at_rest(self) -> bool:
        """Whether no attempt is queued or running."""
        return not self.problem and self.status is not None and self.status.finished

    def below(self, start: str) -> list[StoredObject]:
        """Its objects whose key in the folder starts with ``start``."""
        return [item for item in self.objects if item.key.startswith(self.folder.key(start))]


def survey(store: Store) -> list[SurveyedJob]:
    """All folders of jobs with what is in them, by id; raises StoreError."""
    objects: dict[str, list[StoredObject]] = {}
    for item in store.list("jobs/"):
        _, job_id, *rest = item.key.split("/", 2)
        if rest:
            objects.setdefault(job_id, []).append(item)
    jobs = [SurveyedJob(JobFolder(store, name), found) for name, found in objects.items()]
    with ThreadPoolExecutor(READERS, "survey") as pool:
        for job, problem in zip(jobs, pool.map(_read, jobs), strict=True):
            job.problem = problem
    return jobs


def _read(job: SurveyedJob) -> str:
    try:
        job.status = job.folder.status()
        job.job = job.folder.job()
    except Missing:
        if any(RESULT.fullmatch(name) for name in job.names):
            return f"{job.folder.uri}/job.json is missing, so what it names is not known"
        return ""
    except Unreachable:
        raise
    except RecordError as error:
        return error.what  # without its way out: a record that is deleted protects nothing
    except ColddiffError as error:
        return str(error)
    return ""


def run_by_others(jobs: Sequence[SurveyedJob]) -> set[str]:
    """Ids of jobs that a job which has not ended runs, as its trials or members.

    Each of them is at rest between its segments.
    """
    known = {job.id for job in jobs}
    active = {job.id for job in jobs if not job.at_rest}
    found = {job.id for job in jobs if _parent(job) in active}
    for job in jobs:
        if job.id in active:
            found |= known.intersection(_named(job))
    return found


def _parent(job: SurveyedJob) -> str | None:
    tracking = ((job.job or {}).get("spec") or {}).get("tracking")
    parent = tracking.get("parent") if isinstance(tracking, dict) else None
    return parent if isinstance(parent, str) else None


def _named(job: SurveyedJob) -> Iterable[str]:
    """Texts in the records of the jobs that an outer job runs."""
    for item in (found for start in RECORDS for found in job.below(start)):
        try:
            yield from texts(read_json_object(job.folder.store.get(item.key)))
        except (Missing, DocumentError):
            continue  # it names nothing that could be read

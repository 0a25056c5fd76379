"""`colddiff gc` as a whole: the jobs of a STORAGE, what is left over of them, and its deletion."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from colddiff.cleanup.find import Found, find_leftovers
from colddiff.cleanup.leftover import Ages, Leftover
from colddiff.cleanup.remembered import snapshots_here
from colddiff.cleanup.staged import staged_here
from colddiff.cleanup.survey import SurveyedJob, survey
from colddiff.cluster.operate import all_current
from colddiff.errors import ColddiffError, RecordError, SpecError, StoreError, Unreachable
from colddiff.jobs.folder import JobFolder
from colddiff.ports import Store
from colddiff.stores.local_store import LocalStore

DELETERS = 16
"""Leftovers deleted at once: each object is a request where the store is S3."""

log = logging.getLogger(__name__)


def find_all(
    store: Store,
    *,
    older_than_s: float,
    keep: int | None,
    address: str | None,
    writes: bool = True,
) -> Found:
    """What nobody needs any more in ``store`` and of clients on this machine.

    A cluster is asked about jobs that have not ended. ``writes``: whether the store's clock may be
    read by writing to it. Raises StoreError, and SpecError if ``store`` is a file.
    """
    if isinstance(store, LocalStore) and store.root.exists() and not store.root.is_dir():
        raise SpecError(f"{store.uri} is not a folder; set --storage to the folder of a STORAGE")
    if next(iter(store.list()), None) is None:
        here = [*staged_here(older_than_s), *snapshots_here(store, [], older_than_s)]
        return Found(here, [])  # also where there is no such folder
    # Before the listing: what is written meanwhile is young.
    ages = (Ages.of if writes else Ages.unwritten)(store, older_than_s)
    jobs = survey(store)
    _look(jobs, address, writes=writes)
    found = find_leftovers(store, jobs, ages, keep)
    here = [*staged_here(older_than_s), *snapshots_here(store, jobs, older_than_s)]
    return Found([*found.leftovers, *here], found.left_alone)


def _look(jobs: Sequence[SurveyedJob], address: str | None, *, writes: bool) -> None:
    """Sets the status of jobs that have not ended after a look at whether their attempt lives.

    Without ``writes``, one that cannot be settled in a STORAGE that can only be read runs on.
    """
    unsettled = [job for job in jobs if job.status is not None and not job.status.finished]
    seen = all_current([job.folder for job in unsettled], address)
    for job, now in zip(unsettled, seen, strict=True):
        if isinstance(now, StoreError) and not writes:
            log.warning("%s: taken to be running, as its end cannot be written: %s", job.id, now)
            continue
        if isinstance(now, Unreachable):
            raise now
        if isinstance(now, ColddiffError):
            job.problem = str(now)
        else:
            job.status = now


def delete_all(leftovers: Sequence[Leftover]) -> list[Leftover]:
    """Deletes them, and returns those that were; a job that was begun meanwhile keeps its own."""
    with ThreadPoolExecutor(DELETERS, "gc") as pool:
        deleted = list(pool.map(_deleted, leftovers))
    return [item for item, gone in zip(leftovers, deleted, strict=True) if gone]


def _deleted(item: Leftover) -> bool:
    if item.job_id:
        try:
            status = JobFolder(item.store, item.job_id).status()
        except RecordError as error:
            log.warning("%s: left alone: %s", item.where, error.what)
            return False
        if status is not None and not status.finished:
            log.info("%s: left alone, as %s has begun again", item.where, item.job_id)
            return False
    if not item.delete():
        log.info("%s: left alone, as it has changed", item.where)
        return False
    return True

"""The jobs of a storage as rows, with the states that their clusters and processes show now."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from colddiff.cluster.home import Home
from colddiff.cluster.operate import all_current
from colddiff.errors import ClusterError, ColddiffError, Unreachable
from colddiff.jobs.folder import JobFolder, list_jobs
from colddiff.jobs.listing.job_table import JobRow, made_from, read_rows
from colddiff.jobs.listing.known_jobs import KnownJobs
from colddiff.stores.open import open_store

if TYPE_CHECKING:
    from colddiff.ports import Store


def current_rows(store: Store, address: str | None) -> tuple[list[JobRow], list[str]]:
    """A row for each job in ``store``, and a line for each that cannot be read.

    A job that has not ended is looked at: its process, its cluster (at ``address``, if given) or
    its heartbeat tells whether it still runs. Raises Unreachable where that cannot be asked.
    """
    known = KnownJobs(store, _cache_for(store))
    rows, problems = read_rows([JobFolder(store, job_id) for job_id in list_jobs(store)], known)
    unsettled = [row for row in rows if row.status is not None and not row.status.finished]
    now_seen = all_current([row.folder for row in unsettled], address)
    for row, seen in zip(unsettled, now_seen, strict=True):
        if isinstance(seen, Unreachable):
            raise seen
        if isinstance(seen, ColddiffError):
            problems.append(str(seen))
        else:
            row.status = seen
    return rows, problems


def jobs_that_name(folder: JobFolder) -> tuple[list[str], list[str]]:
    """Ids of the jobs in its storage that name a job: as what they are made from, as a list's OF,
    or as a training of a study.

    And of those that name it as what runs them, such as a search. Of those whose records can be
    read: no other keeps the job from being deleted.
    """
    named = re.compile(rf"(?:^|/){re.escape(folder.job_id)}(?:$|[/@])")
    store = folder.store
    others = [JobFolder(store, other) for other in list_jobs(store) if other != folder.job_id]
    rows, _ = read_rows(others, KnownJobs(store, _cache_for(store)))
    made = [
        row.folder.job_id
        for row in rows
        if any(named.search(text) for text in made_from(row.job.get("spec") or {}).values())
        or folder.job_id in _trainings(row.job.get("spec") or {})
    ]
    return made, [row.folder.job_id for row in rows if row.part_of == folder.job_id]


def _trainings(spec: Mapping[str, Any]) -> list[str]:
    """Ids of the trainings of a study's spec; none of any other's."""
    found = spec.get("trainings")
    return [str(one.get("id")) for one in found or () if isinstance(one, Mapping)]


def _cache_for(store: Store) -> Store | None:
    """COLDDIFF_HOME, where reading the store takes requests; None if it cannot be used."""
    home = Home.from_environment()
    if "://" not in store.uri:
        return None
    try:
        home.make()
    except ClusterError:
        return None
    return open_store(str(home.path))

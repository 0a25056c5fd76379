"""Operations on submitted jobs: find, look at, stop, delete; its cluster is asked where need be."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from colddiff.checkpoints.kept import COMMIT
from colddiff.checkpoints.snapshot_places import forget_job
from colddiff.errors import ClusterError, ColddiffError
from colddiff.jobs.folder import JobFolder, list_jobs
from colddiff.jobs.follow import AttemptWatch, poll_seconds, settle
from colddiff.jobs.listing.ended import delete_mark
from colddiff.jobs.listing.named import find_job as job_named
from colddiff.jobs.status import LOST_AFTER_S, Status
from colddiff.stores.open import open_store, storage_at

log = logging.getLogger(__name__)
Show = Callable[[Status], None]

ASK_S = 2.5
"""A heartbeat changes within this time; later its cluster is asked, which takes seconds."""


def find_job(name: str, storage: str | None = None, *, surely: bool = False) -> JobFolder:
    """``named.find_job`` in the storage at an address."""
    return job_named(open_store(storage_at(storage)), name, surely=surely)


def current(folder: JobFolder, address: str | None) -> Status | None:
    """``all_current`` of one job; raises what it returned."""
    (found,) = all_current([folder], address)
    if isinstance(found, ColddiffError):
        raise found
    return found


def all_current(
    folders: Sequence[JobFolder], address: str | None
) -> list[Status | ColddiffError | None]:
    """The status of each job, after a look at whether its attempt lives; or the error of a look.

    That takes no time for those whose process or cluster is known. Others are watched together,
    until their heartbeat has changed or they are lost, with a line in the log.
    """
    found: dict[int, Status | ColddiffError | None] = {}
    watched: dict[int, AttemptWatch] = {}
    silent: set[int] = set()
    """Those without a heartbeat to watch: no driver has written yet."""
    began, told = time.monotonic(), False
    for number, folder in enumerate(folders):
        try:
            status = folder.status()
            found[number] = status
            if status is not None and not status.finished:
                watched[number] = AttemptWatch(folder, status.attempt, None)
                if status.state == "queued":
                    silent.add(number)
        except ColddiffError as error:
            found[number] = error
    while watched:
        asks = time.monotonic() - began > ASK_S
        for number in list(watched):
            found[number], decided = _look(
                folders[number], watched[number], address, asks=asks or number in silent
            )
            if decided:
                del watched[number]
        if watched and asks and not told:
            told = True
            log.warning("watching the heartbeat of %d jobs, up to %g s", len(watched), LOST_AFTER_S)
        if watched:
            time.sleep(max(poll_seconds(folders[number]) for number in watched))
    return [found[number] for number in range(len(folders))]


def _look(
    folder: JobFolder, watch: AttemptWatch, address: str | None, *, asks: bool
) -> tuple[Status | ColddiffError | None, bool]:
    """What a look at an attempt shows, and whether that decides; ``asks`` its cluster first."""
    try:
        if asks and watch.runner is None:
            from colddiff.cluster.connect import jobs_of

            with suppress(ClusterError):  # its heartbeat decides
                watch.runner = jobs_of(folder, address)
        seen = watch.look()
    except ClusterError:
        return folder.status(), True
    except ColddiffError as error:
        return error, True
    return seen.status, seen.ended or seen.beats or seen.alive or seen.runs_here


def request_stop(folder: JobFolder, grace_s: float) -> Status | None:
    """Requests a checkpoint and a stop, if the job has not ended; its status, None without any."""
    status = folder.status()
    if status is not None and not status.settled:
        folder.request_stop(status.attempt, grace_s)
    return status


def stop(folder: JobFolder, address: str | None, grace_s: float, show: Show) -> Status | None:
    """Requests a checkpoint and a stop; ends the job by force after ``grace_s`` seconds.

    Returns its status then, None if it was never started. Raises ClusterError or ColddiffError if
    the job keeps running and its cluster cannot be reached, or is unknown.
    """
    status = request_stop(folder, grace_s)
    if status is None or status.settled:
        return status
    attempt = status.attempt
    if status.state == "running":
        log.info("%s: stop requested; killed if still running after %g s", folder.job_id, grace_s)
        try:
            status = _await_stop(folder, attempt, grace_s, show)
        except KeyboardInterrupt:
            log.info("%s: the stop stays requested, and is not enforced", folder.job_id)
            raise
        if status.settled:
            return status
    from colddiff.cluster.connect import jobs_of

    try:
        jobs = jobs_of(folder, address)
    except ClusterError as error:
        if status.state != "lost":
            raise
        # Should its driver live all the same, it finds the request.
        log.info("%s is lost, so there is nothing to stop (%s)", folder.job_id, error)
        return status
    if jobs is None and status.state == "running":
        raise ColddiffError(
            f"{folder.job_id} did not stop within {grace_s:g} s and its cluster is unknown; wait "
            "for it, or end its process on the host that status.json names"
        )
    if jobs is None:
        return settle(folder, attempt, None, None)
    jobs.stop(folder, attempt)
    return settle(folder, attempt, jobs.find(folder, attempt), jobs)


def _await_stop(folder: JobFolder, attempt: int, grace_s: float, show: Show) -> Status:
    deadline = time.monotonic() + grace_s
    watch = AttemptWatch(folder, attempt, None)
    while True:
        seen = watch.look()
        if seen.ended or seen.status.attempt != attempt or time.monotonic() > deadline:
            return seen.status
        show(seen.status)
        time.sleep(min(poll_seconds(folder), 1.0))


def refuse_unless_ended(folder: JobFolder) -> None:
    """Raises ColddiffError if the job is running or waits: it is stopped before it is deleted."""
    status = current(folder, None)
    if status is not None and not status.finished:
        raise ColddiffError(
            f"{folder.job_id} is {status.word}; run `colddiff stop {folder.job_id}` first"
        )


def delete(folder: JobFolder) -> int:
    """Deletes a job that has ended, with its checkpoints; returns the number of objects.

    If interrupted, no checkpoint looks complete and the job is still listed. Raises ColddiffError
    if the job is running.
    """
    refuse_unless_ended(folder)
    keys = [item.key for item in folder.store.list(folder.key() + "/")]
    delete_mark(folder.store, folder.job_id)
    for key in sorted(keys, key=lambda key: (not key.endswith(f"/{COMMIT}"), key)):
        if key != folder.key("job.json"):
            folder.store.delete(key)
    folder.store.clear(folder.key() + "/")
    forget_job(folder.uri)
    return len(keys)


def delete_remains(job_id: str, storage: str | None) -> bool:
    """Deletes empty folders that are left of a job without records; returns whether it did."""
    store = open_store(storage_at(storage))
    below = f"jobs/{job_id}/"
    if job_id not in list_jobs(store) or any(store.list(below)):
        return False
    store.clear(below)
    return True

"""The log of an attempt, from the job's folder, or from its cluster before the first upload."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress

from colddiff.errors import ClusterError, ColddiffError
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.follow import AttemptWatch, poll_seconds
from colddiff.jobs.status import verdict_line
from colddiff.jobs.submit import newest_attempt
from colddiff.jobs.verb import unit_of
from colddiff.machine.printed_lines import parted

OVERLAP = 4096
log = logging.getLogger(__name__)


def read_log(folder: JobFolder, attempt: int, address: str | None, *, debug: bool = False) -> bytes:
    """The log so far; raises ColddiffError if there is no such attempt.

    ``debug``: what is set aside of it, which other libraries printed of themselves.
    """
    newest = newest_attempt(folder, folder.status())
    if attempt < 1 or attempt > newest:
        raise ColddiffError(
            f"{folder.job_id} has no attempt {attempt} (newest: {newest or 'none'})"
        )
    if text := folder.debug_log(attempt) if debug else folder.log(attempt):
        return text
    from colddiff.cluster.connect import jobs_of

    try:
        jobs = jobs_of(folder, address)
    except ClusterError:
        return b""
    if jobs is None:
        return b""
    kept, aside = parted(jobs.log(folder, attempt).encode())
    return aside if debug else kept


def stream_log(folder: JobFolder, attempt: int, address: str | None) -> Iterator[bytes]:
    """Yields the log in pieces until the attempt has ended."""
    shown = b""
    watch = None
    while True:
        status = folder.status()
        if watch is None and status is not None and not status.finished:
            from colddiff.cluster.connect import jobs_of

            with suppress(ClusterError):
                watch = AttemptWatch(folder, attempt, jobs_of(folder, address))
        if watch is not None:
            status = watch.look().status
        # Read after the status, so that it includes everything printed before the end.
        text = read_log(folder, attempt, address)
        yield added(shown, text)
        shown = text
        if status is None or status.finished or status.attempt > attempt:
            if status is not None and status.state == "lost":  # it could not say so itself
                log.warning("%s", verdict_line(folder.job_id, status, unit_of(folder.job_id)))
            return
        time.sleep(poll_seconds(folder))


def added(shown: bytes, text: bytes) -> bytes:
    """The part of ``text`` after ``shown``, of which ``text`` may lack the beginning."""
    if text.startswith(shown):
        return text[len(shown) :]
    tail = shown[-OVERLAP:]
    # The cluster's log may begin with lines that were printed before the stored one was begun.
    while tail and (place := text.rfind(tail)) < 0:
        tail = tail.partition(b"\n")[2]
    return text[place + len(tail) :] if tail else text

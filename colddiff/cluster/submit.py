"""A submit that can be repeated: it says "done", attaches to what runs, or begins an attempt."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from colddiff.cluster.display import Display
from colddiff.cluster.follow import HAND_IN_S, follow
from colddiff.cluster.processes import process
from colddiff.cluster.ray_jobs import Driver, RayJobs, submission_id
from colddiff.errors import ClusterError, ColddiffError, Exists, Missing
from colddiff.jobs.folder import EXIT_CODES, JobFolder, Status
from colddiff.jobs.resolve import record_job
from colddiff.jobs.verb import VERBS
from colddiff.stores.open import open_store
from colddiff.tracking.open import deliver_late

if TYPE_CHECKING:
    from colddiff.jobs.job import Job
    from colddiff.jobs.resolve import ResolvedJob

INTERRUPTED = 130
EXTENT = ("num_steps", "num_samples", "num_trials")
UNITS = {"evaluate": "images", "generate": "images", "search": "trials"}
END_S = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a submission ended, or where it stood when its caller left."""

    id: str
    state: str
    exit_code: int
    attempt: int
    folder: str
    result: str | None
    """Address of ``result.json``, where there is one."""
    message: str = ""


def submit(
    resolved: ResolvedJob,
    jobs: RayJobs,
    display: Display,
    *,
    detach: bool = False,
    announce: Callable[[str], None] = lambda job_id: None,
) -> Outcome:
    """Brings ``resolved`` to its end on a cluster and follows it there.

    Args:
        resolved: what to do.
        jobs: where.
        display: told what happens.
        detach: return as soon as the cluster has the job.
        announce: called once with the job id, as soon as the job is known to the cluster.

    Raises ClusterError, StoreError. An interrupt leaves the job running: exit code 130.
    """
    folder = JobFolder(open_store(resolved.storage), resolved.id)
    status = folder.status()
    if status is not None and is_done(resolved, folder, status):
        announce(resolved.id)
        return already_done(resolved, folder, status, display)
    # Looked at once: a later look could see an attempt that another submit has begun meanwhile.
    newest = newest_attempt(folder, status)
    attempt = _under_way(folder, status, newest, jobs, display)
    ours = False
    if attempt is None:
        attempt = newest + 1
        ours = begin(folder, resolved, status, attempt, jobs)
    if ours:
        display.say(f"{resolved.id}: attempt {attempt} is on its way to {jobs.cluster.address}")
    else:
        display.say(f"{resolved.id} is under way (attempt {attempt})")
        _say_differences(folder, resolved, display)
    announce(resolved.id)
    if detach:
        display.say(f"detached; `colddiff logs {resolved.id} -f` follows it")
        return replace(outcome_of(folder, folder.status()), exit_code=0)
    return followed(folder, attempt, jobs, display)


def already_done(
    resolved: ResolvedJob, folder: JobFolder, status: Status, display: Display
) -> Outcome:
    """Nothing is left to do but to deliver what waits for a tracker that was away."""
    display.say(f"{resolved.id} is done ({extent(resolved.id, status)})")
    deliver_late(resolved.storage, resolved.tracking_uri, resolved.id, display.say)
    return outcome_of(folder, status)


def followed(folder: JobFolder, attempt: int, jobs: RayJobs | None, display: Display) -> Outcome:
    """Follows an attempt to its end; an interrupt ends the following, not the job."""
    job_id = folder.job_id
    try:
        status = follow(folder, attempt, jobs, display)
    except KeyboardInterrupt:
        display.say(
            f"interrupted; the job goes on: `colddiff logs {job_id} -f` follows it, "
            f"`colddiff stop {job_id}` ends it"
        )
        return replace(outcome_of(folder, folder.status()), exit_code=INTERRUPTED)
    display.say(verdict_line(job_id, status))
    return outcome_of(folder, status)


def outcome_of(folder: JobFolder, status: Status | None) -> Outcome:
    """Where a job stands, with the exit code its state means (0 while it goes on)."""
    status = status or Status()
    key = folder.key("result.json")
    has_result = folder.store.size(key) is not None
    return Outcome(
        id=folder.job_id,
        state=status.state,
        exit_code=EXIT_CODES.get(status.state, 0),
        attempt=status.attempt,
        folder=folder.uri,
        result=f"{folder.store.uri}/{key}" if has_result else None,
        message=status.message,
    )


def verdict_line(job_id: str, status: Status) -> str:
    """How the job ended, why, and the way out."""
    far = f" ({extent(job_id, status)})" if status.num_steps else ""
    line = f"{job_id} {'is done' if status.state == 'done' else f'ended: {status.state}'}{far}"
    if status.message:
        line += f": {status.message}"
    if status.state in ("failed", "lost"):
        line += f" (see `colddiff logs {job_id}`)"
    return line


def extent(job_id: str, status: Status) -> str:
    """How far a job is, such as ``250 of 250 steps``."""
    return f"{status.step} of {status.num_steps} {UNITS.get(job_id.split('-')[0], 'steps')}"


def is_covered(status: Status, job: Job, result: Mapping[str, Any] | None = None) -> bool:
    """Whether a job that is done reached all that is asked for now: more would extend it."""
    reached = status.state == "done" and status.step >= asked_for(job)
    return reached and job.covered_by(result or {})


def is_done(resolved: ResolvedJob, folder: JobFolder, status: Status) -> bool:
    """Whether nothing is left to do: all that is asked for is covered, and still there."""
    if not is_covered(status, resolved.job, folder.result()):
        return False
    return VERBS[resolved.verb].still_there(resolved)


def asked_for(job: Job) -> int:
    """How far the job is to go: optimizer steps, samples or trials."""
    return next((int(getattr(job, name)) for name in EXTENT if hasattr(job, name)), 0)


def newest_attempt(folder: JobFolder, status: Status | None) -> int:
    """Number of the attempt that was handed in last; 0 before the first."""
    return max([*folder.attempts(), status.attempt if status else 0])


def begin(
    folder: JobFolder,
    resolved: ResolvedJob,
    status: Status | None,
    attempt: int,
    jobs: RayJobs | None,
) -> bool:
    """Hands ``attempt`` in; False where another caller was faster, whose attempt it then is.

    Of several callers at once one wins, by a conditional write. It writes the job and its queued
    status; without ``jobs`` it runs the attempt itself. Time and GPU hours spent by earlier
    attempts (``status``) stay counted.
    """
    try:
        folder.store.put_new(_note_key(folder, attempt), _note(folder, attempt, jobs))
    except Exists:
        return False
    resolved = replace(resolved, created=_created(folder) or resolved.created)
    record_job(resolved, folder)
    queued = replace(
        status or Status(),
        state="queued",
        attempt=attempt,
        num_steps=asked_for(resolved.job),
        heartbeat=time.time(),
        loss=None,
        images_per_s=None,
        eta_s=None,
        phase="queued",
        message="",
    )
    folder.write_status(queued)
    if jobs is not None:
        try:
            jobs.submit(resolved, attempt)
        except ColddiffError as error:
            folder.write_status(replace(queued, state="failed", message=f"not submitted: {error}"))
            raise
    return True


def read_note(folder: JobFolder, attempt: int) -> dict[str, Any] | None:
    """Which cluster ``attempt`` was handed to, or which process runs it; None where unknown."""
    try:
        found = json.loads(folder.store.get(_note_key(folder, attempt)))
    except Missing:
        return None
    return found if isinstance(found, dict) else None


def _note_key(folder: JobFolder, attempt: int) -> str:
    return folder.key("attempts", str(attempt), "submission.json")


def _note(folder: JobFolder, attempt: int, jobs: RayJobs | None) -> bytes:
    note: dict[str, Any] = {"time": time.time()}
    if jobs is None:
        note |= {"host": os.uname().nodename, "pid": os.getpid()}
    else:
        name = submission_id(folder.job_id, attempt)
        address = jobs.cluster.address
        note |= {"address": address, "local": jobs.cluster.local, "submission_id": name}
    return json.dumps(note, indent=2).encode()


def _under_way(
    folder: JobFolder, status: Status | None, newest: int, jobs: RayJobs, display: Display
) -> int | None:
    """The attempt that is queued or runs, or None; a driver that fell silent is ended first."""
    if newest > (status.attempt if status else 0):
        # Somebody is between handing it in and saying so, or died there.
        note = read_note(folder, newest) or {}
        return newest if time.time() - float(note.get("time", 0)) < HAND_IN_S else None
    if status is None or (status.finished and status.state != "lost"):
        return None
    driver = jobs.find(submission_id(folder.job_id, status.attempt))
    if status.state == "running":
        if not driver_is_gone(folder, status.attempt, driver):
            return status.attempt
        now = folder.status()
        if now is not None and now.finished and now.state != "lost":
            return status.attempt  # it has ended between our two looks
        display.say(f"{folder.job_id}: attempt {status.attempt} lost its driver; going on")
        return None
    if status.state == "queued":
        if driver is None:
            fresh = time.time() - status.heartbeat < HAND_IN_S
            return status.attempt if fresh else None
        return None if driver.ended else status.attempt
    if driver is not None and not driver.ended:
        # Left alone it would keep the resources that the next attempt waits for.
        display.say(f"{folder.job_id}: ending attempt {status.attempt}, which fell silent")
        jobs.stop(driver.submission_id)
        await_end(jobs, driver.submission_id)
    return None


def driver_is_gone(folder: JobFolder, attempt: int, driver: Driver | None) -> bool:
    """Whether a driver without a verdict ended, as far as can be known before its heartbeat tells.

    Its cluster knows, or the machine that its claim names, where that is this one.
    """
    if driver is not None:
        return driver.ended
    claim = folder.read_claim(attempt)
    here = claim.get("host") == os.uname().nodename
    return here and process(int(claim.get("pid", 0))) is None


def await_end(jobs: RayJobs, name: str, timeout_s: float = END_S) -> None:
    """Waits until a driver that was told to end is gone; raises ClusterError if it is not."""
    deadline = time.monotonic() + timeout_s
    while (driver := jobs.find(name)) is not None and not driver.ended:
        if time.monotonic() > deadline:
            raise ClusterError(f"{name} did not end in {timeout_s:.0f} s at {jobs.cluster.address}")
        time.sleep(0.5)


def _created(folder: JobFolder) -> float | None:
    # Kept from the first submission: what is staged is then equal and not uploaded again.
    try:
        return float(folder.job()["created"])
    except (Missing, KeyError, TypeError, ValueError):
        return None


def _say_differences(folder: JobFolder, resolved: ResolvedJob, display: Display) -> None:
    try:
        old, new = folder.job().get("spec", {}), resolved.job.to_dict()
    except Missing:
        return  # Another submit has won the attempt and is about to write it.
    identity = set(resolved.job.identity_fields())
    changed = [name for name in new if name not in identity and old.get(name) != new[name]]
    if changed:
        display.say(
            f"{', '.join(changed)} differ from what runs; they apply when it is submitted again "
            "after it ended"
        )

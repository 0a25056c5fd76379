"""The idempotent submit: report a finished job, attach to a running one, else start or resume it.

The same protocol for a cluster, for `--local` and for ``colddiff.train``: they differ in the
``Runner`` alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from colddiff.errors import ColddiffError, Missing
from colddiff.jobs.follow import AttemptWatch, follow, poll_seconds
from colddiff.jobs.listing.comparable import done_by_another_name
from colddiff.jobs.results import (
    advise,
    is_told,
    log_result,
    log_verdict,
    tell_of_less,
    tell_of_other_evaluation,
)
from colddiff.jobs.status import (
    AGAIN,
    EXIT_CODES,
    INTERRUPTED,
    Status,
    extent_line,
    verdict_line,
)
from colddiff.jobs.verb import VERBS, unit_of
from colddiff.machine.processes import this_process
from colddiff.tracking.open import deliver_late

if TYPE_CHECKING:
    from colddiff.jobs.folder import JobFolder
    from colddiff.jobs.job import Job
    from colddiff.jobs.resolve import ResolvedJob
    from colddiff.jobs.runner import Runner

log = logging.getLogger(__name__)
Show = Callable[[Status], None]

QUIET_S = 5.0
"""How long an attempt is watched for a sign of life before a line says so."""


@dataclass(frozen=True, slots=True)
class Submission:
    """How a submitted job ended, or its state when the client detached."""

    id: str
    state: str
    exit_code: int
    attempt: int
    folder: str
    result: str | None
    """Address of ``result.json``, if there is one."""
    message: str = ""


def bring_to_end(
    resolved: ResolvedJob,
    runner: Runner,
    *,
    show: Show = lambda status: None,
    detach: bool = False,
    announce: Callable[[str], None] = lambda job_id: None,
) -> Submission:
    """Idempotent submit: reports a finished job, attaches to a running one, else runs an attempt.

    Args:
        resolved: the job.
        runner: where an attempt runs, if one is started.
        show: called with the job's status while it is followed.
        detach: return as soon as an attempt is running.
        announce: called once with the job id, as soon as it is certain that the job runs, or ran.

    Raises ClusterError, StoreError. An interrupt ends with exit code 130; if the runner outlives
    its client the job keeps running, else it has ended as stopped.
    """
    finished = report_if_done(resolved, announce)
    if finished is not None:
        return finished
    folder = resolved.folder
    status = folder.status()
    # Read once: a later read could see an attempt that another client has claimed since.
    newest = newest_attempt(folder, status)
    claiming, ours = False, False
    try:
        attempt = _running_attempt(folder, status, newest, runner, show)
        claiming = attempt is None
        if attempt is None:
            resolved = _fitted(resolved, runner, resumed=newest > 0)
            tell_of_less(resolved, status)
            attempt = newest + 1
            ours = claim_attempt(folder, resolved, status, attempt, runner)
        if ours:
            _start(folder, resolved, attempt, runner, announce)
            if runner.outlives_client:
                log.info("%s: attempt %d submitted to %s", resolved.id, attempt, runner.where)
                # While its driver starts: counting what a network costs takes an import of torch.
                advise(resolved, runner)
        else:
            where = running_where(folder.read_claim(attempt))
            log.info("%s is already running (attempt %d, %s)", resolved.id, attempt, where)
            _log_differences(folder, resolved)
            announce(resolved.id)
        if detach:
            log.info("detached; `colddiff logs %s -f` follows it", resolved.id)
            return replace(submission_of(folder, folder.status()), exit_code=0)
        if ours and not runner.outlives_client:
            return _ended_here(folder, attempt)
        status = follow(folder, attempt, runner, show)
    except KeyboardInterrupt:
        if claiming:
            _withdraw(folder, newest + 1)
        return _interrupted(folder, newest + 1 if claiming else None)
    log_verdict(folder, status)
    return submission_of(folder, status)


def followed(folder: JobFolder, attempt: int, runner: Runner | None, show: Show) -> Submission:
    """Follows an attempt until it ends; an interrupt stops the following, not the job."""
    try:
        status = follow(folder, attempt, runner, show)
    except KeyboardInterrupt:
        return _interrupted(folder)
    log_verdict(folder, status)
    return submission_of(folder, status)


def report_if_done(
    resolved: ResolvedJob, announce: Callable[[str], None] = lambda job_id: None
) -> Submission | None:
    """Reports a job that is done, or was stopped beyond what is requested; None for any other.

    No cluster is needed for it. Delivers what is spooled for a tracker that was down.
    """
    folder = resolved.folder
    status = folder.status()
    if status is not None and status.finished:
        folder.settle_here(resolved.tracking_uri)
    if status is None:
        return None
    done = is_done(resolved, folder, status)
    if not done and not _is_beyond(resolved, folder, status):
        return None
    announce(resolved.id)
    extent = extent_line(status, unit_of(resolved.id))
    log.info("%s %s (%s)", resolved.id, "is done" if done else "was stopped", extent)
    tell_of_less(resolved, status)
    if not done:
        return submission_of(folder, status)
    within = (folder.result() or {}).get("jobs", [])
    deliver_late(resolved.storage, resolved.tracking_uri, resolved.id, *within)
    log_result(folder)
    tell_of_other_evaluation(resolved, folder)
    return submission_of(folder, status)


def submission_of(folder: JobFolder, status: Status | None) -> Submission:
    """The submission of a job in state ``status``, with its exit code (0 while it runs)."""
    status = status or Status()
    key = folder.key("result.json")
    has_result = folder.store.size(key) is not None
    return Submission(
        id=folder.job_id,
        state=status.state,
        exit_code=EXIT_CODES.get(status.state, 0),
        attempt=status.attempt,
        folder=folder.uri,
        result=f"{folder.store.uri}/{key}" if has_result else None,
        message=status.message,
    )


def is_done(resolved: ResolvedJob, folder: JobFolder, status: Status) -> bool:
    """Whether nothing is left to do: the job covers all that is requested, and outputs exist."""
    result = folder.result()
    covered = result is not None and is_covered(status, resolved.job, result)
    return covered and VERBS[resolved.verb].outputs_exist(resolved)


def is_covered(status: Status, job: Job, result: Mapping[str, Any] | None = None) -> bool:
    """Whether a finished job covers what ``job`` requests; a larger extent would extend it."""
    reached = status.state == "done" and status.step >= VERBS[job.verb].requested_extent(job)
    return reached and job.covered_by(result or {})


def running_where(claim: Mapping[str, Any]) -> str:
    """Where the attempt of a claim runs, for a message; another client may have another cluster."""
    host = claim.get("host") or "a machine that its claim does not name"
    if not claim.get("address"):
        return f"in process {claim.get('pid', '?')} on {host}"
    of = f", the local one of {host}" if claim.get("local") else ""
    return f"on the cluster at {claim['address']}{of}"


def newest_attempt(folder: JobFolder, status: Status | None) -> int:
    """Number of the newest claimed attempt; 0 before the first."""
    return max([*folder.attempts(), status.attempt if status else 0])


def claim_attempt(
    folder: JobFolder,
    resolved: ResolvedJob,
    status: Status | None,
    attempt: int,
    runner: Runner,
) -> bool:
    """Claims ``attempt`` by a conditional write; False if another client claimed it first.

    The winner writes the job and its queued status. Running time and GPU hours of earlier attempts
    (``status``) are carried over.
    """
    # Commands on submitted jobs need this module, and none of the jobs' classes.
    from colddiff.jobs.resolve import record_job

    claim = runner.claim()
    if not folder.claim(attempt, claim):
        return False
    record_job(replace(resolved, created=_created(folder) or resolved.created), folder)
    folder.write_status(
        replace(
            status or Status(),
            state="queued",
            attempt=attempt,
            num_steps=VERBS[resolved.verb].requested_extent(resolved.job),
            heartbeat=time.time(),
            loss=None,
            images_per_s=None,
            eta_s=None,
            phase="queued",
            message="",
            host="",
            pid=0,
            user=claim.get("user") or "",
        )
    )
    return True


def _fitted(resolved: ResolvedJob, runner: Runner, *, resumed: bool) -> ResolvedJob:
    # Commands on submitted jobs need this module, and none of the jobs' classes.
    from colddiff.jobs.segments.room import fitted

    if not resumed and is_told() and (line := done_by_another_name(resolved.folder)):
        log.info("%s", line)
    return fitted(resolved, runner, resumed=resumed)


def _is_beyond(resolved: ResolvedJob, folder: JobFolder, status: Status) -> bool:
    """Whether a job was stopped after more than is requested. Of a failed one less may be kept."""
    verb, newest = VERBS[resolved.verb], newest_attempt(folder, status)
    stopped = bool(verb.extent) and status.state == "stopped" and status.attempt == newest
    return stopped and 0 < verb.requested_extent(resolved.job) < status.step


def _start(
    folder: JobFolder,
    resolved: ResolvedJob,
    attempt: int,
    runner: Runner,
    announce: Callable[[str], None],
) -> None:
    # With the time of the first submission: staged content is then equal, and not uploaded again.
    recorded = replace(resolved, created=_created(folder) or resolved.created)
    try:
        runner.start(recorded, attempt, lambda: announce(resolved.id))
    except ColddiffError as error:
        status = folder.status()
        if status is not None and status.attempt == attempt and status.state == "queued":
            message = f"not submitted: {error}"
            folder.write_status(replace(status, state="failed", message=message))
        raise


def _ended_here(folder: JobFolder, attempt: int) -> Submission:
    """How ``attempt`` ended in this process; it fails if a later one has taken its place."""
    ended = submission_of(folder, folder.status())
    if ended.attempt == attempt:
        return ended
    message = (
        f"attempt {attempt} of {ended.id} was superseded by attempt {ended.attempt}, which is "
        f"{ended.state}; the same command attaches to it"
    )
    log.info("%s", message)
    return replace(ended, exit_code=ColddiffError.exit_code, message=message)


def _withdraw(folder: JobFolder, attempt: int) -> None:
    """Ends ``attempt`` as stopped if this process claimed it and no driver has started it.

    A driver that starts later finds that, and does not begin.
    """
    claim, own = folder.read_claim(attempt), this_process()
    status = folder.status()
    if any(claim.get(name) != value for name, value in own.items()):
        return
    if status is not None and (status.attempt, status.state) == (attempt, "queued"):
        message = f"interrupted before it was started; {AGAIN}"
        folder.write_status(replace(status, state="stopped", phase="", message=message))


def _interrupted(folder: JobFolder, claiming: int | None = None) -> Submission:
    """What an interrupt leaves; ``claiming``: the attempt that was about to be submitted."""
    job_id, status = folder.job_id, folder.status()
    if claiming is not None and (status is None or status.attempt < claiming):
        log.info("%s: interrupted before it was submitted; %s", job_id, AGAIN)
    elif status is not None and status.finished:
        log.info("%s", _ended_line(job_id, status))
    else:
        log.info(
            "interrupted; the job continues: `colddiff logs %s -f` follows it, "
            "`colddiff stop %s` ends it",
            job_id,
            job_id,
        )
    return replace(submission_of(folder, status), exit_code=INTERRUPTED)


def _ended_line(job_id: str, status: Status) -> str:
    if status.message:
        return f"{job_id}: {status.message}"
    return verdict_line(job_id, status, unit_of(job_id))


def _running_attempt(
    folder: JobFolder, status: Status | None, newest: int, runner: Runner, show: Show
) -> int | None:
    """The attempt that lives, or None; a driver that runs without a heartbeat is ended first.

    Returns as soon as its heartbeat has changed, which takes about a second.
    """
    if newest == 0 or (status is not None and status.settled and status.attempt >= newest):
        return None
    watch, told = AttemptWatch(folder, newest, runner), False
    while True:
        seen = watch.look()
        attempt = seen.status.attempt
        if seen.judged:
            log.info("%s: attempt %d lost its driver; resuming", folder.job_id, attempt)
            return None
        # It has ended by itself meanwhile, or beats, or its cluster has it queued.
        if seen.ended or seen.beats or (seen.alive and seen.status.state == "queued"):
            return attempt
        if seen.hangs:
            # It would hold the resources that the next attempt waits for.
            log.info("%s: ending attempt %d, which stopped responding", folder.job_id, attempt)
            runner.stop(folder, attempt)
            return None
        if seen.silent_s > QUIET_S and not told:
            told = True
            log.info("%s: watching attempt %d for a sign of life", folder.job_id, attempt)
        show(seen.status)
        time.sleep(poll_seconds(folder))


def _created(folder: JobFolder) -> float | None:
    try:
        return float(folder.job()["created"])
    except (Missing, KeyError, TypeError, ValueError):
        return None


def _log_differences(folder: JobFolder, resolved: ResolvedJob) -> None:
    try:
        old, new = folder.job().get("spec", {}), resolved.job.to_dict()
    except Missing:
        return  # Another client has claimed the attempt and is about to write the job.
    identity = set(resolved.job.identity_fields())
    changed = [
        name for name in new if name not in identity and not _agrees(old.get(name), new[name])
    ]
    if changed:
        log.info(
            "%s: different in the running attempt; `colddiff stop %s` and the same command again "
            "apply what you ask for",
            *(", ".join(changed), folder.job_id),
        )


def _agrees(old: Any, new: Any) -> bool:
    """Whether two fields are equal; ``auto`` is whatever the running attempt was given."""
    if isinstance(old, dict) and isinstance(new, dict):
        auto = {"gpus": old.get("gpus")} if new.get("gpus") == "auto" else {}
        wanted = {**new, **auto}
        return old.keys() == new.keys() and all(_agrees(old[name], wanted[name]) for name in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_agrees, old, new))
    return bool(old == new)

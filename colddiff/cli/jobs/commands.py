"""`colddiff status | logs | stop | wait`: jobs that were submitted, by their ids."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from colddiff.cli.live_line import live_line
from colddiff.cli.options import Address, JobId, JobIds, Json, Storage
from colddiff.cli.output import emit, emit_json, note
from colddiff.errors import ERROR_LINE, ColddiffError, SpecError, printable
from colddiff.jobs.status import (
    INTERRUPTED,
    Status,
    progress_line,
    spent_line,
    verdict_line,
)
from colddiff.jobs.verb import unit_of
from colddiff.machine.wording import counted
from colddiff.tracking.open import has_spooled_entries

if TYPE_CHECKING:
    from colddiff.jobs.folder import JobFolder


T = TypeVar("T")


def status(
    job_ids: JobIds, address: Address = None, storage: Storage = None, as_json: Json = False
) -> None:
    """Show the status of a job, or of several."""
    from colddiff.cluster.operate import all_current

    folders = _found(job_ids, storage)
    current = dict(zip(folders, all_current(folders, address), strict=True))

    def show(folder: JobFolder) -> None:
        now = current[folder]
        if isinstance(now, ColddiffError):
            raise now
        _show_status(folder, now, as_json=as_json)

    each(folders, show)


def _show_status(folder: JobFolder, now: Status | None, *, as_json: bool) -> None:
    from colddiff.jobs.results import UNDELIVERED

    job_id, repeated = folder.job_id, folder.repeated_steps()
    if as_json:
        emit_json({**as_data(folder, now), "repeated_steps": sum(repeated)})
        return
    if now is None:
        emit(f"{job_id}: no attempt yet")
        return
    emit(f"{job_id}: {now.word}, attempt {now.attempt}")
    claim = _claim(folder, now)
    if now.user:
        host = claim.get("host")
        emit(f"  submitted by {now.user}{f' on {host}' if host else ''}")
    if made_from := _made_from(folder):
        emit(f"  {made_from}")
    emit(f"  {progress_line(now)}")
    emit(f"  {spent_line(now)}")
    if repeated:
        times = counted(len(repeated), "restart")
        emit(f"  {times} after a kill: {sum(repeated)} steps trained again")
    if now.message:
        emit(f"  {now.message}")
    for line in _told(folder, now):
        emit(f"  {line}".rstrip())
    if now.finished and now.state != "done" and claim.get("command"):
        emit(f"  again: {claim['command']}")
    emit(f"  {folder.uri}")
    # Of a job that is done its result says so.
    if now.finished and now.state != "done" and has_spooled_entries(folder.store, job_id):
        note(f"{job_id}: {UNDELIVERED.strip()}")


def logs(
    job_id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the log until the job ends.")
    ] = False,
    attempt: Annotated[int | None, typer.Option(help="Attempt; default: the newest.")] = None,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="What other libraries printed, which the log leaves out."),
    ] = False,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Print or follow the log of a job. Of one attempt, from its storage or its cluster."""
    from colddiff.cluster.logs import read_log, stream_log
    from colddiff.cluster.operate import find_job
    from colddiff.jobs.submit import newest_attempt

    folder = find_job(job_id, storage)
    number = newest_attempt(folder, folder.status()) if attempt is None else attempt
    if debug and follow:
        raise SpecError("--debug is written every minute, and not followed: leave out -f")
    if follow and not as_json:
        pieces = stream_log(folder, number, address)
    else:
        found = read_log(folder, number, address, debug=debug)
        if debug and not found:
            note(f"attempt {number} of {folder.job_id} has no debug log")
        pieces = iter([found])
    if as_json:
        text = next(pieces).decode(errors="replace")
        emit_json({"id": folder.job_id, "attempt": number, "log": text})
        return
    for piece in pieces:
        sys.stdout.write(printable(piece.decode(errors="replace")))
        sys.stdout.flush()


def stop(
    job_ids: JobIds,
    grace: Annotated[
        float,
        typer.Option("--grace", min=0, help="Seconds for a last checkpoint, then end by force."),
    ] = 60.0,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Stop jobs, each after a checkpoint. Submitting one again resumes from there."""
    from colddiff.cluster import operate

    def end(folder: JobFolder) -> None:
        with live_line(sys.stderr) as display:
            ended = operate.stop(folder, address, grace, display.show)
        job_id = folder.job_id
        line = verdict_line(job_id, ended, unit_of(job_id)) if ended else ""
        note(line or f"{job_id} was never started")
        if as_json:
            emit_json(as_data(folder, ended))

    folders = _found(job_ids, storage)
    for later in folders[1:]:  # all take their checkpoints at the same time
        with suppress(ColddiffError):  # said when it is its turn
            operate.request_stop(later, grace)
    each(folders, end)


def wait(
    job_ids: JobIds, address: Address = None, storage: Storage = None, as_json: Json = False
) -> None:
    """Wait until jobs have ended. Exit code: 0 all done, 1 one failed, 4 one stopped."""
    from colddiff.jobs.results import log_verdict, untold
    from colddiff.jobs.submit import followed, submission_of

    codes: list[int] = []

    def follow(folder: JobFolder) -> None:
        now = folder.status()
        with live_line(sys.stderr) as display, untold() if as_json else nullcontext():
            if now is not None and now.settled:
                log_verdict(folder, now)
                submission = submission_of(folder, now)
            else:
                from colddiff.cluster.connect import jobs_of

                jobs = jobs_of(folder, address)
                submission = followed(folder, now.attempt if now else 1, jobs, display.show)
        if as_json:
            emit_json(asdict(submission))
        if submission.exit_code == INTERRUPTED:
            raise typer.Exit(INTERRUPTED)
        codes.append(submission.exit_code)

    each(_found(job_ids, storage), follow)
    raise typer.Exit(1 if 1 in codes else max(codes))


def _found(names: Sequence[str], storage: str | None) -> list[JobFolder]:
    """The folder of each job, once; raises Missing before anything is done with any of them."""
    from colddiff.cluster.operate import find_job

    folders = [find_job(name, storage) for name in names]
    return list({folder.job_id: folder for folder in folders}.values())


def each(items: Sequence[T], act: Callable[[T], object]) -> None:
    """``act`` on each item; an error of one keeps no other from it. The last one is raised."""
    last: ColddiffError | None = None
    for item in items:
        try:
            act(item)
        except ColddiffError as error:
            if last is not None:
                note(f"{ERROR_LINE}{last}")
            last = error
    if last is not None:
        raise last


def as_data(folder: JobFolder, status: Status | None) -> dict[str, Any]:
    """A job as `--json` prints it."""
    from colddiff.jobs.submit import submission_of

    now = status or Status()
    return {**asdict(now), **asdict(submission_of(folder, status)), "user": now.user or None}


def _told(folder: JobFolder, status: Status) -> list[str]:
    """The result of a job that is done, or the newest result on the way of one that is not."""
    from colddiff.jobs.listing.job_table import metric_text
    from colddiff.jobs.results import told_lines

    if status.state == "done":
        result = folder.result()
        return told_lines(folder, result) if result else []
    if not status.finished:
        return folder.reports(status.attempt)[-1:] if status.reports else []
    reports = (folder.reports(number) for number in range(status.attempt, 0, -1))
    found = next(filter(None, reports), [])[-1:]
    if status.score is not None:
        found.append(f"best so far: {metric_text(status.score_metric, status.score)}")
    return found


def _claim(folder: JobFolder, status: Status) -> Mapping[str, Any]:
    """Who took the newest attempt, and by which command, as far as its record can be read."""
    try:
        return folder.read_claim(status.attempt)
    except ColddiffError:
        return {}  # a damaged record hides no status


def _made_from(folder: JobFolder) -> str:
    """The checkpoint or samples of a job, which its id does not say; empty if it needs none."""
    from colddiff.jobs.listing.job_table import made_from
    from colddiff.report.differences import differences_text

    try:
        spec = folder.job().get("spec") or {}
    except ColddiffError:
        return ""  # not written yet, or damaged, which hides no status
    return differences_text(made_from(spec))

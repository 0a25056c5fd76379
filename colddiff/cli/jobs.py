"""`colddiff list | status | logs | stop | wait | delete`: commands for submitted jobs."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colddiff.cli.live_line import live_line
from colddiff.cli.options import Address, JobId, Json, Storage
from colddiff.cli.output import emit, emit_json, emit_table, note, printable
from colddiff.jobs.status import Status, duration, progress_line, spent_line, verdict_line
from colddiff.jobs.verb import unit_of
from colddiff.stores.open import open_store, storage_at
from colddiff.tracking.open import has_spooled_entries

if TYPE_CHECKING:
    from colddiff.jobs.folder import JobFolder


def list_(address: Address = None, storage: Storage = None, as_json: Json = False) -> None:
    """List the jobs in a storage, newest last."""
    from colddiff.cluster.operate import all_current
    from colddiff.errors import ColddiffError, Unreachable
    from colddiff.jobs.folder import JobFolder, list_jobs

    store = open_store(storage_at(storage))
    jobs: list[tuple[JobFolder, Status | None]] = []
    folders = [JobFolder(store, job_id) for job_id in list_jobs(store)]
    for folder, found in zip(folders, all_current(folders, address), strict=True):
        if isinstance(found, Unreachable):
            raise found
        if isinstance(found, ColddiffError):
            note(str(found))  # a damaged file of one job hides no other
        else:
            jobs.append((folder, found))
    jobs.sort(key=lambda item: item[1].heartbeat if item[1] else 0.0)
    if as_json:
        emit_json([_as_data(folder, status) for folder, status in jobs])
        return
    if not jobs:
        note(f"no jobs in {store.uri}")
        return
    now = time.time()
    rows = [
        (
            folder.job_id,
            status.state if status else "-",
            _progress(folder.job_id, status) if status and status.num_steps else "-",
            _last_seen(status, now),
            _first_line(status.message) if status else "",
        )
        for folder, status in jobs
    ]
    emit_table(("ID", "STATE", "PROGRESS", "LAST SEEN", ""), rows)


def status(
    job_id: JobId, address: Address = None, storage: Storage = None, as_json: Json = False
) -> None:
    """Show the status of a job."""
    from colddiff.cluster.operate import current, find_job

    folder = find_job(job_id, storage)
    now = current(folder, address)
    if as_json:
        emit_json(_as_data(folder, now))
        return
    if now is None:
        emit(f"{job_id}: no attempt yet")
        return
    emit(f"{job_id}: {now.state}, attempt {now.attempt}")
    emit(f"  {progress_line(now)}")
    emit(f"  {spent_line(now)}")
    if now.message:
        emit(f"  {now.message}")
    emit(f"  {folder.uri}")
    if now.finished and has_spooled_entries(folder.store, job_id):
        note(
            f"{job_id}: some tracking entries are not delivered yet, as the tracker was down; "
            "submit the job again once it is up to deliver them"
        )


def logs(
    job_id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the log until the job ends.")
    ] = False,
    attempt: Annotated[int | None, typer.Option(help="Attempt; default: the newest.")] = None,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Print the log of an attempt, from the job's storage or its cluster."""
    from colddiff.cluster.logs import read_log, stream_log
    from colddiff.cluster.operate import find_job
    from colddiff.jobs.submit import newest_attempt

    folder = find_job(job_id, storage)
    number = newest_attempt(folder, folder.status()) if attempt is None else attempt
    if as_json:
        text = read_log(folder, number, address).decode(errors="replace")
        emit_json({"id": job_id, "attempt": number, "log": text})
        return
    pieces = stream_log(folder, number, address) if follow else [read_log(folder, number, address)]
    for piece in pieces:
        sys.stdout.write(printable(piece.decode(errors="replace")))
        sys.stdout.flush()


def stop(
    job_id: JobId,
    grace: Annotated[
        float,
        typer.Option("--grace", min=0, help="Seconds for a last checkpoint, then end by force."),
    ] = 60.0,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Stop a job after a checkpoint; submitting it again resumes from there."""
    from colddiff.cluster import operate

    folder = operate.find_job(job_id, storage)
    with live_line(sys.stderr) as display:
        ended = operate.stop(folder, address, grace, display.show)
    unit = unit_of(job_id)
    note(verdict_line(job_id, ended, unit) if ended else f"{job_id} was never started")
    if as_json:
        emit_json(_as_data(folder, ended))


def wait(
    job_id: JobId, address: Address = None, storage: Storage = None, as_json: Json = False
) -> None:
    """Wait until a job has ended; exit code: 0 done, 1 failed, 4 stopped."""
    from colddiff.cluster import operate
    from colddiff.jobs.submit import followed, submission_of

    folder = operate.find_job(job_id, storage)
    now = folder.status()
    if now is not None and now.settled:
        submission = submission_of(folder, now)
    else:
        jobs = operate.jobs_of(folder, address)
        with live_line(sys.stderr) as display:
            submission = followed(folder, now.attempt if now else 1, jobs, display.show)
    if as_json:
        emit_json(asdict(submission))
    raise typer.Exit(submission.exit_code)


def delete(
    job_id: JobId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Delete a job that has ended, with its checkpoints and logs."""
    from colddiff.cluster import operate
    from colddiff.errors import SpecError

    folder = operate.find_job(job_id, storage)
    if not yes:
        if not sys.stdin.isatty():
            raise SpecError(f"delete {job_id}: add --yes, as stdin is not a terminal")
        typer.confirm(f"delete {folder.uri} with its checkpoints?", abort=True, err=True)
    count = operate.delete(folder)
    note(f"deleted {folder.uri} ({count} objects)")
    if as_json:
        emit_json({"id": job_id, "deleted": count})


def _as_data(folder: JobFolder, status: Status | None) -> dict[str, Any]:
    from colddiff.jobs.submit import submission_of

    return {**asdict(status or Status()), **asdict(submission_of(folder, status))}


def _progress(job_id: str, status: Status) -> str:
    return f"{status.step}/{status.num_steps} {unit_of(job_id)}"


def _last_seen(status: Status | None, now: float) -> str:
    if status is None or not status.heartbeat:
        return "-"
    # By the driver's clock, which may be ahead of ours.
    return f"{duration(max(now - status.heartbeat, 0))} ago"


def _first_line(text: str) -> str:
    line = text.splitlines()[0] if text else ""
    return line if len(line) <= 80 else line[:79] + "…"

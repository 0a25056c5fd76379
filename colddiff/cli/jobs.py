"""`colddiff list | status | logs | stop | wait | delete`: commands for submitted jobs."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer

from colddiff.cli.live_line import live_line
from colddiff.cli.options import Address, JobId, JobIds, Json, Storage
from colddiff.cli.output import emit, emit_json, emit_table, note, terminal_width
from colddiff.errors import ERROR_LINE, ColddiffError, SpecError, printable
from colddiff.jobs.status import (
    INTERRUPTED,
    WAITING,
    State,
    Status,
    progress_line,
    spent_line,
    verdict_line,
)
from colddiff.jobs.verb import VERBS, unit_of
from colddiff.stores.open import open_store, storage_at
from colddiff.tracking.open import has_spooled_entries

if TYPE_CHECKING:
    from colddiff.jobs.folder import JobFolder
    from colddiff.jobs.listing.job_table import JobRow


T = TypeVar("T")
MOST_NAMED = 8
"""Jobs that a line names."""
LIMIT = 200
"""Jobs that a table shows where nothing else is asked for."""


All = Annotated[
    bool,
    typer.Option(
        "--all",
        help="Also the jobs that searches and studies run. --json always lists them, with the job "
        "that runs each as `part_of`.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        metavar="N",
        min=0,
        help="At most N jobs, the newest or the first of the order; 0: all. "
        f"Default: {LIMIT}, with --json all.",
    ),
]


def list_(
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state", metavar="STATE", help="Only jobs in this state; repeat it for several."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="TEXT",
            help="Only jobs whose name or id has this, or fits this pattern: 'deblur-*'.",
        ),
    ] = None,
    sort: Annotated[
        str, typer.Option("--sort", metavar="KEY", help="created, seen, name, state or best.")
    ] = "created",
    every: All = False,
    limit: Limit = None,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """List the jobs in a storage, the last submitted last, with what tells them apart."""
    from colddiff.cluster.listing import current_rows
    from colddiff.jobs.listing import job_table
    from colddiff.jobs.listing.comparable import compare_line

    _refuse_unknown("--state", state or (), (*get_args(State), WAITING))
    _refuse_unknown("--sort", [sort], job_table.SORTS)
    store = open_store(storage_at(storage))
    found, problems = current_rows(store, address)
    for line in problems:
        note(line)
    rows = job_table.in_order(job_table.chosen(found, state or (), name), sort)
    ids = {row.folder.job_id for row in found}
    apart = rows if every or as_json else job_table.submitted(rows, ids)
    if limit is None:
        limit = 0 if as_json else LIMIT
    shown, more = job_table.page(apart, sort, limit)
    if more:
        note(f"{more} more; --limit 0 shows all, --state and --name choose among them")
    if as_json:
        with ThreadPoolExecutor(job_table.READERS) as pool:
            emit_json(list(pool.map(_row_as_data, shown)))
        return
    if shown:
        _print(shown)
    elif not rows:
        note(f"no {'such ' * (len(found) > 0)}jobs in {store.uri}")
    if compare := compare_line(shown):
        note(compare)
    if hidden := len(rows) - len(apart):
        note(f"{hidden} job{'s' * (hidden != 1)} of searches and studies not shown: --all")


def _refuse_unknown(option: str, given: Sequence[str], known: Sequence[str]) -> None:
    for word in given:
        if word not in known:
            from colddiff.errors import SpecError
            from colddiff.spec.base import nearest

            offered = ", ".join(known)
            raise SpecError(f"{option} {word}: not one of {offered}{nearest(word, known)}")


def _print(rows: Sequence[JobRow]) -> None:
    from colddiff.jobs.listing.job_table import table_of

    # Who reads a file or a pipe, such as grep, has room for whole reasons.
    emit_table(*table_of(rows, time.time(), cut=terminal_width() is not None))


def _row_as_data(row: JobRow) -> dict[str, Any]:
    from colddiff.jobs.listing.job_table import made_from

    best = None if row.score is None else {"metric": row.score[0], "value": row.score[1]}
    more = {"name": row.name, "verb": row.verb, "differs": row.differs, "best": best}
    more |= {"part_of": row.part_of, "of": made_from(row.job.get("spec") or {})}
    return {**more, **_as_data(row.folder, row.status)}


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

    _each(folders, show)


def _show_status(folder: JobFolder, now: Status | None, *, as_json: bool) -> None:
    job_id, repeated = folder.job_id, folder.repeated_steps()
    if as_json:
        emit_json({**_as_data(folder, now), "repeated_steps": sum(repeated)})
        return
    if now is None:
        emit(f"{job_id}: no attempt yet")
        return
    emit(f"{job_id}: {now.word}, attempt {now.attempt}")
    if made_from := _made_from(folder):
        emit(f"  {made_from}")
    emit(f"  {progress_line(now)}")
    emit(f"  {spent_line(now)}")
    if repeated:
        times = f"{len(repeated)} restart{'s' * (len(repeated) > 1)}"
        emit(f"  {times} after a kill: {sum(repeated)} steps trained again")
    if now.message:
        emit(f"  {now.message}")
    for line in _told(folder, now):
        emit(f"  {line}".rstrip())
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
    debug: Annotated[
        bool,
        typer.Option("--debug", help="What other libraries printed, which the log leaves out."),
    ] = False,
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
        emit_json({"id": job_id, "attempt": number, "log": text})
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
    """Stop jobs after a checkpoint; submitting one again resumes from there."""
    from colddiff.cluster import operate

    def end(folder: JobFolder) -> None:
        with live_line(sys.stderr) as display:
            ended = operate.stop(folder, address, grace, display.show)
        job_id = folder.job_id
        line = verdict_line(job_id, ended, unit_of(job_id)) if ended else ""
        note(line or f"{job_id} was never started")
        if as_json:
            emit_json(_as_data(folder, ended))

    folders = _found(job_ids, storage)
    for later in folders[1:]:  # all take their checkpoints at the same time
        with suppress(ColddiffError):  # said when it is its turn
            operate.request_stop(later, grace)
    _each(folders, end)


def wait(
    job_ids: JobIds, address: Address = None, storage: Storage = None, as_json: Json = False
) -> None:
    """Wait until jobs have ended; exit code: 0 all done, 1 one failed, 4 one stopped."""
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

    _each(_found(job_ids, storage), follow)
    raise typer.Exit(1 if 1 in codes else max(codes))


def delete(
    job_ids: JobIds,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Delete jobs that have ended, with their checkpoints and logs."""
    ids = list(dict.fromkeys(job_ids))
    _each(ids, lambda job_id: _delete(job_id, storage, yes, as_json, ids))


def _delete(
    job_id: str, storage: str | None, yes: bool, as_json: bool, together: Sequence[str]
) -> None:
    from colddiff.cluster import operate
    from colddiff.cluster.listing import jobs_made_from
    from colddiff.errors import Missing

    try:
        folder = operate.find_job(job_id, storage)
    except Missing:
        if not operate.delete_remains(job_id, storage):
            raise
        note(f"deleted empty folders that were left of {job_id}")
        if as_json:
            emit_json({"id": job_id, "deleted": 0})
        return
    operate.refuse_unless_ended(folder)
    users = [user for user in jobs_made_from(folder) if user not in together]
    if users:
        some = ", ".join(users[:MOST_NAMED]) + ", ..." * (len(users) > MOST_NAMED)
        note(f"made from {job_id}, and without it once it is deleted: {some}")
    if not yes:
        if not sys.stdin.isatty():
            raise SpecError(f"delete {job_id}: add --yes, as stdin is not a terminal")
        typer.confirm(f"delete {folder.uri} with its checkpoints?", abort=True, err=True)
    left = _left_behind(folder)
    count = operate.delete(folder)
    note(f"deleted {folder.uri} ({count} objects)")
    if left is not None:
        command = "aws s3 rm --recursive" if "://" in left else "rm -r"
        way = f"`{command} {shlex.quote(left)}` deletes it, if nobody needs it"
        note(f"what the job made is still in {left}: {way}")
    if as_json:
        emit_json({"id": job_id, "deleted": count, "left": left, "made_from_it": users})


def _found(job_ids: Sequence[str], storage: str | None) -> list[JobFolder]:
    """The folder of each job, once; raises Missing before anything is done with any of them."""
    from colddiff.cluster.operate import find_job

    return [find_job(job_id, storage) for job_id in dict.fromkeys(job_ids)]


def _each(items: Sequence[T], act: Callable[[T], object]) -> None:
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


def _left_behind(folder: JobFolder) -> str | None:
    """Where a job's work stays when it is deleted, as far as its record can be read."""
    verb = VERBS.get(folder.job_id.partition("-")[0])
    try:
        return verb.left_behind(folder) if verb else None
    except ColddiffError:
        return None  # a damaged record or a store that is gone keeps no job from being deleted


def _as_data(folder: JobFolder, status: Status | None) -> dict[str, Any]:
    from colddiff.jobs.submit import submission_of

    return {**asdict(status or Status()), **asdict(submission_of(folder, status))}


def _told(folder: JobFolder, status: Status) -> list[str]:
    """The result of a job that is done, or the newest result on the way of one that is not."""
    from colddiff.jobs.results import told_lines

    if status.state == "done":
        result = folder.result()
        return told_lines(folder, result) if result else []
    return folder.reports(status.attempt)[-1:] if status.reports else []


def _made_from(folder: JobFolder) -> str:
    """The checkpoint or samples of a job, which its id does not say; empty if it needs none."""
    from colddiff.jobs.listing.job_table import made_from
    from colddiff.report.differences import differences_text

    try:
        spec = folder.job().get("spec") or {}
    except ColddiffError:
        return ""  # not written yet, or damaged, which hides no status
    return differences_text(made_from(spec))

"""`colddiff delete`: jobs that have ended, with all that they keep in their storage."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from colddiff.cli.jobs.commands import each
from colddiff.cli.options import Address, JobIds, Json, Storage
from colddiff.cli.output import emit_json, note
from colddiff.errors import ColddiffError, SpecError
from colddiff.jobs.verb import VERBS

if TYPE_CHECKING:
    from colddiff.jobs.folder import JobFolder

MOST_NAMED = 8
"""Jobs that a line names."""


def delete(
    job_ids: JobIds,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Delete jobs that have ended, with their checkpoints and logs."""
    ids = list(dict.fromkeys(job_ids))
    each(ids, lambda job_id: _delete(job_id, storage, yes, as_json, ids))


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


def _left_behind(folder: JobFolder) -> str | None:
    """Where a job's work stays when it is deleted, as far as its record can be read."""
    verb = VERBS.get(folder.job_id.partition("-")[0])
    try:
        return verb.left_behind(folder) if verb else None
    except ColddiffError:
        return None  # a damaged record or a store that is gone keeps no job from being deleted

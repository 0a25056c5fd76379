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
from colddiff.errors import ColddiffError, Missing, SpecError
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
    """Delete jobs that have ended. Their checkpoints and logs go with them."""
    # All before the first is deleted, after which the beginning of its id might be another's.
    found = dict(_named(name, storage) for name in job_ids)

    def end(job_id: str) -> None:
        named = found[job_id]
        if isinstance(named, ColddiffError):
            _delete_remains(job_id, storage, named, as_json=as_json)
        else:
            _delete(named, list(found), yes=yes, as_json=as_json)

    each(list(found), end)


def _named(name: str, storage: str | None) -> tuple[str, JobFolder | ColddiffError]:
    """The id and folder of a job, or the error that is to be said when it is its turn.

    Raises SpecError for a beginning that does not tell surely which job is meant.
    """
    from colddiff.cluster.operate import find_job
    from colddiff.jobs.folder import JobFolder
    from colddiff.stores.open import open_store, storage_at

    try:
        folder = find_job(name, storage, surely=True)
    except SpecError:
        raise
    except Missing as error:
        # Its record is gone; what is there is named by its whole id alone.
        folder = JobFolder(open_store(storage_at(storage)), name)
        there = any(folder.store.list(folder.key("")))
        return name, folder if there else error
    except ColddiffError as error:
        return name, error
    return folder.job_id, folder


def _delete_remains(
    job_id: str, storage: str | None, error: ColddiffError, *, as_json: bool
) -> None:
    """What is left of a job without records; raises ``error`` where there is nothing."""
    from colddiff.cluster.operate import delete_remains

    if not (isinstance(error, Missing) and delete_remains(job_id, storage)):
        raise error
    note(f"deleted empty folders that were left of {job_id}")
    if as_json:
        emit_json({"id": job_id, "deleted": 0})


def _delete(folder: JobFolder, together: Sequence[str], *, yes: bool, as_json: bool) -> None:
    from colddiff.cluster import operate
    from colddiff.cluster.listing import jobs_that_name

    job_id = folder.job_id
    operate.refuse_unless_ended(folder)
    users, parts = (
        [one for one in found if one not in together] for found in jobs_that_name(folder)
    )
    if users:
        note(f"made from {job_id}, and without it once it is deleted: {_some(users)}")
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
    if parts:
        stay = "job that it ran stays" if len(parts) == 1 else "jobs that it ran stay"
        note(f"the {len(parts)} {stay}, in `colddiff list --all`: {_some(parts)}")
    if as_json:
        emit_json(
            {"id": job_id, "deleted": count, "left": left, "made_from_it": users, "ran": parts}
        )


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:MOST_NAMED]) + ", ..." * (len(ids) > MOST_NAMED)


def _left_behind(folder: JobFolder) -> str | None:
    """Where a job's work stays when it is deleted, as far as its record can be read."""
    verb = VERBS.get(folder.job_id.partition("-")[0])
    try:
        return verb.left_behind(folder) if verb else None
    except ColddiffError:
        return None  # a damaged record or a store that is gone keeps no job from being deleted

"""The job that a person names: by its id, or by the beginning of one id alone, as in git."""

from __future__ import annotations

from colddiff.errors import Missing, SpecError
from colddiff.jobs.folder import JobFolder, list_jobs
from colddiff.jobs.listing.ids import JOB_ID, hash_of
from colddiff.ports import Store
from colddiff.spec.documents import shown

MOST_NAMED = 5
"""Ids that an ambiguous beginning is answered with."""
SURE = 6
"""Characters behind the verb that name a job well enough to delete it."""


def find_job(store: Store, name: str, *, surely: bool = False) -> JobFolder:
    """The folder of the job whose id is ``name``, else of the only one whose id begins with it.

    A job of that very id costs no listing of ``store``, any other costs one.

    Args:
        store: a STORAGE.
        name: an id, or its beginning.
        surely: for what cannot be undone. A beginning must have SURE characters behind the verb,
            and not look like a whole id, as that of a job which is deleted already does.

    Raises:
        Missing: no such job, with the nearest id.
        SpecError: no id at all; a beginning of several ids; one that is too short.
        RecordError: its ``job.json`` is damaged.
    """
    _check(name)
    folder = JobFolder(store, name)
    try:
        folder.job()
    except Missing as missing:
        folder = JobFolder(store, _only(store, name, missing, surely=surely))
        try:
            folder.job()
        except Missing:
            raise Missing(
                f"{folder.uri} lacks its job.json: put it back, or delete what is left by "
                f"`colddiff delete {folder.job_id}`"
            ) from None
    return folder


def whole_id(store: Store, name: str) -> str:
    """As ``find_job``, the id alone; no record of the job is read, which may be damaged."""
    _check(name)
    folder = JobFolder(store, name)
    if store.size(folder.key("job.json")) is not None:
        return name
    return _only(store, name, folder.missing(), surely=False)


def _check(name: str) -> None:
    if JOB_ID.fullmatch(name) is None:
        raise SpecError(f"{shown(name)} is not a job id; see `colddiff list`")


def _only(store: Store, name: str, missing: Missing, *, surely: bool) -> str:
    ids = list_jobs(store)
    if name in ids:
        return name  # of which there is no record, but perhaps a copy of its checkpoints
    begun = [job_id for job_id in ids if job_id.startswith(name)]
    if not begun:
        # Heavy, and an id that is there needs none of it.
        from colddiff.spec.base import nearest

        raise Missing(f"{missing}{nearest(name, ids)}")
    if len(begun) > 1:
        more = f" and {len(begun) - MOST_NAMED} more" if len(begun) > MOST_NAMED else ""
        raise SpecError(
            f"{name}: the ids of {len(begun)} jobs begin with it: "
            f"{', '.join(begun[:MOST_NAMED])}{more}; write more of the one that is meant"
        )
    (found,) = begun
    behind = name.partition("-")[2]
    if surely and (len(behind) < SURE or hash_of(name)):
        why = f"it has fewer than {SURE} characters behind the verb; write more of it"
        if hash_of(name):
            why = "it looks like the whole id of another job; write all of it"
        raise SpecError(f"{name}: {found} alone begins with it, but {why}")
    return found

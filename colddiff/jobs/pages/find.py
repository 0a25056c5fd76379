"""The jobs that a report names: ids, patterns, folders, URIs and MLflow runs."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from colddiff.errors import Missing, SpecError
from colddiff.jobs.folder import JobFolder, list_jobs
from colddiff.jobs.verb import VERBS
from colddiff.ports import Store
from colddiff.spec import nearest
from colddiff.stores.open import absolute, open_store

MLFLOW = "mlflow:"
WILD = "*?["
CHECKPOINT = re.compile(r"(?:/checkpoints/step_\d+/?)?(?:@(?:last|best|step=\d+))?$")
"""What a reference to a checkpoint has behind its job."""


def find_jobs(words: Sequence[str], storage: str) -> list[JobFolder]:
    """The folders of the jobs that ``words`` name, each once, in the order given.

    Args:
        words: job ids or patterns over them such as ``train-deblur-*``, in ``storage``; folders
            and URIs of jobs, such as ``s3://bucket/runs/jobs/ID``; ``mlflow:RUN_ID``. Of a
            reference to a checkpoint, such as ``ID@best``, its job. A study stands for its
            trainings.
        storage: a STORAGE address.

    Raises:
        SpecError: a word that names nothing, with the nearest id.
        CheckpointError, TrackerError: an MLflow run that is not there, or not that of a job.
    """
    store = open_store(storage)
    found: dict[str, JobFolder] = {}
    for word in words:
        for named in _named(word, store):
            found |= {folder.uri: folder for folder in reported(named) if folder.uri not in found}
    return list(found.values())


def reported(folder: JobFolder) -> list[JobFolder]:
    """The jobs whose numbers a report of the job in ``folder`` shows: its members, or itself.

    Members that have not begun yet are left out. Raises Missing if there is no such job.
    """
    verb = VERBS.get(str(folder.job()["verb"]))
    ids = verb.members(folder) if verb else ()
    begun = set(list_jobs(folder.store)) if ids else set()
    found = [JobFolder(folder.store, job_id) for job_id in ids if job_id in begun]
    return found or [folder]


def _named(word: str, store: Store) -> list[JobFolder]:
    word = CHECKPOINT.sub("", word)
    if word.startswith(MLFLOW):
        from colddiff.tracking.mlflow_lookup import job_of
        from colddiff.tracking.open import tracking_uri

        job_id, place = job_of(tracking_uri(store.uri), word.removeprefix(MLFLOW))
        return [_existing(JobFolder(open_store(place), job_id), word)]
    if "/" in word:
        place, _, job_id = absolute(word).rstrip("/").rpartition("/jobs/")
        if not place or "/" in job_id:
            raise SpecError(f"{word}: not the folder of a job, which is STORAGE/jobs/ID")
        return [_existing(JobFolder(open_store(place), job_id), word)]
    if any(letter in word for letter in WILD):
        ids = [job_id for job_id in list_jobs(store) if fnmatch.fnmatchcase(job_id, word)]
        if not ids:
            raise SpecError(f"{word}: no job of {store.uri} fits this pattern; see `colddiff list`")
        return [JobFolder(store, job_id) for job_id in ids]
    return [_existing(JobFolder(store, word), word)]


def _existing(folder: JobFolder, word: str) -> JobFolder:
    try:
        folder.job()
    except Missing:
        ids = list_jobs(folder.store)
        raise SpecError(
            f"{word}: no such job in {folder.store.uri}{nearest(folder.job_id, ids)}; see "
            "`colddiff list`, or name another --storage"
        ) from None
    return folder

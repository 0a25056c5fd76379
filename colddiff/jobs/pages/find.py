"""The jobs that a report names: ids, patterns, folders, URIs and MLflow runs."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from colddiff.errors import ColddiffError, Missing, SpecError
from colddiff.jobs.folder import JobFolder, list_jobs
from colddiff.jobs.listing.named import find_job
from colddiff.jobs.verb import VERBS
from colddiff.ports import Store
from colddiff.stores.open import absolute, open_store

MLFLOW = "mlflow:"
WILD = "*?["
CHECKPOINT = re.compile(
    r"(?:/checkpoints/step_(?P<folder>\d{1,18})/?)?"
    r"(?:@(?:last|(?P<best>best)|step=(?P<step>\d{1,18})))?$"
)
"""What a reference to a checkpoint has behind its job."""


@dataclass(frozen=True, slots=True)
class NamedJob:
    """A job to report, at its evaluation at ``step``, or at its latest where none is chosen."""

    folder: JobFolder
    step: int | None = None
    among: bool = False
    """Whether it is one of those that a pattern or a study stands for, and not named itself."""
    member_of: JobFolder | None = None
    """The study that stands for it."""


def find_jobs(words: Sequence[str], storage: str) -> list[NamedJob]:
    """The jobs that ``words`` name, each evaluation once, in the order given.

    Args:
        words: job ids, their beginnings or patterns over them such as ``train-deblur-*``, in
            ``storage``; folders and URIs of jobs, such as ``s3://bucket/runs/jobs/ID``;
            ``mlflow:RUN_ID``. A reference to a checkpoint, such as ``ID@best``, is its job at the
            evaluation of that checkpoint. A study stands for its trainings.
        storage: a STORAGE address.

    Raises:
        SpecError: a word that names nothing, with the nearest id; a step that was not evaluated.
        CheckpointError, TrackerError: an MLflow run that is not there, or not that of a job.
    """
    store = open_store(storage)
    found: list[NamedJob] = []
    for word in words:
        which = CHECKPOINT.search(word)
        for named in _named(word[: which.start()] if which else word, store):
            wild = any(letter in word for letter in WILD)
            for folder in _reported(named, wild=wild):
                step = _step(folder, which, word) if which else None
                among = wild or folder is not named
                of = named if folder is not named else None
                found.append(NamedJob(folder, step, among, of))
    return _each_once(found)


def _reported(folder: JobFolder, *, wild: bool) -> list[JobFolder]:
    """``reported``; a job whose record is damaged or gone, if a pattern meets it, is itself."""
    try:
        return reported(folder)
    except ColddiffError:
        if not wild:
            raise
        return [folder]


def _each_once(found: Sequence[NamedJob]) -> list[NamedJob]:
    """The evaluations, each once; the latest by its step where others of its job are among them."""
    chosen = {named.folder.uri for named in found if named.step is not None}
    once: dict[tuple[str, int | None], NamedJob] = {}
    for named in found:
        if named.step is None and named.folder.uri in chosen:
            steps = named.folder.evaluated_steps()
            named = replace(named, step=steps[-1] if steps else None)
        once.setdefault((named.folder.uri, named.step), named)
    return list(once.values())


def _step(folder: JobFolder, which: re.Match[str], word: str) -> int | None:
    """The evaluated step that ``which`` chooses; None for the latest, or without evaluations."""
    chosen = which["step"] or which["folder"]
    if not (chosen or which["best"]):
        return None
    if folder.job()["verb"] != "train":
        raise SpecError(
            f"{word}: {folder.job_id} has no checkpoints to choose from; name it without "
            f"{which.group()}"
        )
    steps = folder.evaluated_steps()
    if which["best"]:
        best = folder.best(set(steps))
        return best.step if best else None
    if int(chosen) in steps:
        return int(chosen)
    there = f"there are {', '.join(map(str, steps))}" if steps else "nor was any other"
    again = f"colddiff submit evaluate checkpoint={folder.job_id}@step={int(chosen)}"
    raise SpecError(
        f"{word}: step {int(chosen)} of {folder.job_id} was not evaluated; {there} (or `{again}`, "
        "and report that job)"
    )


def reported(folder: JobFolder) -> list[JobFolder]:
    """The jobs whose numbers a report of the job in ``folder`` shows: its members, or itself.

    Members that have not begun yet are left out. Raises Missing if there is no such job.
    """
    verb = VERBS.get(str(folder.job()["verb"]))
    ids = verb.members(folder) if verb else ()
    begun = set(list_jobs(folder.store)) if ids else set()
    found = [JobFolder(folder.store, job_id) for job_id in ids if job_id in begun]
    return found or [folder]


def notes_of(folder: JobFolder) -> Sequence[str]:
    """What to know of the numbers of those that ``reported`` returns, together."""
    verb = VERBS.get(folder.job_id.partition("-")[0])
    return verb.page_notes(folder) if verb else ()


def _named(word: str, store: Store) -> list[JobFolder]:
    unknown = word.rpartition("/")[2].partition("@")[2]
    if unknown:
        raise SpecError(f"{word}: unknown @{unknown}; @last, @best or @step=N")
    if word.startswith(MLFLOW):
        from colddiff.tracking.mlflow_lookup import job_of
        from colddiff.tracking.open import tracking_uri

        job_id, place = job_of(tracking_uri(store.uri), word.removeprefix(MLFLOW))
        return [_existing(open_store(place), job_id)]
    if "/" in word:
        place, _, job_id = absolute(word).rstrip("/").rpartition("/jobs/")
        if not place or "/" in job_id:
            raise SpecError(f"{word}: not the folder of a job, which is STORAGE/jobs/ID")
        return [_existing(open_store(place), job_id)]
    if any(letter in word for letter in WILD):
        ids = [job_id for job_id in list_jobs(store) if fnmatch.fnmatchcase(job_id, word)]
        if not ids:
            raise SpecError(f"{word}: no job of {store.uri} fits this pattern; see `colddiff list`")
        return [JobFolder(store, job_id) for job_id in ids]
    return [_existing(store, word)]


def _existing(store: Store, name: str) -> JobFolder:
    try:
        return find_job(store, name)
    except Missing as missing:
        raise SpecError(str(missing)) from None

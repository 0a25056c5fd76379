"""What nobody needs any more: of jobs at rest, of interrupted packings, of killed writes."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colddiff.checkpoints.kept import COMMIT, STEP, beyond_kept
from colddiff.cleanup.leftover import Ages, Leftover, leftover
from colddiff.cleanup.needed import Step, named_steps
from colddiff.cleanup.survey import SurveyedJob, run_by_others
from colddiff.cluster.stage import STAGED
from colddiff.data.manifest import KEY as PACKED
from colddiff.data.pack import CLAIM as PACKING
from colddiff.errors import RecordError
from colddiff.ports import Store, StoredObject
from colddiff.stores.local_store import LocalStore


@dataclass(frozen=True, slots=True)
class Found:
    """What `colddiff gc` would delete, and what it does not judge."""

    leftovers: list[Leftover]
    left_alone: list[str]
    """A line for each job that could hold more, with the reason."""


def find_leftovers(
    store: Store, jobs: list[SurveyedJob], ages: Ages, keep: int | None = None
) -> Found:
    """What may be deleted of ``store``; ``keep`` overrides that of every train job.

    Nothing is, of a job that is not at rest, that another job which is not runs, or that has
    changed lately; no checkpoint that is its job's last or best, or that any job names.
    """
    found: list[Leftover] = []
    left_alone = [f"{job.id}: {job.problem}" for job in jobs if job.problem]
    outer = run_by_others(jobs)
    # What a damaged record names is not known.
    needed = None if left_alone else named_steps(job.job or {} for job in jobs)
    if needed is None:
        left_alone.append("checkpoints: kept, as a damaged job may need them")
    for job in jobs:
        if not ages.old(job.objects) or job.problem or job.id in outer:
            continue
        if job.job is None:
            found += _without_record(job)
        elif job.at_rest:
            found += _attempts(job)
            try:
                found += _checkpoints(job, needed, keep)
            except RecordError as error:
                left_alone.append(f"{job.id}: {error}")
    found += [*_packings(store, ages), *_probes(store, ages), *_unfinished_writes(store, ages)]
    return Found(found, left_alone)


def _without_record(job: SurveyedJob) -> Iterator[Leftover]:
    """An attempt whose client died before it wrote what the job is, or one that outlived it."""
    below, status = job.folder.key("attempts/"), job.folder.key("status.json")
    if all(item.key.startswith(below) or item.key == status for item in job.objects):
        why = "claimed, but its job was never written"
        store = job.folder.store
        yield leftover("attempt", job.folder.key(), why, job.objects, store, job.id)


def _attempts(job: SurveyedJob) -> Iterator[Leftover]:
    """Earlier attempts that no driver has begun, and what Ray Train kept of killed ones."""
    assert job.status is not None
    store = job.folder.store
    by_attempt: dict[str, list[StoredObject]] = {}
    for item in job.below("attempts/"):
        number = item.key.removeprefix(job.folder.key("attempts/")).partition("/")[0]
        by_attempt.setdefault(number, []).append(item)
    for number, objects in by_attempt.items():
        names = {item.key.rpartition("/")[2] for item in objects}
        earlier = number.isdecimal() and int(number) < job.status.attempt
        if earlier and names <= {"claim.json", "stop.json"}:
            place = job.folder.key("attempts", number)
            yield leftover("attempt", place, "no driver has begun it", objects, store, job.id)
    if states := job.below("ray/"):
        why = "Ray's own state of workers that were killed"
        yield leftover("ray", job.folder.key("ray"), why, states, store, job.id)


def _checkpoints(
    job: SurveyedJob, needed: set[Step] | None, keep: int | None
) -> Iterator[Leftover]:
    """Uploads that never ended, and committed checkpoints beyond those that are kept."""
    prefix = job.folder.key("checkpoints/")
    folders: dict[int, list[StoredObject]] = {}
    for item in job.below("checkpoints/"):
        if match := STEP.match(item.key.removeprefix(prefix)):
            folders.setdefault(int(match.group(1)), []).append(item)
    steps = [n for n, items in folders.items() if any(_commits(item) for item in items)]
    spec: Mapping[str, Any] = (job.job or {}).get("spec") or {}
    beyond: set[int] = set()
    wanted = keep if keep is not None else spec.get("keep")
    if needed is not None and isinstance(wanted, int) and len(steps) > wanted >= 1:
        every = spec.get("evaluate_every") if spec.get("test_data") is not None else None
        beyond = set(beyond_kept(job.folder, steps, wanted, every))
        # The last that its own result names too, such as the one its numbers are of.
        own = named_steps([job.folder.result() or {}])
        beyond -= {step for of, step in needed | own if of == job.id}
    for step, objects in sorted(folders.items()):
        place, store = f"{prefix}step_{step:08d}", job.folder.store
        # The record that commits it goes first: what is left of it then is no checkpoint.
        objects = sorted(objects, key=lambda item: not _commits(item))
        if step not in steps:
            why = "a checkpoint whose upload never ended"
            yield leftover("upload", place, why, objects, store, job.id)
        elif step in beyond:
            why = f"beyond the newest {wanted}; not the best, and no job names it"
            yield leftover("checkpoint", place, why, objects, store, job.id)


def _commits(item: StoredObject) -> bool:
    return item.key.endswith(f"/{COMMIT}")


def _packings(store: Store, ages: Ages) -> Iterator[Leftover]:
    """Shards below ``data/`` of packings that were interrupted and not gone on with."""
    sets: dict[str, list[StoredObject]] = {}
    for item in store.list("data/"):
        sets.setdefault(item.key.rpartition("/")[0], []).append(item)
    for place, objects in sets.items():
        names = {item.key.rpartition("/")[2] for item in objects}
        if PACKING in names and PACKED not in names and ages.old(objects):
            why = "a packing that was interrupted; packing again goes on with it"
            ours = [item for item in objects if item.key.rpartition("/")[2].startswith("shard-")]
            claim = [item for item in objects if item.key == f"{place}/{PACKING}"]
            yield leftover("packing", place, why, [*ours, *claim], store)


def _probes(store: Store, ages: Ages) -> Iterator[Leftover]:
    probes = [item for item in store.list("probes/") if ages.old([item])]
    if probes:
        why = "written to see whether STORAGE can be, by commands that were killed"
        yield leftover("probe", "probes", why, probes, store)


def _unfinished_writes(store: Store, ages: Ages) -> Iterator[Leftover]:
    """On a disk: temporary files of writers that were killed. In S3 a write is one request."""
    if not isinstance(store, LocalStore):
        return
    for item in store.unfinished_writes():
        if ages.old([item]):
            yield leftover("temporary", item.key, "a write that was killed", [item], store)


def staged_here(older_than_s: float) -> Iterable[Leftover]:
    """On this machine: code and jobs staged by clients that were killed while they submitted."""
    place = Path(tempfile.gettempdir())
    store = LocalStore(place)
    # Nothing is written to ask for the time: other users' folders are there, too.
    now = time.time()
    for folder in sorted(place.glob(f"{STAGED}*")):
        if folder.is_symlink() or not folder.is_dir() or folder.lstat().st_uid != os.getuid():
            continue
        # The age of the folder: what was copied into it has the times of the originals.
        if now - folder.lstat().st_mtime >= older_than_s:
            why = "staged by a client that was killed while it submitted"
            if objects := list(store.list(f"{folder.name}/")):
                yield leftover("staging", folder.name, why, objects, store)

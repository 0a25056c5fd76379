"""Snapshots of a STORAGE's trainings in this machine's memory that nobody goes on from any more."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial

from colddiff.checkpoints.snapshot_places import SnapshotPlace, all_places, own_folder, place_of
from colddiff.cleanup.leftover import Leftover, leftover
from colddiff.cleanup.ours import unlinked
from colddiff.cleanup.survey import SurveyedJob
from colddiff.jobs.folder import is_deleted
from colddiff.ports import Store
from colddiff.stores.local_store import LocalStore


def snapshots_here(
    store: Store, jobs: Sequence[SurveyedJob], older_than_s: float
) -> Iterable[Leftover]:
    """Of jobs of ``store`` that were deleted, at once; of those at rest, once they are old.

    ``jobs``: all that ``store`` has. Those of other storages are left alone, as is what a process
    that runs has made.
    """
    memory = LocalStore(own_folder())
    resting = {place_of(job.folder.uri).path: job for job in jobs if job.at_rest}
    for place in all_places():
        rests = place.path in resting
        if place.in_use or not (rests or _is_of_none(place, store)):
            continue
        with suppress(OSError):  # gone meanwhile
            # A job that is deleted can never go on from it, however young it is.
            if rests and time.time() - place.written < older_than_s:
                continue
            why = "of a training that was killed" + ("" if rests else ", and deleted since")
            objects = unlinked(memory, memory.list(f"{place.path.name}/"))
            same = partial(_unused, place)
            yield leftover("snapshot", place.path.name, why, objects, memory, unchanged=same)


def _unused(place: SnapshotPlace) -> bool:
    return not place.in_use


def _is_of_none(place: SnapshotPlace, store: Store) -> bool:
    job = place.job
    return job is not None and is_deleted(store, job)

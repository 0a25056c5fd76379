"""What nobody needs any more: of jobs at rest, of interrupted packings, of killed writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from stat import S_ISREG

from colddiff.cleanup.leftover import Ages, Leftover, leftover
from colddiff.cleanup.needed import Step, named_steps
from colddiff.cleanup.of_jobs import of_job, without_record
from colddiff.cleanup.ours import PROBE, SHARD, TEMPORARY, linked, unlinked
from colddiff.cleanup.survey import SurveyedJob, run_by_others
from colddiff.data.manifest import KEY as PACKED
from colddiff.data.pack import CLAIM as PACKING
from colddiff.data.pack import is_claim
from colddiff.errors import Missing, RecordError
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
    changed lately; no checkpoint that is its job's last or best, or that any job names; nothing
    that colddiff did not name itself, and nothing that is reached through a link.
    """
    found: list[Leftover] = []
    originals = {job.id: name for job in jobs if (name := job.original) is not None}
    left_alone = [f"{job.id}: {job.problem}" for job in jobs if job.problem]
    outer = run_by_others(jobs)
    outer |= {name for link, name in originals.items() if link in outer}
    # What a damaged record names is not known.
    needed = None if left_alone else _needed(jobs, originals)
    if needed is None:
        left_alone.append("checkpoints: kept, as a damaged job may need them")
    left_alone += [f"{link}: its folder is a link; clean it up where it is" for link in originals]
    for job in jobs:
        if job.id in originals or job.id in outer or job.problem or not ages.old(job.objects):
            continue
        if job.job is None:
            found += without_record(job)
        elif job.at_rest:
            try:
                found += of_job(job, needed, keep)
            except RecordError as error:
                left_alone.append(f"{job.id}: {error.what}")
    found += [*_packings(store, ages, left_alone), *_probes(store, ages)]
    found += _unfinished_writes(store, ages)
    return Found(_not_linked(found, left_alone), left_alone)


def _needed(jobs: list[SurveyedJob], originals: dict[str, str]) -> set[Step]:
    """Checkpoints that jobs name, those of a linked folder also by the folder it leads to."""
    needed = named_steps(job.job or {} for job in jobs)
    return needed | {(originals[of], step) for of, step in needed if of in originals}


def _not_linked(found: list[Leftover], left_alone: list[str]) -> list[Leftover]:
    kept = []
    for item in found:
        if any(linked(item.store, key) for key in item.keys):
            left_alone.append(f"{item.where}: is reached through a link")
        elif item.keys:
            kept.append(item)
    return kept


def _packings(store: Store, ages: Ages, left_alone: list[str]) -> Iterator[Leftover]:
    """Shards below ``data/`` of packings that were interrupted and not gone on with."""
    sets: dict[str, list[StoredObject]] = {}
    for item in store.list("data/"):
        sets.setdefault(item.key.rpartition("/")[0], []).append(item)
    for place, objects in sets.items():
        by_name = {item.key.rpartition("/")[2]: item for item in objects}
        claim = by_name.get(PACKING)
        if claim is None or PACKED in by_name or not ages.old(objects):
            continue
        if not _claimed(store, claim.key):
            left_alone.append(f"{place}: its {PACKING} is not of `colddiff data pack`")
            continue
        why = "a packing that was interrupted; packing again goes on with it"
        shards = [item for name, item in by_name.items() if SHARD.fullmatch(name)]
        # The claim last: what is left of an interrupted deletion can be packed again.
        yield leftover(
            "packing", place, why, [*shards, claim], store, unchanged=_Interrupted(store, claim)
        )


def _claimed(store: Store, key: str) -> bool:
    try:
        return is_claim(store.get(key))
    except Missing:
        return False


@dataclass(frozen=True, slots=True)
class _Interrupted:
    """Whether a packing still is as it was when its ``claim`` was listed."""

    store: Store
    claim: StoredObject

    def __call__(self) -> bool:
        now = [item for item in self.store.list(self.claim.key) if item.key == self.claim.key]
        if [item.modified for item in now] != [self.claim.modified]:
            return False
        return self.store.size(f"{self.claim.key.rpartition('/')[0]}/{PACKED}") is None


@dataclass(frozen=True, slots=True)
class _SameFile:
    """Whether a file on a disk is a regular one, and still as it was listed."""

    store: LocalStore
    item: StoredObject

    def __call__(self) -> bool:
        try:
            found = self.store.root.joinpath(self.item.key).lstat()
        except FileNotFoundError:
            return False
        seen = (self.item.size, self.item.modified)
        return S_ISREG(found.st_mode) and (found.st_size, found.st_mtime) == seen


def _probes(store: Store, ages: Ages) -> Iterator[Leftover]:
    found = [item for item in store.list("probes/") if PROBE.fullmatch(item.key)]
    if probes := [item for item in unlinked(store, found) if ages.old([item])]:
        why = "written to see whether STORAGE can be, by commands that were killed"
        yield leftover("probe", "probes", why, probes, store)


def _unfinished_writes(store: Store, ages: Ages) -> Iterator[Leftover]:
    """On a disk: temporary files of writers that were killed. In S3 a write is one request."""
    if not isinstance(store, LocalStore):
        return
    for item in store.unfinished_writes():
        if TEMPORARY.fullmatch(item.key) and ages.old([item]):
            same = _SameFile(store, item)
            if same():
                why = "a write that was killed"
                yield leftover("temporary", item.key, why, [item], store, unchanged=same)

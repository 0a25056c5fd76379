"""Resolve a job: absolute addresses, digests of what they name, an id (``job.json``)."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from colddiff.errors import (
    CheckpointError,
    ColddiffError,
    DataError,
    Missing,
    RecordError,
    SpecError,
)
from colddiff.features.open import missing_weights
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.job import Job
from colddiff.jobs.plugins import keep_plugins
from colddiff.jobs.results import held_warnings, warn_submitter
from colddiff.jobs.verb import VERBS, DryRun
from colddiff.spec import parse
from colddiff.spec.documents import DocumentError, as_record, shown
from colddiff.spec.plugins import load_plugins, plugin_digest, plugin_source
from colddiff.stores.open import absolute, check_writable, make_storage, open_store, storage_at
from colddiff.tracking.open import check_tracker, has_server
from colddiff.tracking.open import tracking_uri as tracking_uri_of

STAGED = Path(__file__).resolve().parents[2]
RECORDED = ("colddiff", "torch", "ray", "numpy", "mlflow", "webdataset", "pillow")

if TYPE_CHECKING:
    from colddiff.checkpoints.named import NamedCheckpoint
    from colddiff.data.resolve import Input
    from colddiff.verbs.train.job import TrainJob

J = TypeVar("J", bound=Job)


@dataclass(frozen=True, slots=True)
class ResolvedJob:
    """A job with absolute addresses and its id: the content of ``job.json``."""

    id: str
    slug: str
    job: Job
    storage: str
    tracking_uri: str
    content: Mapping[str, str]
    """Digests that stand for addresses in the identity, by field."""
    created: float
    versions: Mapping[str, str]
    git: Mapping[str, Any]

    @property
    def verb(self) -> str:
        """What the job does, such as ``train``."""
        return self.job.verb

    @property
    def folder(self) -> JobFolder:
        """Its folder in STORAGE."""
        return JobFolder(open_store(self.storage), self.id)

    def job_as(self, kind: type[J]) -> J:
        """The job, as an instance of ``kind``."""
        assert isinstance(self.job, kind)
        return self.job

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``from_dict`` is its inverse."""
        data = {name: getattr(self, name) for name in self.__slots__ if name != "job"}
        return {**data, "verb": self.verb, "spec": self.job.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ResolvedJob:
        """The inverse of ``to_dict``; validates the spec again, as only JSON crosses processes.

        Loads the job's plugins first, which register kinds that the spec names; relative paths are
        next to this package, where they were staged (each node has its own working folder).
        """
        try:
            found = as_record(_Written, data)
        except DocumentError as error:
            raise RecordError(f"job.json {error}") from None
        if found.verb not in VERBS:
            raise RecordError(f"job.json is damaged: there is no verb {shown(found.verb)}")
        load_plugins(STAGED / plugin for plugin in found.spec.get("plugins", ()))
        rest = {name: data[name] for name in cls.__slots__ if name != "job"}
        return cls(job=parse(VERBS[found.verb].spec(), found.spec, "job.json: spec"), **rest)


@dataclass(frozen=True, slots=True)
class _Written:
    """A ``job.json`` as ``ResolvedJob.from_dict`` reads it."""

    id: str
    slug: str
    verb: str
    spec: dict[str, Any]
    storage: str
    tracking_uri: str
    content: dict[str, str]
    created: float
    versions: dict[str, str]
    git: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Looked:
    """What `--dry-run` says of a job: of its inputs, what its verb does, why it would fail here."""

    lines: Sequence[str]
    found: DryRun
    problems: Sequence[str]


def record_job(resolved: ResolvedJob, folder: JobFolder) -> None:
    """Writes ``job.json``, after copies of the plugins: their files may change or disappear."""
    sources = (plugin_source(STAGED / plugin) for plugin in resolved.job.plugins)
    keep_plugins(folder.store, folder.key().rstrip("/"), sources)
    folder.write_job(resolved.to_dict())


def resolve(
    job: Job,
    slug: str,
    *,
    storage: str | None = None,
    remote: bool = False,
    shared_path: bool = False,
    new: bool = False,
) -> ResolvedJob:
    """A job that can run on any machine; packs a SOURCE into STORAGE/data once.

    Args:
        job: the job as written.
        slug: word in the id, such as the recipe's name.
        storage: overrides ``job.storage``, COLDDIFF_STORAGE and ./runs.
        remote: the cluster is not on this machine: local paths and sqlite are refused...
        shared_path: ...unless every node sees the same paths.
        new: makes the id different from that of every equal job.

    Raises:
        SpecError, DataError, StoreError, TrackerError.
    """
    place = storage_at(storage or job.storage)
    tracking_uri = tracking_uri_of(place)
    if remote and not shared_path:
        refuse_paths(job, storage)
    # Before anything is packed or submitted: fail early if the storage is read-only.
    make_storage(place)
    check_writable(place)
    _check_parent(job, place)
    _check_weights(job, slug, place, here=not remote, new=new)
    if job.tracking.required and (
        new or not has_server(place) or not _has_finished(job, slug, place)
    ):
        check_tracker(place, job.tracking.experiment)
    with held_warnings() as held:
        job, content, job_id = identified(job, slug, place, pack=True, new=new)
    VERBS[job.verb].check(job, place, job_id, content)
    # Who submits a job again for its result was warned before, and the result says it.
    if held and not _has_reached(job, place, job_id):
        for line in held:
            warn_submitter(line)
    return ResolvedJob(
        id=job_id,
        slug=slug,
        job=job.model_copy(update={"storage": None}),
        storage=place,
        tracking_uri=tracking_uri,
        content=content,
        created=time.time(),
        versions={name: version(name) for name in RECORDED} | {"python": platform.python_version()},
        git=_git_state(),
    )


def look(job: Job, rate: str | None, missing: Sequence[tuple[str, str]] | None = None) -> Looked:
    """What `--dry-run` says of a job; contacts nothing. Raises SpecError for a ``rate``.

    ``missing``: where the checkpoint that is left to the training of the job's file is not found
    here, fields and what is wrong with them; nothing if it is only not looked for. What is wrong
    with one folder is told once, of the first field that names it.
    """
    verb, storage = VERBS[job.verb], storage_at(job.storage)
    found = verb.dry_run(job, rate)
    lines: list[str] = []
    problems = [*found.problems, *(missing or ())]
    if missing is not None and not missing:
        lines.append("checkpoint: that of the train section is looked for when it is submitted")
    named: list[NamedCheckpoint | Input] = [*verb.checkpoints(job)] if missing is None else []
    for one in (*named, *verb.inputs(job)):
        try:
            lines.append(one.describe(storage))
        except SpecError as refused:
            problems += refused.problems
    first = {reason: field for field, reason in reversed(problems)}
    told = [
        f"{first[reason]}: submitting this would fail: {reason}"
        for reason in dict.fromkeys(reason for _, reason in problems)
    ]
    for spec in dict.fromkeys(verb.features(job)):
        error = missing_weights(spec, contact=False)
        if error is not None:
            told.insert(0, f"not on this machine, and needed by the job: {error}")
    return Looked([*lines, *found.lines], found, told)


def refuse_missing_weights(job: Job, *, here: bool = True) -> None:
    """Raises CheckpointError if the job's feature networks have no weights.

    ``here``: it runs on this machine; else the paths of its machines are not looked at.
    """
    for spec in dict.fromkeys(VERBS[job.verb].features(job)):
        error = missing_weights(spec, paths=here)
        if error is not None:
            raise error


def _check_weights(job: Job, slug: str, storage: str, *, here: bool, new: bool) -> None:
    """Raises CheckpointError if the job would need weights that are missing.

    Before anything is packed. A finished job needs none any more.
    """
    try:
        refuse_missing_weights(job, here=here)
    except CheckpointError:
        if new or not _has_finished(job, slug, storage):
            raise


def _has_finished(job: Job, slug: str, storage: str) -> bool:
    """Whether the job has reached its extent: it needs no tracker any more, nor weights."""
    try:
        _, _, job_id = identified(job, slug, storage)
    except ColddiffError:
        return False  # not packed yet, or wrong: said where it is resolved
    return _has_reached(job, storage, job_id)


def _has_reached(job: Job, storage: str, job_id: str) -> bool:
    """Whether the job of this id is done, to the extent that ``job`` requests."""
    status = JobFolder(open_store(storage), job_id).status()
    extent = VERBS[job.verb].requested_extent(job)
    return status is not None and status.state == "done" and status.step >= extent


def _check_parent(job: Job, storage: str) -> None:
    """Raises SpecError if the job whose run is to hold this one's is not in ``storage``."""
    parent = job.tracking.parent
    if parent is None:
        return
    try:
        JobFolder(open_store(storage), parent).job()
    except Missing as error:
        raise SpecError([("tracking.parent", str(error))]) from None


def identified(
    job: Job, slug: str, storage: str, *, pack: bool = False, new: bool = False
) -> tuple[Job, dict[str, str], str]:
    """The job with absolute addresses, the digests of what they name, and its id.

    Without ``pack``, raises DataError if a SOURCE has not been packed yet.
    """
    job, content = VERBS[job.verb].resolve(job, storage, pack=pack)
    if job.plugins:
        job = job.model_copy(update={"plugins": tuple(map(absolute, job.plugins))})
        content = {**content, "plugins": " ".join(sorted(map(plugin_digest, job.plugins)))}
    if new:
        content["nonce"] = f"{time.time_ns():x}"
    return job, content, job.job_id(slug, content)


def trained_id(job: TrainJob, slug: str, storage: str) -> str:
    """Id of the training job that ``submit train`` of the same file created; packs nothing.

    Raises CheckpointError if it has not been submitted to ``storage`` yet.
    """
    try:
        _, _, job_id = identified(job, slug, storage)
        JobFolder(open_store(storage), job_id).job()
    except (DataError, Missing):
        raise CheckpointError(
            f"checkpoint: nothing was trained from this file in {storage} yet (as {slug!r}); "
            "submit train first, or give checkpoint=REFERENCE"
        ) from None
    return job_id


def refuse_paths(job: Job, storage: str | None = None) -> None:
    """Raises SpecError if ``job`` would write to this machine's disk; contacts nothing."""
    for what, reason in unreachable_paths(job, storage):
        raise SpecError(f"{what} {reason}")


def unreachable_paths(job: Job, storage: str | None = None) -> list[tuple[str, str]]:
    """What of ``job`` would be on this machine's disk, and why a remote cluster cannot write it."""
    place = storage_at(storage or job.storage)
    addresses = [
        ("storage", place, "COLDDIFF_STORAGE=s3://bucket/prefix"),
        ("tracking", tracking_uri_of(place), "MLFLOW_TRACKING_URI=http://host:port"),
    ]
    for field, uri in VERBS[job.verb].outputs(job).items():
        addresses.append((field, absolute(uri), f"{field}=s3://bucket/prefix"))
    return [
        (
            what,
            f"{uri} is on this machine but the cluster is not: set {way}, or add --shared-path if "
            "all nodes see this path",
        )
        for what, uri, way in addresses
        if "://" not in uri or uri.startswith("sqlite")
    ]


def _git_state() -> dict[str, Any]:
    """Commit of the code and whether it has local changes; empty outside a checkout.

    What jobs leave beside the package, and the job files there, are no changes of it.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(  # noqa: S603  # fixed arguments
                ["git", "-C", str(STAGED), *arguments],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # The package may be installed inside another repository: only our own root counts.
    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top) != STAGED:
        return {}
    changed = git("status", "--porcelain", "--", "colddiff")
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}

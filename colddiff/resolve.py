"""From a job as somebody wrote it to one that can run anywhere: addresses, digests, an id."""

from __future__ import annotations

import platform
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from colddiff import connect
from colddiff.connect import absolute, default_storage
from colddiff.errors import DataError, SpecError
from colddiff.jobspec import JOBS, Job, TrainJob
from colddiff.references import find_checkpoint
from colddiff.spec import digest, parse
from colddiff.spec.plugins import load_plugins, plugin_digest

SOURCE = re.compile(r"^(digits$|(mnist|cifar10|folder|webdataset):.)")
STAGED = Path(__file__).resolve().parent.parent
HOLDOUT = {"folder": 0.1, "webdataset": 0.1}
"""Part held out of a source that has neither a test split nor a default of its own."""
RECORDED = ("colddiff", "torch", "ray", "numpy", "mlflow", "webdataset", "pillow")

Talk = Callable[[str], None]


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
    def train(self) -> TrainJob:
        """The job, which is one of training."""
        assert isinstance(self.job, TrainJob)
        return self.job

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``from_dict`` is its inverse."""
        data = {name: getattr(self, name) for name in self.__slots__ if name != "job"}
        return {**data, "verb": self.verb, "spec": self.job.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ResolvedJob:
        """Validates the spec again: only JSON crosses a process boundary.

        Runs the job's plugins first, whose kinds the spec names; relative ones lie beside this
        package, where staging put them (the working folder of a node is another on each).
        """
        verb, spec = data["verb"], data["spec"]
        load_plugins(STAGED / plugin for plugin in spec["plugins"])
        rest = {name: data[name] for name in cls.__slots__ if name != "job"}
        return cls(job=parse(JOBS[verb], spec, "job.json: spec"), **rest)


def resolve(
    verb: str,
    job: Job,
    slug: str,
    *,
    storage: str | None = None,
    remote: bool = False,
    shared_path: bool = False,
    new: bool = False,
    talk: Talk = lambda line: None,
) -> ResolvedJob:
    """The job that can run anywhere; packs a SOURCE into STORAGE/data once.

    Args:
        verb: what to do with it, a key of ``JOBS``.
        job: the job as written.
        slug: what the id is to say, such as the recipe's name.
        storage: overrides ``job.storage``, COLDDIFF_STORAGE and ./runs.
        remote: the cluster is not on this machine; a path or sqlite is then refused...
        shared_path: ...unless every node sees the same paths.
        new: makes the id different from that of every equal job.

    Raises:
        SpecError, DataError, StoreError, TrackerError.
    """
    assert verb == job.verb
    place = absolute(storage or job.storage or default_storage())
    tracking_uri = connect.tracking_uri(place)
    if remote and not shared_path:
        refuse_paths(job, storage)
    # Written to here, before anything is packed or submitted: a read-only place is found out now.
    connect.check_writable(place)
    if job.tracking.required:
        connect.check_tracker(place, job.tracking.experiment)
    content: dict[str, str] = {}
    if isinstance(job, TrainJob):
        job, content = _with_other(*_with_data(job, place, talk), place, talk)
        job, content = _with_start(job, content, place)
    if job.plugins:
        job = job.model_copy(update={"plugins": tuple(map(absolute, job.plugins))})
        content = {**content, "plugins": " ".join(sorted(map(plugin_digest, job.plugins)))}
    if new:
        content["nonce"] = f"{time.time_ns():x}"
    return ResolvedJob(
        id=job.job_id(slug, content),
        slug=slug,
        job=job.model_copy(update={"storage": None}),
        storage=place,
        tracking_uri=tracking_uri,
        content=content,
        created=time.time(),
        versions={name: version(name) for name in RECORDED} | {"python": platform.python_version()},
        git=git_state(),
    )


def refuse_paths(job: Job, storage: str | None = None) -> None:
    """Raises SpecError where ``job`` would write to this machine; contacts nothing."""
    place = absolute(storage or job.storage or default_storage())
    for what, uri, way in (
        ("storage", place, "COLDDIFF_STORAGE=s3://bucket/prefix"),
        ("tracking", connect.tracking_uri(place), "MLFLOW_TRACKING_URI=http://host:port"),
    ):
        if "://" not in uri or uri.startswith("sqlite"):
            raise SpecError(
                f"{what} {uri} is on this machine, the cluster is not: set {way}, or say "
                "--shared-path if all nodes see this path"
            )


def _with_data(job: TrainJob, storage: str, talk: Talk) -> tuple[TrainJob, dict[str, str]]:
    if job.data is None:
        raise SpecError(
            [
                (
                    "data",
                    "is required: the URI of packed shards, or a SOURCE such as mnist:DIR; pack "
                    "one with `colddiff data pack SOURCE --out URI "
                    f"--image-size {job.image_size} --channels {job.channels}`",
                )
            ]
        )
    test = job.test_data or (job.data if SOURCE.match(job.data) else None)
    shared = test == job.data
    data = _packed(job.data, "train", shared, job, storage, talk)
    test_uri = _packed(test, "test", shared, job, storage, talk) if test else None
    for field, uri in (("data", data), ("test_data", test_uri)):
        if uri is not None:
            _refuse_other_shape(field, uri, job)
    resolved = job.model_copy(update={"data": data, "test_data": test_uri})
    return resolved, {"data": connect.read_manifest(data).digest}


def _with_other(
    job: TrainJob, content: dict[str, str], storage: str, talk: Talk
) -> tuple[TrainJob, dict[str, str]]:
    """The second set, where D mixes one in: packed, and in the identity by its digest."""
    D = job.degradation.build(job.shape)
    if connect.open_other(D) is None:
        return job, content
    uri = _packed(D.spec.other, "train", False, job, storage, talk)
    _refuse_other_shape("degradation.other", uri, job)
    spec = job.degradation.model_copy(update={"other": uri})
    other = connect.read_manifest(uri).digest
    identity = digest({**spec.to_dict(), "other": other})
    return (
        job.model_copy(update={"degradation": spec}),
        {**content, "other": other, "degradation": identity},
    )


def _with_start(
    job: TrainJob, content: dict[str, str], storage: str
) -> tuple[TrainJob, dict[str, str]]:
    """The start made definite: a step and a weights hash, resolved once, at submission."""
    if job.start_from is None:
        return job, content
    address = find_checkpoint(job.start_from, storage)
    return (
        job.model_copy(update={"start_from": address.uri}),
        {**content, "start_from": address.weights_sha256},
    )


def _refuse_other_shape(field: str, uri: str, job: TrainJob) -> None:
    image = connect.read_manifest(uri).image
    found = (image.channels, image.height, image.width)
    if found != job.shape.chw:
        raise DataError(
            f"{field}: {uri} holds images {'x'.join(map(str, found))}, the job wants {job.shape}; "
            "pack it again, or set image_size and channels"
        )


def _packed(text: str, split: str, shared: bool, job: TrainJob, storage: str, talk: Talk) -> str:
    """Address of the packed images; ``shared``: training and test images come of one source."""
    if not SOURCE.match(text):
        return absolute(text)
    kind, _, place = text.partition(":")
    source = f"{kind}:{absolute(place)}" if place else kind
    settings: dict[str, Any] = {"image_size": job.image_size, "channels": job.channels}
    if kind not in HOLDOUT:
        settings["split"] = split
    elif shared:
        settings |= {"split": split, "holdout": HOLDOUT[kind]}
    name = f"{kind}-{digest([source, settings])[:8]}"
    uri = f"{storage}/data/{name}/{split}"
    connect.pack_source(source, uri, talk=talk, **settings)
    return uri


def git_state() -> dict[str, Any]:
    """Commit of the code and whether it was changed since; empty where it is no checkout."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(  # noqa: S603  # fixed arguments
                ["git", "-C", str(root), *arguments],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # The package may lie inside somebody else's repository: only our own root counts.
    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top) != root:
        return {}
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}

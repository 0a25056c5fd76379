"""Picks the adapter behind each address; adapters are imported when they are needed."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colddiff.errors import SpecError, Unreachable
from colddiff.ports import FeatureExtractor, Manifest, ShardSource, Store, Tracker

if TYPE_CHECKING:
    import torch

    from colddiff.adapters.tracking_address import TrackingAddress
    from colddiff.degradations import Degradation
    from colddiff.engine.other_images import OtherImages
    from colddiff.jobspec.features import FeaturesSpec
    from colddiff.shards.source import ImageSource
    from colddiff.terminal import Terminal, TerminalSpec
    from colddiff.transforms import Augment
    from colddiff.types import ImageShape

# Any scheme at all, not just ``x://``: tools of this field run what follows ``pipe:``.
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):(//)?(.*)", re.IGNORECASE | re.DOTALL)
Progress = Callable[[int, int], None]
MAX_DECODED_BYTES = 2 * 2**30
"""Sets that decode to no more than this are kept decoded on the local disk."""


def open_store(uri: str) -> Store:
    """The store at a path or ``s3://bucket/prefix``; nothing is contacted yet."""
    scheme, rest = _parted(uri)
    if scheme == "s3":
        from colddiff.adapters.s3_store import S3Store

        bucket, _, prefix = rest.partition("/")
        return S3Store(bucket, prefix)
    from colddiff.adapters.local_store import LocalStore

    return LocalStore(Path(rest))


def default_storage() -> str:
    """COLDDIFF_STORAGE, else ./runs, absolute."""
    return absolute(os.environ.get("COLDDIFF_STORAGE") or "./runs")


def absolute(uri: str) -> str:
    """A path made absolute, ``s3://`` as it is; without a trailing slash."""
    scheme, rest = _parted(uri)
    return uri.rstrip("/") if scheme == "s3" else str(Path(rest).expanduser().absolute())


def _parted(uri: str) -> tuple[str, str]:
    """Scheme and rest of an address; a path has the scheme ``file``."""
    match = ADDRESS.match(uri)
    scheme, slashes, rest = match.groups() if match else ("file", "//", uri)
    nothing = not (rest.strip("/") if scheme == "s3" else rest)
    if nothing or not slashes or scheme not in ("file", "s3"):
        raise SpecError(
            f"no store for {uri!r}: give a path (./{uri} where its name has a colon) or "
            "s3://bucket/prefix"
        )
    return scheme, rest


def open_shards(
    where: str | Store,
    cache_dir: str | None = None,
    *,
    max_decoded_bytes: int = MAX_DECODED_BYTES,
) -> ShardSource:
    """The packed data set at an address or in a store; raises DataError where there is none.

    ``cache_dir`` (else COLDDIFF_CACHE, else ``~/.cache/colddiff``) holds what is decoded or
    fetched, for all processes of this machine. A set that decodes to more than
    ``max_decoded_bytes`` is streamed, in an order of its own.
    """
    from colddiff.shards.manifest import read_manifest as read

    store = open_store(where) if isinstance(where, str) else where
    return _opened_shards(store, read(store), cache_dir, max_decoded_bytes)


def open_samples(
    where: str | Store, *, partial: bool = False, cache_dir: str | None = None
) -> ShardSource:
    """The images a generate job made at an address, in the order of their seeds.

    ``partial``: those that are committed by now, of a set that is not finished. Raises DataError
    where there are none, or not all and ``partial`` was not said.
    """
    from colddiff.engine.samples import sample_manifest

    store = open_store(where) if isinstance(where, str) else where
    manifest = sample_manifest(store, partial=partial)
    return _opened_shards(store, manifest, cache_dir, MAX_DECODED_BYTES)


def _opened_shards(
    store: Store, manifest: Manifest, cache_dir: str | None, max_decoded_bytes: int
) -> ShardSource:
    from colddiff.adapters.local_cache import LocalCache, default_folder
    from colddiff.adapters.streamed_shards import StreamedShards
    from colddiff.adapters.webdataset_shards import MappedShards, decoded_bytes

    cache = LocalCache(cache_dir or default_folder())
    if decoded_bytes(manifest) <= max_decoded_bytes:
        return MappedShards(store, manifest, cache)
    return StreamedShards(store, manifest, cache)


def open_viewed(
    where: str | Store, augment: Augment, shape: ImageShape, name: str = "data"
) -> ShardSource:
    """A packed set as test images of a job with that ``augment`` and image shape.

    Raises DataError, starting with ``name``, where its images cannot become those.
    """
    from colddiff.engine.views import viewed

    return viewed(open_shards(where), augment, shape, name)


def open_other(D: Degradation[Any], augment: Augment = "none") -> OtherImages | None:
    """The second set that D mixes in, at its spec's ``other``; None where it needs none.

    The set is opened at the first draw; its images are transformed as training images are. Raises
    SpecError where the spec does not name one.
    """
    from colddiff.engine.other_images import OtherImages

    if not D.omega_images:
        return None
    uri = getattr(D.spec, "other", None)
    if uri is None:
        raise SpecError(
            [
                (
                    "degradation.other",
                    f"is required for {D.spec.kind}: the URI of the packed second set; pack one "
                    "with `colddiff data pack SOURCE --out URI --image-size "
                    f"{D.shape.height} --channels {D.shape.channels}`",
                )
            ]
        )
    return OtherImages(lambda: open_shards(uri), D.shape, augment)


def make_terminal(
    D: Degradation[Any], data: ShardSource | None, wanted: TerminalSpec | None = None
) -> Terminal | None:
    """D's terminal, or the one ``wanted``; a mixture is fitted to ``data``.

    None where D has none, or a mixture has no ``data`` to be fitted to.
    """
    from colddiff.terminal import Gmm, Terminal, terminal_spec

    spec = terminal_spec(D, wanted)
    if not isinstance(spec, Gmm):
        return None if spec is None else Terminal(spec)
    if data is None:
        return None
    from colddiff.adapters.mixture import fit_mixture
    from colddiff.engine.terminal_features import terminal_features

    return Terminal(spec, fit_mixture(terminal_features(D, spec, data), spec.components))


def read_manifest(uri: str) -> Manifest:
    """What the packed data set at ``uri`` is; raises DataError where there is none."""
    from colddiff.shards.manifest import read_manifest as read

    return read(open_store(uri))


def open_source(text: str) -> ImageSource:
    """What can be packed: digits, mnist:DIR, cifar10:DIR, folder:URI or webdataset:URI."""
    kind, _, place = text.partition(":")
    if text == "digits":
        from colddiff.adapters.sources import DigitsSource

        return DigitsSource()
    if place and kind in ("mnist", "cifar10"):
        from colddiff.adapters.sources import Cifar10Source, MnistSource

        return MnistSource(place) if kind == "mnist" else Cifar10Source(place)
    if place and kind == "folder":
        from colddiff.adapters.image_folder import FolderSource

        return FolderSource(open_store(place))
    if place and kind == "webdataset":
        from colddiff.adapters.webdataset_source import WebdatasetSource

        return WebdatasetSource(open_store(place))
    raise SpecError(
        f"no source {text!r}: give digits, mnist:DIR, cifar10:DIR, folder:DIR, "
        "folder:s3://bucket/prefix or webdataset:URI"
    )


def pack_source(
    source: str,
    uri: str,
    *,
    talk: Callable[[str], None] = lambda line: None,
    on_progress: Progress | None = None,
    workers: int | None = None,
    **settings: object,
) -> tuple[Manifest, bool]:
    """Packs a SOURCE to ``uri``; the manifest, and False where it had been packed before.

    ``settings`` are fields of ``PackSettings``, ``talk`` is told in a line what was done,
    ``workers`` threads work at once.
    """
    from colddiff.engine.pack import pack
    from colddiff.engine.selection import PackSettings
    from colddiff.spec import parse

    packed = pack(
        open_source(source),
        open_store(uri),
        parse(PackSettings, settings),
        on_progress,
        workers,
    )
    if packed.fresh:
        talk(f"packed {packed.manifest.count} images of {source} to {uri}")
    return packed.manifest, packed.fresh


def check_writable(uri: str) -> None:
    """Writes and deletes a small object; raises StoreError where that fails."""
    store = open_store(uri)
    key = f"probes/{uuid.uuid4().hex}"
    store.put(key, b"writable?")
    store.delete(key)


def free_bytes(uri: str) -> int | None:
    """Room on the disk of a path, in bytes; None where it is not known, as in S3."""
    scheme, rest = _parted(uri)
    if scheme == "s3":
        return None
    path = Path(rest)
    there = next((folder for folder in (path, *path.parents) if folder.exists()), None)
    return shutil.disk_usage(there).free if there is not None else None


def tracking_uri(storage: str) -> str:
    """MLFLOW_TRACKING_URI without credentials, else a sqlite file in ``storage``."""
    from colddiff.adapters.tracking_address import tracking_address, without_userinfo

    return without_userinfo(tracking_address(storage).uri)


def check_tracker(storage: str, experiment: str) -> None:
    """Makes sure that a tracking server answers and has ``experiment``; raises TrackerError.

    A database file needs no asking: the first process to log makes it.
    """
    from colddiff.adapters.tracking_address import database_path, tracking_address

    address = tracking_address(storage)
    if database_path(address.uri) is not None:
        return
    from colddiff.adapters.mlflow_service import initialise

    initialise(address.uri, experiment, artifact_root=address.artifact_root)


def open_tracker(
    storage: str, uri: str, experiment: str, job_id: str, *, join: bool = False
) -> Tracker:
    """The job's one tracking run; ``join`` where another process opened it and will finish it.

    ``uri`` is the one the job was submitted with; this process's MLFLOW_TRACKING_URI is taken
    instead where it is the same with credentials.
    """
    from colddiff.adapters.mlflow_tracker import open_run

    address = _tracking(storage, uri)
    return open_run(
        address.uri,
        experiment,
        job_id,
        job_id,
        spool=open_store(storage),
        artifact_root=address.artifact_root,
        join=join,
    )


def _tracking(storage: str, uri: str) -> TrackingAddress:
    from colddiff.adapters.tracking_address import tracking_address, without_userinfo

    address = tracking_address(storage)
    if without_userinfo(address.uri) != uri:
        address = tracking_address(storage, {"MLFLOW_TRACKING_URI": uri})
    return address


def replay_tracking(storage: str, uri: str, job_id: str) -> int:
    """Delivers what a job that no longer runs could not log; returns the number of entries.

    Costs one listing of the job's folder where there is nothing. Raises StoreError, TrackerError.
    """
    from colddiff.adapters.tracking_spool import undelivered

    store = open_store(storage)
    if not undelivered(store, job_id):
        return 0
    from colddiff.adapters.mlflow_tracker import replay

    address = _tracking(storage, uri)
    return replay(store, job_id, address.uri, artifact_root=address.artifact_root)


def job_of_run(run_id: str, storage: str) -> str:
    """Address of the folder of the job that logged to an MLflow run.

    Raises CheckpointError where there is no such run, or no job of ours logged to it.
    """
    from colddiff.adapters.mlflow_lookup import job_folder_of
    from colddiff.adapters.tracking_address import tracking_address

    return job_folder_of(tracking_address(storage).uri, run_id)


def waits_for_tracker(store: Store, job_id: str) -> bool:
    """Whether a job has logged something that no tracker has got yet."""
    from colddiff.adapters.tracking_spool import undelivered

    return bool(undelivered(store, job_id))


def deliver_late(storage: str, uri: str, job_id: str, talk: Callable[[str], None]) -> None:
    """``replay_tracking`` for a person: says what was delivered, or that the tracker is still away.

    A job's numbers are no reason for a command to fail.
    """
    try:
        count = replay_tracking(storage, uri, job_id)
    except Unreachable as error:
        talk(f"{job_id}: what it logged still waits in its storage: {error}")
        return
    if count:
        talk(f"{job_id}: {count} entries that had waited for the tracker are delivered")


def system_sampler(
    tracker: Tracker, since: float, every_s: float, device: torch.device
) -> AbstractContextManager[object]:
    """Logs CPU, memory, network and GPU within ``with``; steps are seconds since ``since``."""
    from colddiff.adapters.system_metrics import SystemSampler

    return SystemSampler(tracker, since, every_s, device)


def null_tracker() -> Tracker:
    """A tracker that keeps nothing: that of every rank but the first."""
    from colddiff.adapters.memory_tracker import NullTracker

    return NullTracker()


def open_features(
    features: FeaturesSpec | str, device: torch.device | str = "cpu"
) -> FeatureExtractor:
    """The network behind a Frechet distance, on ``device``; its weights are what their hash says.

    Raises SpecError for an unknown kind, CheckpointError (which says where the weights are to be
    had) where they are missing or others, StoreError where they cannot be reached.
    """
    from colddiff.adapters.feature_networks import open_network
    from colddiff.jobspec.features import FEATURES

    spec = FEATURES.parse({"kind": features} if isinstance(features, str) else features)

    def read(place: str) -> bytes:
        folder, _, name = place.rpartition("/")
        return open_store(folder or "/").get(name)

    return open_network(located_features(spec), read, device)


def located_features(spec: FeaturesSpec) -> FeaturesSpec:
    """``spec`` with an absolute address of its weights, where they do not ship with the package."""
    from colddiff.adapters.feature_networks import default_place

    if "path" not in type(spec).model_fields:
        return spec
    path = getattr(spec, "path", None) or default_place(spec.kind)
    return spec.model_copy(update={"path": absolute(path)})

"""What the loops need from the outside world, as protocols that adapters implement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn


class WorkerContext(Protocol):
    """One worker of a data-parallel job: who it is, and how it talks to the others."""

    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    @property
    def device(self) -> torch.device: ...

    def wrap(self, model: nn.Module) -> nn.Module:
        """``model``, averaging its gradients over all workers at each backward pass."""

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all workers, the same on each of them."""

    def broadcast(self, value: Any) -> Any:
        """Rank 0's ``value`` (JSON-ready) on every worker."""

    def leaving(self) -> bool:
        """Whether a worker's machine is about to be taken away; all ask at the same step."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A key and its size in bytes."""

    key: str
    size: int


class Store(Protocol):
    """A flat key-value store of whole objects below one URI; keys are relative, with ``/``.

    Every write is atomic: a reader sees the whole object or none. Failures to reach the store are
    StoreError; nothing else is raised but what each method names.
    """

    @property
    def uri(self) -> str:
        """Absolute address, a path or ``s3://bucket/prefix``, without a trailing slash."""

    def get(self, key: str) -> bytes:
        """The object; raises Missing."""

    def put(self, key: str, data: bytes) -> None:
        """Writes the object, replacing one that is there."""

    def put_new(self, key: str, data: bytes) -> None:
        """Writes the object only if none is there; raises Exists (one of several racers wins)."""

    def size(self, key: str) -> int | None:
        """Size in bytes, or None where there is no such object."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects whose key starts with ``prefix``, in key order, paged."""

    def delete(self, key: str) -> None:
        """Removes the object; nothing happens where there is none."""


class Tracker(Protocol):
    """An experiment-tracking run. Logging never raises and never blocks on the network."""

    @property
    def run_id(self) -> str: ...

    def log_params(self, params: Mapping[str, str]) -> None:
        """Parameters by dotted path; logged once, equal values again are fine."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics by path, such as ``train/loss_l1``, at one step, stamped with the time now."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tags, replacing equal names."""

    def log_artifact(self, name: str, data: bytes) -> None:
        """A small file under a relative name, such as ``grids/step_00001000.png``."""

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Delivers what was logged so far; False where it stays spooled."""

    def finish(self, status: str) -> None:
        """Ends the run as FINISHED, FAILED or KILLED and flushes; no logging after it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one slice of a global batch, and where in the run they stand.

    ``images``: uint8 or uint16 [B, C, H, W], straight from the shards; ``positions``: int64 [B],
    the running number of each image in the whole run (step * global batch + place in it), from
    which all randomness of that image follows.
    """

    images: NDArray[np.uint8] | NDArray[np.uint16]
    positions: NDArray[np.int64]


class ShardSource(Protocol):
    """A packed data set, in an order that is a function of (manifest, seed, epoch) alone."""

    @property
    def manifest(self) -> Manifest: ...

    def batches(
        self, *, seed: int, global_batch_size: int, rank: int, world_size: int, start_step: int
    ) -> Iterator[Batch]:
        """Endless slices of rank ``rank``, one a step, from 0-based step ``start_step`` on.

        All ranks' slices of a step, in rank order, are the same global batch for any world size;
        each epoch has every sample once.
        """

    def images(self, start: int, stop: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Samples ``start``..``stop`` - 1 in manifest order, [N, C, H, W]."""


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """Stored images: shape, bit depth, and what the ends of the integer scale mean."""

    channels: int
    height: int
    width: int
    bits: int = 8
    range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One tar: its key below the manifest, number of samples, size in bytes, sha256 (hex)."""

    key: str
    count: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a packed data set is (``manifest.json``); equal digests mean equal bytes."""

    count: int
    image: ImageFormat
    shards: tuple[ShardEntry, ...]
    classes: tuple[str, ...]
    source: str
    settings: Mapping[str, Any]
    digest: str
    """sha256 over image format and shard hashes in order: what a train job's identity holds."""


class FeatureExtractor(Protocol):
    """A fixed network whose features a Frechet distance compares."""

    @property
    def metric(self) -> str:
        """Name of the distance in its features: ``fid``, ``fd_lenet``, ``fd_<name>``."""

    @property
    def weights_sha256(self) -> str: ...

    @property
    def protocol(self) -> str:
        """One line: resize, normalisation and layer, so that unlike numbers are never compared."""

    def features(self, images: Tensor) -> NDArray[np.float64]:
        """float64 [B, F] of uint8 images [B, C, H, W], C = 1 or 3."""


__all__: Sequence[str] = (
    "Batch",
    "FeatureExtractor",
    "ImageFormat",
    "Manifest",
    "ShardEntry",
    "ShardSource",
    "Store",
    "StoredObject",
    "Tracker",
    "WorkerContext",
)

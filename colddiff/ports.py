"""Interfaces between the loops and the outside world, as protocols that adapters implement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn


Left = Literal["", "preempted", "growing"]
"""Why workers end early to be started anew: ``""`` where they do not."""


class WorkerContext(Protocol):
    """One worker of a data-parallel job: its rank and device, and its collectives."""

    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    @property
    def device(self) -> torch.device: ...

    def wrap(self, model: nn.Module) -> nn.Module:
        """``model``, with gradients averaged over all workers in each backward pass."""

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all workers, the same on each of them."""

    def broadcast(self, value: Any) -> Any:
        """Rank 0's ``value`` (JSON-ready) on every worker."""

    def leaves(self) -> Left:
        """Why all workers end after a checkpoint and are started anew; they ask at the same step.

        A machine is about to be ``preempted``, or there is room for more workers (``growing``).
        """


class ListedKey(str):
    """A key as a listing returned it. It names an object, also where our own keys could not.

    Objects that others stored may have a backslash, a line break or an empty part in their key.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A key, its size in bytes, when it was written, and the version of its content.

    ``modified`` is in seconds since the epoch by the store's own clock: compare it with that of
    another object of the store alone.
    """

    key: str
    size: int
    modified: float = field(default=0.0, compare=False)
    version: str = field(default="", compare=False)
    """Another one whenever the object was written with other content; empty if not known."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ListedKey(self.key))


class Store(Protocol):
    """A flat key-value store of whole objects below one URI; keys are relative, with ``/``.

    Every write is atomic: a reader sees the whole object or none. Failure to reach the store is a
    StoreError; methods raise nothing else except what they name.
    """

    @property
    def uri(self) -> str:
        """Absolute address, a path or ``s3://bucket/prefix``, without a trailing slash."""

    def get(self, key: str) -> bytes:
        """Read the object; raises Missing."""

    def put(self, key: str, data: bytes) -> None:
        """Write the object, replacing an existing one."""

    def put_new(self, key: str, data: bytes) -> None:
        """Write the object only if it does not exist, else raise Exists; exactly one racer wins."""

    def size(self, key: str) -> int | None:
        """Size in bytes, or None if there is no such object."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects whose key starts with ``prefix``, in key order, paged."""

    def folders(self, prefix: str) -> Iterator[str]:
        """Names of the folders right below ``prefix``, which ends in ``/``, whatever is in them."""

    def delete(self, key: str) -> None:
        """Delete the object, if it exists."""

    def clear(self, prefix: str) -> None:
        """Delete all below ``prefix``, which ends in ``/``: what other tools leave as an empty
        folder, which ``list`` passes over, and objects."""


@dataclass(frozen=True, slots=True)
class TrackedDataset:
    """An image set as a tracker shows it among a run's inputs."""

    name: str
    digest: str
    """Of its manifest: equal ones mean equal bytes."""
    uri: str
    use: str
    """The field of the job that names it, such as ``test_data``."""
    count: int
    """Of its images."""


class Tracker(Protocol):
    """An experiment-tracking run. Logging never raises and never blocks on the network."""

    @property
    def run_id(self) -> str: ...

    def log_params(self, params: Mapping[str, str]) -> None:
        """Parameters by dotted path; logged once, repeating equal values is allowed."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics by path, such as ``train/loss_l1``, at one step, with the current time."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tags, replacing those of the same name."""

    def set_parent(self, job_id: str) -> None:
        """Nest the run in that of another job in the same storage."""

    def log_artifact(self, name: str, data: bytes) -> None:
        """A small file under a relative name, such as ``grids/step_00001000.png``."""

    def log_image(self, key: str, data: bytes, step: int) -> None:
        """A PNG of a series, such as ``grid``, which the tracker shows step by step."""

    def log_dataset(self, dataset: TrackedDataset) -> None:
        """An image set that the job reads; logged once, repeating an equal one is allowed."""

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Deliver what was logged so far, or, in a process that is no driver, spool it for that.

        False if some of it was not; what a driver cannot deliver stays spooled.
        """

    def finish(self, status: str) -> None:
        """Flush, and end the run as FINISHED, FAILED or KILLED; no logging afterwards."""

    def close(self, timeout_s: float = 30.0) -> None:
        """Flush, and end this session but not the run, which another process goes on with."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's slice of a global batch, and the positions of its images in the run.

    ``images``: uint8 or uint16 [B, C, H, W], as stored in the shards; ``positions``: int64 [B],
    the index of each image in the whole run (step * global batch size + index in the batch), which
    determines all randomness of that image.
    """

    images: NDArray[np.uint8] | NDArray[np.uint16]
    positions: NDArray[np.int64]


class ShardSource(Protocol):
    """A packed data set, read in an order that is a function of (manifest, seed, epoch) alone."""

    @property
    def manifest(self) -> Manifest: ...

    def batches(
        self, *, seed: int, global_batch_size: int, rank: int, world_size: int, start_step: int
    ) -> Iterator[Batch]:
        """Endless slices of ``rank``, one per step, starting at 0-based step ``start_step``.

        The slices of a step, concatenated in rank order, are the same global batch for any world
        size; each epoch contains every image once.
        """

    def images(self, start: int, stop: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Images ``start``..``stop`` - 1 in manifest order, [N, C, H, W]."""


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """Format of stored images: shape, bit depth, physical values of the integer range's ends."""

    channels: int
    height: int
    width: int
    bits: int = 8
    range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One tar: its key relative to the manifest, number of images, size in bytes, sha256 (hex)."""

    key: str
    count: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Description of a packed data set (``manifest.json``); equal digests mean equal bytes."""

    count: int
    image: ImageFormat
    shards: Sequence[ShardEntry]
    classes: tuple[str, ...]
    source: str
    settings: Mapping[str, Any]
    digest: str
    """sha256 over image format and shard hashes in order; part of a train job's identity."""


class FeatureExtractor(Protocol):
    """A fixed network whose features are compared by a Frechet distance."""

    @property
    def metric(self) -> str:
        """Name of the metric: ``fid``, ``fd_lenet``, ``fd_<name>``."""

    @property
    def weights_sha256(self) -> str: ...

    @property
    def protocol(self) -> str:
        """Resize, normalisation and layer in one line: only equal protocols are comparable."""

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

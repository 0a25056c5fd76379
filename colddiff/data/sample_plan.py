"""``plan.json``: everything that the images of a sample set depend on, and their shard grid."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import Field

from colddiff.data.tars import shard_key
from colddiff.errors import DataError, Missing
from colddiff.ports import ImageFormat, Store
from colddiff.spec import digest
from colddiff.spec.documents import DocumentError, as_record, read_json_object, shown
from colddiff.spec.formats import refuse_later

KEY = "plan.json"
FORMAT = "colddiff-samples/1"


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to generate: its number on the grid, first seed, and number of images."""

    number: int
    first_seed: int
    count: int
    measure: str = ""
    """sha256 of the stored shard if only its feature statistics are missing, else empty."""

    @property
    def key(self) -> str:
        """Its key, relative to the sample set."""
        return shard_key(self.number)

    @property
    def seeds(self) -> range:
        """Seeds of its images, in order."""
        return range(self.first_seed, self.first_seed + self.count)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``ShardTask(**data)`` is the inverse."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """What determines every byte of a sample set, and the number of threads to compute it on.

    ``content`` is JSON: weights hash, digests of model and terminal, sampler, severities, noise,
    seeds, sizes. The number of images is not part of it: a set is extended by adding shards on the
    same grid. ``threads`` is fixed by the first run; later runs keep it.
    """

    content: Mapping[str, Any]
    threads: int = 1

    @property
    def digest(self) -> str:
        """sha256 of the content: equal digests mean equal images on equal machines."""
        return digest(dict(self.content))

    @property
    def image(self) -> ImageFormat:
        """Shape and bit depth of the stored images."""
        return ImageFormat(**self.content["image"])

    @property
    def shard_size(self) -> int:
        """Images per shard; the last shard may be shorter."""
        return int(self.content["shard_size"])

    @property
    def batch_size(self) -> int:
        """Rows of every forward pass."""
        return int(self.content["batch_size"])

    @property
    def first_seed(self) -> int:
        """Seed of the first image of shard 0."""
        return int(self.content["first_seed"])

    @property
    def writer(self) -> str:
        """``webdataset`` or ``folder``."""
        return str(self.content["writer"])

    def num_shards(self, num_samples: int) -> int:
        """Number of shards for ``num_samples`` images, rounded up."""
        return -(-num_samples // self.shard_size)

    def task(self, number: int, num_samples: int) -> ShardTask:
        """The task of shard ``number`` in a set of ``num_samples`` images."""
        start = number * self.shard_size
        count = min(self.shard_size, num_samples - start)
        return ShardTask(number, self.first_seed + start, count)

    def to_bytes(self) -> bytes:
        """The content of ``plan.json``."""
        data = {
            "format": FORMAT,
            "digest": self.digest,
            "threads": self.threads,
            "content": dict(self.content),
        }
        return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()


@dataclass(frozen=True, slots=True)
class _Record:
    """A ``plan.json``."""

    content: dict[str, Any]
    threads: Annotated[int, Field(ge=1)]
    digest: str


@dataclass(frozen=True, slots=True)
class _Image:
    channels: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    bits: int = 8
    range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class _Content:
    """What the properties of a plan read of its content."""

    image: _Image
    shard_size: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    first_seed: int
    writer: str


def _refuse_later(data: dict[str, Any], where: str) -> None:
    try:
        refuse_later(data, FORMAT)
    except DocumentError as error:
        raise DataError(f"{where} {error}") from None


def read_plan(store: Store) -> SamplePlan | None:
    """Read the plan in ``store``; None if there is none, DataError if it is invalid."""
    where = f"{store.uri}/{KEY}"
    try:
        data = read_json_object(store.get(KEY))
        _refuse_later(data, where)
        if data.get("format") != FORMAT:
            found = shown(data.get("format"))
            raise DataError(f"{where}: format is {found}, this version reads {FORMAT!r}")
        record = as_record(_Record, data)
        as_record(_Content, record.content)
    except Missing:
        return None
    except DocumentError as error:
        raise DataError(
            f"{where} {error}; it is not a valid sample plan: use another out"
        ) from None
    plan = SamplePlan(record.content, record.threads)
    if plan.digest != record.digest:
        raise DataError(f"{where}: damaged, its digest does not match; use another out")
    return plan


def differences(stored: SamplePlan, ours: SamplePlan) -> list[str]:
    """Differing fields, such as ``batch_size is 8 there, 16 here``; hashes are abbreviated."""
    names = sorted({*stored.content, *ours.content})
    return [
        f"{name} is {_short(stored.content.get(name))} there, {_short(ours.content.get(name))} here"
        for name in names
        if stored.content.get(name) != ours.content.get(name)
    ]


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    is_hash = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return f"{text[:12]}..." if is_hash else text


def refuse_unfinished(store: Store) -> None:
    """Raises DataError where ``store``, which has no manifest, holds samples of a generation.

    Not for a plain folder of PNG files, which never has one.
    """
    plan = read_plan(store)
    if plan is not None and plan.writer != "folder":
        raise DataError(
            f"{store.uri} holds samples that are not complete: submit the `generate` job that "
            "makes them again, which goes on"
        )

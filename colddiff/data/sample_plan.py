"""``plan.json``: what the images at one place are a function of, and the grid of their shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from colddiff.data.tars import shard_key
from colddiff.errors import DataError, Missing
from colddiff.ports import ImageFormat, Store
from colddiff.spec import digest

KEY = "plan.json"
FORMAT = "colddiff-samples/1"


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to be made: its number on the grid, its first seed, how many images it holds."""

    number: int
    first_seed: int
    count: int
    measure: str = ""
    """sha256 of the stored shard where it is there already and lacks statistics alone."""

    @property
    def key(self) -> str:
        """Its key below the place of the samples."""
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
    """What decides every byte of a sample set, and on how many threads it is computed.

    ``content`` is JSON: the weights' hash, the model's and the terminal's digests, sampler,
    severities, noise, seeds, sizes. How many images there are is not in it: more of them are more
    shards of the same grid, so that a set can be extended. ``threads`` is the number of the first
    run, which all later ones keep.
    """

    content: Mapping[str, Any]
    threads: int = 1

    @property
    def digest(self) -> str:
        """sha256 of the content: equal digests mean equal images, on equal machines."""
        return digest(dict(self.content))

    @property
    def image(self) -> ImageFormat:
        """Shape and depth of the images as they are stored."""
        return ImageFormat(**self.content["image"])

    @property
    def shard_size(self) -> int:
        """Images in every shard but a short last one."""
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
        """Shards of ``num_samples`` images, the last one short where they do not divide."""
        return -(-num_samples // self.shard_size)

    def task(self, number: int, num_samples: int) -> ShardTask:
        """Shard ``number`` of ``num_samples`` images, by arithmetic alone."""
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


def read_plan(store: Store) -> SamplePlan | None:
    """The plan of the samples in ``store``; None where there is none, DataError for a wrong one."""
    where = f"{store.uri}/{KEY}"
    try:
        data = json.loads(store.get(KEY))
        if data["format"] != FORMAT:
            raise DataError(f"{where}: is {data['format']!r}, this version reads {FORMAT!r}")
        plan = SamplePlan(data["content"], int(data["threads"]))
        image_is_readable = plan.image.channels >= 1 and plan.shard_size >= 1
    except Missing:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{where}: is no plan of samples ({type(error).__name__}); use another out"
        ) from None
    if not image_is_readable or plan.digest != data.get("digest"):
        raise DataError(f"{where}: is damaged, its digest does not fit; use another out")
    return plan


def differences(there: SamplePlan, ours: SamplePlan) -> list[str]:
    """What differs, such as ``batch_size is 8 there, 16 here``; hashes are cut short."""
    names = sorted({*there.content, *ours.content})
    return [
        f"{name} is {_short(there.content.get(name))} there, {_short(ours.content.get(name))} here"
        for name in names
        if there.content.get(name) != ours.content.get(name)
    ]


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    is_hash = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return f"{text[:12]}..." if is_hash else text
